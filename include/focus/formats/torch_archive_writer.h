// Writing .pt files.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "focus/core/file.h"
#include "focus/formats/tensor_file.h"

namespace focus::formats {

/// As write_safetensors, with the same errors, but an Evo-2 style .pt: stored zip, 64-byte aligned records,
/// protocol-2 pickle of a flat dict, which torch.load opens (with weights_only=True where no opaque entry is
/// a BytesIO). Tensors of equal dtype and size at the same address share one storage.
void write_torch_archive(const std::filesystem::path& path, const std::vector<TensorView>& tensors,
                         const std::vector<OpaqueEntry>& opaque = {}, const WriteProgress& progress = {});

}  // namespace focus::formats
