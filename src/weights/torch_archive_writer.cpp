#include <zlib.h>

#include <algorithm>
#include <limits>
#include <map>
#include <string_view>
#include <tuple>

#include "focus/core/error.h"
#include "focus/core/file.h"
#include "little_endian.h"
#include "mapped_tensor_file.h"
#include "printable.h"

namespace focus::weights {
namespace {

constexpr std::int64_t kAlignment = 64;
constexpr std::uint32_t kIn64 = 0xffffffff;

/// A zip of stored entries whose data begin at multiples of 64 bytes, so that a reader can map tensors in place.
class ZipWriter {
 public:
  explicit ZipWriter(AtomicFile& file) : file_(file) {}

  void add(const std::string& name, std::string_view content) {
    const std::int64_t offset = file_.size();
    const std::uint64_t size = content.size();
    const bool large = size >= kIn64;
    std::string extra;
    if (large) append_zip64(extra, {size, size});
    const std::int64_t unpadded = offset + 30 + static_cast<std::int64_t>(name.size() + extra.size()) + 4;
    // An extra field of torch.save's own kind ("FB") carries the padding; readers skip what they do not know.
    const std::int64_t padding = (kAlignment - unpadded % kAlignment) % kAlignment;
    extra += "FB";
    append_little(extra, static_cast<std::uint16_t>(padding));
    extra.append(static_cast<std::size_t>(padding), 'Z');

    const std::string common = header_fields(name, content, large);
    std::string local = "PK\x03\x04";
    local += common;
    append_little(local, static_cast<std::uint16_t>(extra.size()));
    file_.write(local + name + extra);
    file_.write(content);
    list(name, common, size, offset);
  }

  void finish() {
    const auto offset = static_cast<std::uint64_t>(file_.size());
    file_.write(directory_);
    const auto size = static_cast<std::uint64_t>(directory_.size());
    const auto end_offset = static_cast<std::uint64_t>(file_.size());
    // The zip64 records are always written, as torch.save does: files below and above 4 GiB look the same.
    std::string end = "PK\x06\x06";
    append_little(end, std::uint64_t{44});
    append_little(end, std::uint16_t{0x031e});
    append_little(end, std::uint16_t{45});
    append_little(end, std::uint64_t{0});  // this disk, disk of the directory
    for (const std::uint64_t value : {num_entries_, num_entries_, size, offset}) append_little(end, value);
    end += "PK\x06\x07";
    append_little(end, std::uint32_t{0});
    append_little(end, end_offset);
    append_little(end, std::uint32_t{1});
    end += "PK\x05\x06";
    append_little(end, std::uint32_t{0});
    const auto short_count = static_cast<std::uint16_t>(std::min<std::uint64_t>(num_entries_, 0xffff));
    append_little(end, short_count);
    append_little(end, short_count);
    append_little(end, clipped(size));
    append_little(end, clipped(offset));
    append_little(end, std::uint16_t{0});
    file_.write(end);
  }

 private:
  static std::uint32_t clipped(std::uint64_t value) { return static_cast<std::uint32_t>(std::min<std::uint64_t>(value, kIn64)); }

  static void append_zip64(std::string& to, const std::vector<std::uint64_t>& values) {
    append_little(to, std::uint16_t{1});
    append_little(to, static_cast<std::uint16_t>(8 * values.size()));
    for (const std::uint64_t value : values) append_little(to, value);
  }

  /// The fields that local and central headers share, from "version needed" to "name length".
  static std::string header_fields(const std::string& name, std::string_view content, bool large) {
    std::string fields;
    append_little(fields, static_cast<std::uint16_t>(large ? 45 : 20));
    append_little(fields, std::uint16_t{0x0800});  // names are UTF-8
    append_little(fields, std::uint16_t{0});       // stored
    append_little(fields, std::uint16_t{0});       // time and date: the format's first day, so that equal tensors give equal files
    append_little(fields, std::uint16_t{0x0021});
    const auto* bytes = reinterpret_cast<const Bytef*>(content.data());
    append_little(fields, static_cast<std::uint32_t>(crc32_z(crc32_z(0, nullptr, 0), bytes, content.size())));
    append_little(fields, clipped(content.size()));
    append_little(fields, clipped(content.size()));
    append_little(fields, static_cast<std::uint16_t>(name.size()));
    return fields;
  }

