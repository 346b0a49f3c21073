// Any bytes as Transformer Engine's extra state.
#include <cmath>
#include <cstdlib>

#include "focus/core/error.h"
#include "focus/formats/fp8_state.h"
#include "heap_meter.h"
#include "zip_mutator.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace focus::formats;
  const fuzz::HeapMeter meter;
  std::string why_not;
  try {
    const auto state = read_fp8_state({reinterpret_cast<const std::byte*>(data), size}, "input", why_not);
    if (state.has_value() != why_not.empty()) std::abort();
    if (state) {
      if (state->scale_fwd.empty()) std::abort();
      for (const float scale : state->scale_fwd) {
        if (!std::isfinite(scale) || scale <= 0) std::abort();
      }
      if (state->amax_history_fwd.size() != state->amax_history_length * state->scale_fwd.size())
        std::abort();
    }
  } catch (const focus::WeightsError& error) {
    if (std::string(error.what()).size() > 4096) std::abort();
  }
  meter.check(size);
  return 0;
}

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned int seed) {
  return focus::formats::fuzz::mutate_torch_zip(data, size, max_size, seed);
}
