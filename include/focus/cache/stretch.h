// Bases that are read one by one, as in decoding.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

namespace focus::cache {

/// Calls of one base each that do the same work on the same memory, so that a device may record one of them
/// and replay it for those that follow (ops::RecordedWork). What differs from base to base follows from one
/// number, which lies on the device and grows by itself.
struct Stretch {
  at::Tensor index;   // [1] int64: bases of the stretch before this one
  int64_t read = 0;   // the same number, as the host knows it
  bool over = false;  // the next base begins another stretch

  /// A number that grows by one with each base and is `now` at this one, as a tensor [1] on the device.
  at::Tensor counted(int64_t now, at::ScalarType type, const at::Device& device) const {
    at::Tensor out = at::empty({1}, index.options().dtype(type));
    at::add_out(out, index, at::scalar_tensor(now - read, at::kLong));
    return out.to(device);
  }
};

}  // namespace focus::cache
