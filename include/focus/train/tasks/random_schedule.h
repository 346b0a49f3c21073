// What is drawn anew for each step of adapter training: k, the compressed layers, the window.
#pragma once

#include <cstdint>
#include <vector>

#include "focus/compress/plan/config.h"
#include "focus/config/fields.h"

namespace focus::train {

/// The window up to a step of the run; the nominal one after the last.
struct WindowUntil {
  int64_t until_step = 0;
  int64_t size = 1024;
  void visit(config::Fields& f);
};

/// Off by default: every step then has the nominal memory.
struct RandomConfig {
  std::vector<int64_t> k;        // each step takes one of these
  std::vector<int64_t> k_range;  // or one between these two, both included
  int64_t k_jitter = 0;          // then moves it by up to so many bases
  double layers =
      1.0;  // probability that a layer is compressed in a step; one always is. The others keep everything
  std::vector<WindowUntil> window;
  /// `uses_k`: whether, and when, a memory's k matters.
  void visit(config::Fields& f, const config::Condition& uses_k = {});
  bool active() const {
    return !k.empty() || !k_range.empty() || k_jitter > 0 || layers < 1.0 || !window.empty();
  }
  /// ConfigError: contradictions, and draws that the window cannot hold. `nominal` must be valid.
  void validate(const compress::MemoryConfig& nominal) const;
  /// The largest window that any step may have.
  int64_t largest_window(const compress::MemoryConfig& nominal) const;
};

/// The memory of step `step` (from 0): a pure function of its arguments, so that a resumed run draws what the
/// uninterrupted one does. `compressed`: the blocks that the adapter has units for.
compress::MemoryConfig draw_memory(const RandomConfig& config, const compress::MemoryConfig& nominal,
                                   const std::vector<int64_t>& compressed, int64_t seed, int64_t step);

}  // namespace focus::train
