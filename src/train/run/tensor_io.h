// Named tensors to and from safetensors files.
#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <map>
#include <string>

namespace focus::train {

/// Name order; any device, any strides. InternalError for a dtype that safetensors lacks; DataError when it cannot be written.
void write_tensors(const std::filesystem::path& path, const std::map<std::string, at::Tensor>& tensors);
/// CPU copies that do not keep the file open. CheckpointError.
std::map<std::string, at::Tensor> read_tensors(const std::filesystem::path& path);

}  // namespace focus::train
