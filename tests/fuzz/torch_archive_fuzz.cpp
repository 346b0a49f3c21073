// Any bytes as a .pt.
#include "check_file.h"
#include "mapped_tensor_file.h"
#include "zip_mutator.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace focus::formats;
  fuzz::check_reader({reinterpret_cast<const std::byte*>(data), size},
                     [](std::unique_ptr<FileBytes> file) { return read_torch_archive(std::move(file)); });
  return 0;
}

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned int seed) {
  return focus::formats::fuzz::mutate_torch_zip(data, size, max_size, seed);
}
