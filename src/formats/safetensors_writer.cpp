#include "focus/formats/safetensors_writer.h"

#include "safetensors_header.h"
#include "writable.h"

namespace focus::formats {

void write_safetensors(const std::filesystem::path& path, const std::vector<TensorView>& tensors,
                       const std::map<std::string, std::string>& metadata, const std::vector<OpaqueEntry>& opaque,
                       const WriteProgress& progress) {
  check_writable(path, tensors, opaque);
  const std::vector<TensorView> all = with_opaque_as_tensors(path, tensors, opaque);
  const std::string header = safetensors_header(path, all, metadata);
  check_room(path, num_bytes_of(all, {}) + static_cast<std::int64_t>(header.size()));
  AtomicFile file(path, progress);
  write_safetensors_to(file, header, all);
  file.commit();
}

}  // namespace focus::formats
