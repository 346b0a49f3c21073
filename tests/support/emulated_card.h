// A device of its own type, as strict as a card, in the CPU's memory: tensors of two devices in one operation
// are refused, what a card would have to wait for is counted, and focus's CUDA kernels run emulated.
// LibTorch's own operators run as on the CPU.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

namespace focus::testing {

/// One of two cards, 0 and 1.
inline at::Device emulated_card(int8_t index = 0) { return {at::kHPU, index}; }

/// What happened on both cards since the last reset.
struct CardCounts {
  int64_t reads = 0;    // the host waited for values: item(), copies to the CPU, operators with a size that
                        // depends on values
  int64_t uploads = 0;  // copies from the CPU
  int64_t allocations = 0;  // of memory for tensors
  int64_t operators = 0;    // run by LibTorch, without views
};
CardCounts card_counts();
void reset_card_counts();
/// Operators and kernels of the last recording (ops::RecordedWork), views not counted.
int64_t recorded_launches();
/// The most that the cards' own memory held at once; what LibTorch's operators made for themselves is not in
/// it.
int64_t peak_card_bytes();

}  // namespace focus::testing
