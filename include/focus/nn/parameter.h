// How the layers make their parameters.
#pragma once

#include <ATen/ATen.h>

namespace focus::nn {

/// While one lives on this thread, layers are made without memory for their parameters: each is a single
/// number broadcast to its shape, until set_data() gives it a tensor (a view of a mapped checkpoint, say). A
/// 7B model is then built in no time and no memory.
class DeferAllocation {
 public:
  DeferAllocation();
  ~DeferAllocation();
  DeferAllocation(const DeferAllocation&) = delete;
  DeferAllocation& operator=(const DeferAllocation&) = delete;

 private:
  bool before_;
};

/// An fp32 parameter filled with `value`.
at::Tensor new_parameter(at::IntArrayRef sizes, double value = 0.0);

}  // namespace focus::nn
