// Activation checkpointing: trade a second forward pass for the memory of the first one's intermediate
// results.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <vector>

namespace focus::ops {

using TensorFunction = std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>&)>;

/// f(inputs). Only the inputs are kept for the backward pass, which runs f again. f must be a pure function
/// of its inputs and of parameters (leaves, whose gradients accumulate as usual) and is called from the
/// backward pass, so whatever it captures must live until then. f is simply called without gradients, and
/// when no input needs one unless `has_parameters` says that f's own may.
std::vector<at::Tensor> recomputed(TensorFunction f, const std::vector<at::Tensor>& inputs,
                                   bool has_parameters = false);

}  // namespace focus::ops
