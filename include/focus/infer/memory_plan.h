// How much memory a stream will need, before it starts.
#pragma once

#include <cstdint>
#include <string>

#include "focus/infer/stream.h"

namespace focus::infer {

struct MemoryPlan {
  int64_t weight_bytes = 0;  // parameters; on the CPU those mapped from the checkpoint are pages that the
                             // system may drop and read again
  int64_t state_bytes = 0;   // Hyena states
  int64_t kept_bytes = 0;    // at the end of the longest sequence
  int64_t open_bytes = 0;
  int64_t far_bytes = 0;         // far memory at the end, wherever it lies
  bool far_beside_model = true;  // whether that is the model's device
  int64_t workspace_bytes = 0;   // temporary, for one chunk
  int64_t available_bytes = 0;   // what the device has free for all but the weights that are already in place
  int64_t length = 0, chunk = 0;

  int64_t needed_bytes() const {
    return state_bytes + kept_bytes + open_bytes + workspace_bytes + (far_beside_model ? far_bytes : 0);
  }
  /// One line.
  std::string describe() const;
};

/// Bytes free on the device: on the CPU SystemMemory::usable().
int64_t available_memory(const at::Device& device);

/// More bases than that in one call gain nothing: 8192 on a card. On the CPU 1024, with which the activations
/// of a narrow model stay in the caches, and 2048 from a width of 1024 on, where weights are read from memory
/// in every call.
inline constexpr int64_t kLargestChunk = 8192;
int64_t largest_chunk(const model::Backbone& model);

/// The plan of a sequence of `length` bases. `chunk` 0 chooses: the largest power of two, at most `largest`,
/// whose workspace takes no more than half of what is free after state and memory; never below 16.
/// `compressed` null: full memory.
MemoryPlan plan_memory(const model::Backbone& model, const compress::CompressedModel* compressed,
                       int64_t length, int64_t chunk, int64_t available_bytes,
                       int64_t largest = kLargestChunk);

}  // namespace focus::infer
