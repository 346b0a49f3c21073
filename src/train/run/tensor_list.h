// Comparing a set of named tensors with the set that was expected.
#pragma once

#include <ATen/ATen.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

namespace focus::train {

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

/// CheckpointError listing every missing and unexpected name and every different shape or dtype; `what` says which tensors, e.g. a file.
void require_same_tensors(const std::map<std::string, at::Tensor>& found, const NamedTensors& expected, const std::string& what);

}  // namespace focus::train
