// Work of a device that is launched at once: a CUDA graph.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <memory>

namespace focus::ops {

/// Work that the device took note of once and does as often as it is asked to, on the same memory. Numbers
/// that the host passed are those of the recording; what is to change between two replays must lie in the
/// device's memory.
class RecordedWork {
 public:
  virtual ~RecordedWork() = default;
  /// Calls `work`, whose operations the device notes down and does not do, in place of those recorded
  /// before. They may neither wait for the device nor copy from or to the host. What `work` allocates and
  /// lets go belongs to the recording; all other memory has to outlive it. What `work` throws, or the reason
  /// why the device refuses it, passes through, and nothing is recorded then.
  virtual void record(const std::function<void()>& work) = 0;
  /// Does the work, in the order of the device's current stream.
  virtual void replay() = 0;
};

/// Nothing recorded yet. Null where a device cannot: the CPU.
std::unique_ptr<RecordedWork> recorded_work(const at::Device& device);

}  // namespace focus::ops
