// The head of a safetensors file.
#pragma once

#include <filesystem>
#include <map>
#include <span>
#include <string>

#include "focus/core/file.h"
#include "focus/formats/tensor_file.h"

namespace focus::formats {

/// Length and JSON, padded to 8 bytes. Throws DataError naming `path`: a reserved name, metadata that are not UTF-8.
std::string safetensors_header(const std::filesystem::path& path, std::span<const TensorView> tensors,
                               const std::map<std::string, std::string>& metadata);

/// Header and tensors into a file that the caller commits.
void write_safetensors_to(AtomicFile& file, const std::string& header, std::span<const TensorView> tensors);

}  // namespace focus::formats
