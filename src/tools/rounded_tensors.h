// Tensors of a file in another floating-point type, without holding them in memory.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "focus/core/file.h"
#include "focus/formats/tensor_file.h"

namespace focus::tools {

/// What a tensor becomes when `wanted` is asked for: itself without a wish, for integers, FP8 and booleans,
/// and, when narrowed, for what the model keeps in fp32 (poles, residues, rotary frequencies).
formats::DType rounded_dtype(const formats::TensorView& tensor, std::optional<formats::DType> wanted);

/// Calls `take` with the tensor's bytes in `dtype`, some MB at a time; a tensor that has that dtype already
/// passes as it is.
void for_each_rounded_chunk(const formats::TensorView& tensor, formats::DType dtype,
                            const std::function<void(const std::byte* bytes, std::size_t num_bytes)>& take);

/// The converted tensors lie in a file without a name, since a checkpoint may exceed memory: its disk space
/// is free again when this ends, however the program ends.
class RoundedTensors {
 public:
  /// `scratch`: a path on the disk to use. Tensors that keep their dtype stay views of the input. `progress`
  /// may throw. DataError: no room.
  RoundedTensors(const std::vector<formats::TensorView>& tensors, std::optional<formats::DType> wanted,
                 const std::filesystem::path& scratch, const WriteProgress& progress);
  const std::vector<formats::TensorView>& tensors() const { return tensors_; }

 private:
  std::vector<formats::TensorView> tensors_;
  std::optional<MappedFile> values_;
};

}  // namespace focus::tools
