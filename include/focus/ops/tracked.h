// Whether autograd is watching.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <initializer_list>

namespace focus::ops {

/// Whether an operation on these tensors would be recorded for a backward pass. Undefined tensors do not
/// count.
inline bool tracked(std::initializer_list<at::Tensor> tensors) {
  return at::GradMode::is_enabled() && std::any_of(tensors.begin(), tensors.end(), [](const at::Tensor& t) {
           return t.defined() && t.requires_grad();
         });
}

}  // namespace focus::ops
