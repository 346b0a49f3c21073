#include "safetensors_header.h"

#include <nlohmann/json.hpp>

#include "focus/core/error.h"
#include "little_endian.h"
#include "printable.h"

namespace focus::formats {

std::string safetensors_header(const std::filesystem::path& path, std::span<const TensorView> tensors,
                               const std::map<std::string, std::string>& metadata) {
  const auto quoted = [](const std::string& text) { return nlohmann::json(text).dump(); };
  std::string header = "{";
  if (!metadata.empty()) {
    header += "\"__metadata__\":{";
    const char* separator = "";
    for (const auto& [key, value] : metadata) {
      if (!is_utf8(key) || !is_utf8(value))
        fail<DataError>("cannot write '", path.string(), "': metadata ", printable(key), " is not UTF-8");
      header += concat(separator, quoted(key), ":", quoted(value));
      separator = ",";
    }
    header += "}";
  }
  std::int64_t offset = 0;
  for (const TensorView& tensor : tensors) {
    if (tensor.name == "__metadata__")
      fail<DataError>("cannot write '", path.string(), "': the name '__metadata__' is reserved by safetensors");
    std::string shape;
    for (const std::int64_t size : tensor.shape) shape += concat(shape.empty() ? "" : ",", size);
    header += concat(header.size() > 1 ? "," : "", quoted(tensor.name), ":{\"dtype\":\"", name_of(tensor.dtype), "\",\"shape\":[", shape,
                     "],\"data_offsets\":[", offset, ",", offset + tensor.num_bytes(), "]}");
    offset += tensor.num_bytes();
  }
  header += "}";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  std::string length;
  append_little(length, static_cast<std::uint64_t>(header.size()));
  return length + header;
}

void write_safetensors_to(AtomicFile& file, const std::string& header, std::span<const TensorView> tensors) {
  file.write(header);
  for (const TensorView& tensor : tensors) file.write(tensor.data, static_cast<std::size_t>(tensor.num_bytes()));
}

}  // namespace focus::formats
