#include "pickle_writer.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "focus/core/error.h"
#include "little_endian.h"
#include "printable.h"

namespace focus::formats {
namespace {

struct TorchType {
  DType type;
  const char* storage;  // class of a typed storage; nullptr where torch has none for this type
  const char* dtype = nullptr;
};
constexpr TorchType kTypes[] = {{DType::float32, "FloatStorage"},
                                {DType::bfloat16, "BFloat16Storage"},
                                {DType::float16, "HalfStorage"},
                                {DType::float64, "DoubleStorage"},
                                {DType::int64, "LongStorage"},
                                {DType::int32, "IntStorage"},
                                {DType::int16, "ShortStorage"},
                                {DType::int8, "CharStorage"},
                                {DType::uint8, "ByteStorage"},
                                {DType::boolean, "BoolStorage"},
                                {DType::float8_e4m3, nullptr, "float8_e4m3fn"},
                                {DType::float8_e5m2, nullptr, "float8_e5m2"}};

const TorchType& torch_type(DType dtype) {
  for (const TorchType& known : kTypes) {
    if (known.type == dtype) return known;
  }
  fail<InternalError>("a DType without a torch type");
}

}  // namespace

void PickleWriter::tensor(const TensorView& tensor, std::size_t storage) {
  const TorchType type = torch_type(tensor.dtype);
  text(tensor.name);
  global("torch._utils", type.storage != nullptr ? "_rebuild_tensor_v2" : "_rebuild_tensor_v3");
  out_ += "((";
  text("storage");
  type.storage != nullptr ? global("torch", type.storage) : global("torch.storage", "UntypedStorage");
  text(std::to_string(storage));
  text("cpu");
  integer(type.storage != nullptr ? tensor.num_elements() : tensor.num_bytes());
  out_ += "tQ";
  integer(0);
  out_ += '(';
  for (const std::int64_t size : tensor.shape) integer(size);
  out_ += "t(";
  // Suffix products; a zero dimension counts as 1, as in torch.
  std::vector<std::int64_t> strides(tensor.shape.size(), 1);
  for (std::size_t i = strides.size(); i-- > 1;)
    strides[i - 1] = strides[i] * std::max<std::int64_t>(tensor.shape[i], 1);
  for (const std::int64_t stride : strides) integer(stride);
  out_ += "t\x89";
  global("collections", "OrderedDict");
  out_ += ")R";
  if (type.storage == nullptr) global("torch", type.dtype);
  out_ += "tR";
}

void PickleWriter::opaque(const OpaqueEntry& entry) {
  text(entry.name);
  switch (entry.kind) {
    case OpaqueEntry::Kind::none:
      out_ += 'N';
      return;
    case OpaqueEntry::Kind::bytes:
      return bytes(entry.content);
    case OpaqueEntry::Kind::byte_stream:
      global("_io", "BytesIO");
      out_ += ")\x81(";
      bytes(entry.content);
      integer(0);
      out_ += "Ntb";
      return;
    case OpaqueEntry::Kind::byte_tensor:
    case OpaqueEntry::Kind::other:
      break;
  }
  fail<InternalError>("an opaque entry that a pickle cannot hold");
}

void PickleWriter::text(std::string_view value) {
  out_ += 'X';
  append_little(out_, static_cast<std::uint32_t>(value.size()));
  out_ += value;
}

/// Protocol 2 has no bytes: Python 3 writes them as text, each byte a character, and no bytes at all as a
/// call of the type.
void PickleWriter::bytes(std::span<const std::byte> value) {
  if (value.empty()) {
    global("__builtin__", "bytes");
    out_ += ")R";
    return;
  }
  global("_codecs", "encode");
  text(utf8_of({reinterpret_cast<const char*>(value.data()), value.size()}));
  text("latin1");
  out_ += "\x86R";
}

void PickleWriter::global(std::string_view module, std::string_view name) {
  out_ += concat('c', module, '\n', name, '\n');
}

void PickleWriter::integer(std::int64_t value) {
  if (value <= 0xff) {
    out_ += 'K';
    append_little(out_, static_cast<std::uint8_t>(value));
  } else if (value <= std::numeric_limits<std::int32_t>::max()) {
    out_ += 'J';
    append_little(out_, static_cast<std::int32_t>(value));
  } else {
    out_ += "\x8a\x08";
    append_little(out_, value);
  }
}

}  // namespace focus::formats
