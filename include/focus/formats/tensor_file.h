// Files of named tensors, memory-mapped and read without executing anything: Evo-2 checkpoints (.pt zip with
// a pickle inside, whole or as NAME.part0, NAME.part1, ...) and safetensors (one file, or shards with an
// index). No torch type appears here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace focus::formats {

enum class DType {
  float32,
  bfloat16,
  float16,
  float64,
  int64,
  int32,
  int16,
  int8,
  uint8,
  boolean,
  float8_e4m3,
  float8_e5m2
};

int64_t size_of(DType dtype);
/// safetensors' spelling: F32, BF16, F16, F64, I64, I32, I16, I8, U8, BOOL, F8_E4M3 (torch's float8_e4m3fn),
/// F8_E5M2.
const char* name_of(DType dtype);
/// The other way; nothing for another text.
std::optional<DType> dtype_named(std::string_view name);

/// [2, 3]; of more than eight dimensions the first eight.
std::string shape_text(const std::vector<int64_t>& shape);

/// A contiguous row-major tensor. `data` points into the file's mapping (reading) or to the caller's memory
/// (writing).
struct TensorView {
  std::string name;
  DType dtype = DType::float32;
  std::vector<int64_t> shape;
  const std::byte* data = nullptr;
  int64_t num_elements() const;
  int64_t num_bytes() const { return num_elements() * size_of(dtype); }
  /// Whether `data` may be read as an array of its dtype. Always so when read from one file; in parts cut at
  /// odd places (the released 40B's have 41,126,745,847 bytes each) whole parts are misaligned, and copying
  /// them at opening would take tens of GB.
  bool is_aligned() const;
};

/// An entry that is no tensor. Transformer Engine keeps FP8 scales in such entries, called `..._extra_state`
/// (fp8_state.h).
struct OpaqueEntry {
  /// byte_stream: an io.BytesIO; byte_tensor: a one-dimensional U8 tensor called ..._extra_state, in a .pt;
  /// other: a number or text.
  enum class Kind { byte_stream, byte_tensor, bytes, none, other };
  std::string name;
  Kind kind = Kind::byte_stream;
  std::span<const std::byte> content;  // empty for none and other
};

/// A file on the disk: the whole checkpoint, one of its parts, or a shard.
struct FilePart {
  std::filesystem::path path;
  int64_t num_bytes = 0;
};

class TensorFile {
 public:
  virtual ~TensorFile() = default;
  /// Opens by content, not by name: zip magic = .pt, JSON = a safetensors index, else safetensors. A folder
  /// stands for the index in it
  /// (*.safetensors.index.json) or its only *.safetensors. If `path` is missing and `path`.part0 exists, the
  /// parts are read as one file. Throws WeightsError: missing, truncated, malformed, disallowed pickle global
  /// (named), unsupported dtype, sizes that do not fit. A .pt may hold its tensors directly or one level
  /// down, under `state_dict`, `model`, `module` or a single key of any name; of both, the names of those
  /// further down begin with that key and a dot. Shards and index must name the same tensors exactly. Tensors
  /// are views of the mapping, without a copy, save those with strides, those cut by a boundary between
  /// parts, and misaligned ones of a single file. No checksum is verified here: torch.save can be told to
  /// write none. Use file_digest to compare a download with its publisher's.
  static std::shared_ptr<TensorFile> open(const std::filesystem::path& path);

  /// In file order; shards in the order of their names.
  const std::vector<TensorView>& tensors() const { return tensors_; }
  /// nullptr when absent.
  const TensorView* find(const std::string& name) const;
  /// Names of entries that are no tensors (BytesIO `_extra_state`; in safetensors a one-dimensional U8 tensor
  /// of such a name), in file order.
  const std::vector<std::string>& opaque_entries() const { return opaque_names_; }
  /// The same entries with what they hold.
  const std::vector<OpaqueEntry>& opaque() const { return opaque_; }
  /// The bytes of one of them; nothing when there is no such entry, empty when it has no bytes (None, a
  /// number, a text).
  std::optional<std::span<const std::byte>> opaque(const std::string& name) const;
  /// safetensors' __metadata__, of shards what all of them agree on; empty for .pt.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  /// "pt" or "safetensors".
  const std::string& format() const { return format_; }
  /// What it was read from, in order; the index of shards is not among them.
  const std::vector<FilePart>& files() const { return files_; }

 protected:
  /// A repeated name is a WeightsError that begins with `where`.
  void add_tensor(TensorView tensor, const std::string& where);
  void add_opaque(OpaqueEntry entry, const std::string& where);

  std::map<std::string, std::string> metadata_;
  std::string format_;
  std::vector<FilePart> files_;

 private:
  std::vector<TensorView> tensors_;
  std::vector<OpaqueEntry> opaque_;
  std::vector<std::string> opaque_names_;
  std::map<std::string, std::size_t> index_, opaque_index_;  // name -> position
};

}  // namespace focus::formats
