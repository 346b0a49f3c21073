// Files of named tensors, memory-mapped and read without executing anything: Evo-2 checkpoints (.pt zip with a pickle inside, whole or
// as NAME.part0, NAME.part1, ...) and safetensors. No torch type appears here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace focus::weights {

enum class DType { float32, bfloat16, float16, float64, int64, int32, int16, int8, uint8, boolean };

int64_t size_of(DType dtype);
/// safetensors' spelling: F32, BF16, F16, F64, I64, I32, I16, I8, U8, BOOL.
const char* name_of(DType dtype);

/// A contiguous row-major tensor. `data` points into the file's mapping (reading) or to the caller's memory (writing); a tensor whose
/// strides in the file are not contiguous is copied into memory that the TensorFile owns.
struct TensorView {
  std::string name;
  DType dtype = DType::float32;
  std::vector<int64_t> shape;
  const std::byte* data = nullptr;
  int64_t num_elements() const;
  int64_t num_bytes() const { return num_elements() * size_of(dtype); }
};

class TensorFile {
 public:
  virtual ~TensorFile() = default;
  /// Opens by content, not by name: zip magic = .pt, else safetensors. If `path` is missing and `path`.part0 exists, the parts
  /// are joined. Throws WeightsError: missing, truncated, malformed, disallowed pickle global (named), unsupported dtype, sizes that do
  /// not fit. A .pt may hold its tensors directly or one level down, under `state_dict`, `model`, `module` or a single key of any name.
  /// No checksum is verified here: torch.save can be told to write none. Use file_digest to compare a download with its publisher's.
  static std::shared_ptr<TensorFile> open(const std::filesystem::path& path);

  /// In file order.
  const std::vector<TensorView>& tensors() const { return tensors_; }
  /// nullptr when absent.
  const TensorView* find(const std::string& name) const;
  /// Names of entries that are no tensors (BytesIO `_extra_state`), in file order.
  const std::vector<std::string>& opaque_entries() const { return opaque_; }
  /// safetensors' __metadata__; empty for .pt.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  /// "pt" or "safetensors".
  const std::string& format() const { return format_; }

 protected:
  std::vector<TensorView> tensors_;
  std::vector<std::string> opaque_;
  std::map<std::string, std::string> metadata_;
  std::string format_;
  std::map<std::string, std::size_t> index_;  // name -> position in tensors_
};

/// Writes a safetensors file atomically (8-byte aligned header, tensors in the given order). Throws DataError: a repeated, reserved or
/// non-UTF-8 name, a tensor without data, a file that cannot be written.
void write_safetensors(const std::filesystem::path& path, const std::vector<TensorView>& tensors,
                       const std::map<std::string, std::string>& metadata = {});
/// Writes an Evo-2 style .pt: stored zip, 64-byte aligned records, protocol-2 pickle of a flat dict of tensors, which
/// torch.load(weights_only=True) opens. Tensors of equal dtype and size at the same address share one storage. Throws DataError as above.
void write_torch_archive(const std::filesystem::path& path, const std::vector<TensorView>& tensors);

/// Digest of names, dtypes, shapes and bytes (SHA-256, hex) in name order: equal for the same tensors in either format. Hashed for each
/// tensor, integers as 8 little-endian bytes: length of name, name, length of dtype, name_of(dtype), rank, every dimension, bytes.
std::string digest(const TensorFile& file);
/// SHA-256 of a file's bytes, hex.
std::string file_digest(const std::filesystem::path& path);

}  // namespace focus::weights
