#include "focus/nn/parameter.h"

#include <vector>

namespace focus::nn {

using at::Tensor;

namespace {
thread_local bool defer_allocation = false;
}  // namespace

DeferAllocation::DeferAllocation() : before_(defer_allocation) { defer_allocation = true; }
DeferAllocation::~DeferAllocation() { defer_allocation = before_; }

Tensor new_parameter(at::IntArrayRef sizes, double value) {
  if (!defer_allocation) return at::full(sizes, value, at::kFloat);
  return at::full(std::vector<int64_t>(sizes.size(), 1), value, at::kFloat).expand(sizes);
}

}  // namespace focus::nn
