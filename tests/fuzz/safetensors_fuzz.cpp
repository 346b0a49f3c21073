// Any bytes as safetensors, or, where they begin like JSON, as the index of shards beside two good ones.
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <random>

#include "check_file.h"
#include "focus/core/error.h"
#include "focus/formats/safetensors_writer.h"
#include "mapped_tensor_file.h"

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

namespace {

using namespace focus::formats;

/// A folder with the shards a.safetensors (tensors x, y) and b.safetensors (z).
class Shards {
 public:
  Shards() : folder_("/dev/shm/focus-fuzz-shards-" + std::to_string(::getpid())) {
    std::filesystem::create_directory(folder_);
    static const float numbers[4] = {1, 2, 3, 4};
    const auto* data = reinterpret_cast<const std::byte*>(numbers);
    write_safetensors(folder_ / "a.safetensors",
                      {{"x", DType::float32, {2}, data}, {"y", DType::int8, {}, data}}, {{"format", "pt"}});
    write_safetensors(folder_ / "b.safetensors", {{"z", DType::float32, {4}, data}}, {{"format", "pt"}});
  }
  ~Shards() {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
  const std::filesystem::path& folder() const { return folder_; }

 private:
  std::filesystem::path folder_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Shards shards;
  const std::span<const std::byte> input(reinterpret_cast<const std::byte*>(data), size);
  if (size > 0 && data[0] == '{') {
    try {
      const auto file = read_safetensors_index(FileBytes({input}, "input", "advice"), shards.folder());
      for (const TensorView& view : file->tensors()) {
        if (view.name != "x" && view.name != "y" && view.name != "z") std::abort();
      }
    } catch (const focus::WeightsError&) {
    }
    return 0;
  }
  fuzz::check_reader(input,
                     [](std::unique_ptr<FileBytes> file) { return read_safetensors(std::move(file)); });
  return 0;
}

/// Mostly changes the header and keeps its length right, so that the JSON is reached.
extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned int seed) {
  std::minstd_rand random(seed);
  std::uint64_t length = 0;
  if (size >= 8) std::memcpy(&length, data, 8);
  if (size < 8 || data[0] == '{' || length > size - 8 || random() % 8 == 0)
    return LLVMFuzzerMutate(data, size, max_size);
  const std::vector<std::uint8_t> tail(data + 8 + length, data + size);
  const std::size_t room = max_size - 8 - std::min(tail.size(), max_size - 8);
  const std::uint64_t changed = LLVMFuzzerMutate(data + 8, length, std::max<std::size_t>(room, 1));
  const std::size_t kept = std::min(tail.size(), max_size - 8 - changed);
  std::memcpy(data, &changed, 8);
  if (kept > 0) std::memcpy(data + 8 + changed, tail.data(), kept);
  return 8 + changed + kept;
}
