// Named tensors: to and from safetensors files, and compared with what was expected.
#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace focus::train {

/// Name order; any device, any strides. InternalError for a dtype that safetensors lacks; DataError when it
/// cannot be written.
void write_tensors(const std::filesystem::path& path, const std::map<std::string, at::Tensor>& tensors);
/// CPU copies that do not keep the file open. CheckpointError.
std::map<std::string, at::Tensor> read_tensors(const std::filesystem::path& path);

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

/// CheckpointError listing every missing and unexpected name and every different shape or dtype; `what` says
/// which tensors, e.g. a file.
void require_same_tensors(const std::map<std::string, at::Tensor>& found, const NamedTensors& expected,
                          const std::string& what);

}  // namespace focus::train
