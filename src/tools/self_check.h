// A second's proof that the libraries and kernels of this build compute on this machine what they should.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

namespace focus::tools {

struct SelfCheck {
  std::string name;
  double error = 0, limit = 0;  // relative rms to a reference in fp64, or to the plain twin of a kernel
  std::string failure;          // what was thrown instead of a result
  bool passed() const { return failure.empty() && error <= limit; }  // false when the error is not a number
};

/// Matrix products in fp32 and bf16 and focus's own kernels, on one device.
std::vector<SelfCheck> self_checks(const at::Device& device);

}  // namespace focus::tools