  void list(const std::string& name, const std::string& common, std::uint64_t size, std::int64_t offset) {
    std::vector<std::uint64_t> large;
    if (size >= kIn64) large = {size, size};
    if (static_cast<std::uint64_t>(offset) >= kIn64) large.push_back(static_cast<std::uint64_t>(offset));
    std::string extra;
    if (!large.empty()) append_zip64(extra, large);
    directory_ += "PK\x01\x02";
    append_little(directory_, std::uint16_t{0x031e});
    directory_ += common;
    append_little(directory_, static_cast<std::uint16_t>(extra.size()));
    directory_.append(10, '\0');  // comment length, disk, internal and external attributes
    append_little(directory_, clipped(static_cast<std::uint64_t>(offset)));
    directory_ += name + extra;
    ++num_entries_;
  }

  AtomicFile& file_;
  std::string directory_;
  std::uint64_t num_entries_ = 0;
};

const char* storage_type(DType dtype) {
  switch (dtype) {
    case DType::float32: return "FloatStorage";
    case DType::bfloat16: return "BFloat16Storage";
    case DType::float16: return "HalfStorage";
    case DType::float64: return "DoubleStorage";
    case DType::int64: return "LongStorage";
    case DType::int32: return "IntStorage";
    case DType::int16: return "ShortStorage";
    case DType::int8: return "CharStorage";
    case DType::uint8: return "ByteStorage";
    case DType::boolean: return "BoolStorage";
  }
  fail<InternalError>("a DType without a storage type");
}

/// Writes the pickle of a flat dict of tensors, protocol 2. Nothing is memoised: a reader needs no memo, and the names dominate anyway.
class PickleWriter {
 public:
  PickleWriter() { out_ += "\x80\x02}("; }

  void tensor(const TensorView& tensor, std::size_t storage) {
    text(tensor.name);
    global("torch._utils", "_rebuild_tensor_v2");
    out_ += "((";
    text("storage");
    global("torch", storage_type(tensor.dtype));
    text(std::to_string(storage));
    text("cpu");
    integer(tensor.num_elements());
    out_ += "tQ";
    integer(0);
    out_ += '(';
    for (const std::int64_t size : tensor.shape) integer(size);
    out_ += "t(";
    // Suffix products; a zero dimension counts as 1, as in torch.
    std::vector<std::int64_t> strides(tensor.shape.size(), 1);
    for (std::size_t i = strides.size(); i-- > 1;) strides[i - 1] = strides[i] * std::max<std::int64_t>(tensor.shape[i], 1);
    for (const std::int64_t stride : strides) integer(stride);
    out_ += "t\x89";
    global("collections", "OrderedDict");
    out_ += ")RtR";
  }

  std::string finish() { return std::move(out_ += "u."); }

 private:
  void text(std::string_view value) {
    out_ += 'X';
    append_little(out_, static_cast<std::uint32_t>(value.size()));
    out_ += value;
  }
  void global(std::string_view module, std::string_view name) { out_ += concat('c', module, '\n', name, '\n'); }
  void integer(std::int64_t value) {
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

  std::string out_;
};

}  // namespace

void write_torch_archive(const std::filesystem::path& path, const std::vector<TensorView>& tensors) {
  check_writable(path, tensors);
  PickleWriter pickle;
  std::vector<std::string_view> storages;
  std::map<std::tuple<const std::byte*, DType, std::int64_t>, std::size_t> known;
  for (const TensorView& tensor : tensors) {
    if (tensor.name.size() > 0xffff) fail<DataError>("cannot write '", path.string(), "': a tensor's name has ", tensor.name.size(), " bytes");
    std::size_t storage = storages.size();
    const std::int64_t num_bytes = tensor.num_bytes();
    if (num_bytes > 0) storage = known.emplace(std::tuple(tensor.data, tensor.dtype, num_bytes), storage).first->second;
    if (storage == storages.size()) {
      storages.push_back(num_bytes > 0 ? std::string_view(reinterpret_cast<const char*>(tensor.data), static_cast<std::size_t>(num_bytes))
                                       : std::string_view());
    }
    pickle.tensor(tensor, storage);
  }

  std::string folder = path.stem().string();
  // Headers have 16 bits for a name, and a file's name can hold bytes that are not UTF-8: such a folder gets a plain name.
  if (folder.empty() || folder.size() > 255 || folder.find_first_of("/\\") != std::string::npos || !is_utf8(folder)) folder = "archive";
  AtomicFile file(path);
  ZipWriter zip(file);
  zip.add(folder + "/data.pkl", pickle.finish());
  zip.add(folder + "/.format_version", "1");
  zip.add(folder + "/.storage_alignment", std::to_string(kAlignment));
  zip.add(folder + "/byteorder", "little");
  for (std::size_t i = 0; i < storages.size(); ++i) zip.add(concat(folder, "/data/", i), storages[i]);
  zip.add(folder + "/version", "3\n");
  zip.finish();
  file.commit();
}

}  // namespace focus::weights
