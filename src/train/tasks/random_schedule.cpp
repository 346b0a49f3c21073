#include "focus/train/tasks/random_schedule.h"

#include <algorithm>

#include "focus/core/error.h"
#include "focus/core/random.h"

namespace focus::train {
namespace {

// Keeps these draws apart from those of the sampler, which has the same seed.
constexpr uint64_t kPurpose = 0x6d656d6f7279;

/// Smallest and largest k before the jitter.
std::pair<int64_t, int64_t> bounds_of_k(const RandomConfig& config, int64_t nominal) {
  if (!config.k.empty())
    return {*std::min_element(config.k.begin(), config.k.end()),
            *std::max_element(config.k.begin(), config.k.end())};
  if (!config.k_range.empty()) return {config.k_range[0], config.k_range[1]};
  return {nominal, nominal};
}

/// Nothing: the nominal window.
std::optional<int64_t> window_at(const RandomConfig& config, int64_t step) {
  for (const WindowUntil& part : config.window) {
    if (step < part.until_step) return part.size;
  }
  return std::nullopt;
}

}  // namespace

void WindowUntil::visit(config::Fields& f) {
  f.integer("until_step", until_step, {1, int64_t{1} << 40},
            "steps of the run, from its start, that have this window");
  f.integer("size", size, {1, int64_t{1} << 32}, "window.size of these steps");
}

void RandomConfig::visit(config::Fields& f, const config::Condition& uses_k) {
  constexpr int64_t kMost = int64_t{1} << 32;
  f.only(uses_k).integers("k", k, {1, kMost}, "each step takes one of these k; empty = focus.k");
  f.only(uses_k).integers("k_range", k_range, {1, kMost},
                          "in place of k: smallest and largest, any between is as likely");
  f.only(uses_k).integer("k_jitter", k_jitter, {0, kMost},
                         "each step's k moves by up to so many bases either way");
  f.number("layers", layers, {0, 1},
           "probability that a layer is compressed in a step (one always is); the others keep everything");
  f.list("window", window, "other windows for the first steps, in order; after the last the nominal one");
}

void RandomConfig::validate(const compress::MemoryConfig& nominal) const {
  if (!k.empty() && !k_range.empty())
    fail<ConfigError>("random.k and random.k_range exclude each other: a list to choose from, or two bounds");
  if (!k_range.empty() && (k_range.size() != 2 || k_range[0] > k_range[1]))
    fail<ConfigError>("random.k_range needs the smallest and the largest k, in this order");
  int64_t before = 0;
  for (const WindowUntil& part : window) {
    if (part.until_step <= before)
      fail<ConfigError>("random.window: until_step must grow, got ", part.until_step, " after ", before);
    before = part.until_step;
  }
  const auto [low, high] = bounds_of_k(*this, nominal.focus.k);
  if (low - k_jitter < 1)
    fail<ConfigError>("random.k_jitter ", k_jitter, " would take k from ", low, " below 1");
  // The window plan itself knows which k fits into which window.
  std::vector<int64_t> sizes = {nominal.window.size};
  for (const WindowUntil& part : window) sizes.push_back(part.size);
  for (const int64_t size : sizes) {
    try {
      compress::PlanOverride{size, high + k_jitter}.on(nominal).validate();
    } catch (const ConfigError& error) {
      fail<ConfigError>("random: a step may draw k ", high + k_jitter, " with window.size ", size, ": ",
                        error.what());
    }
  }
}

int64_t RandomConfig::largest_window(const compress::MemoryConfig& nominal) const {
  // A window counted in Focus tokens grows with k.
  const int64_t k_most = bounds_of_k(*this, nominal.focus.k).second + k_jitter;
  int64_t size = nominal.window.size;
  for (const WindowUntil& part : window) size = std::max(size, part.size);
  const compress::MemoryConfig largest = compress::PlanOverride{size, k_most}.on(nominal);
  return compress::WindowPlan(largest.window, largest.focus.k).window(0).size();
}

compress::MemoryConfig draw_memory(const RandomConfig& config, const compress::MemoryConfig& nominal,
                                   const std::vector<int64_t>& compressed, int64_t seed, int64_t step) {
  Random random(static_cast<uint64_t>(seed) ^ kPurpose, static_cast<uint64_t>(step));
  const auto one_of = [&](const std::vector<int64_t>& items) {
    return items[static_cast<std::size_t>(random.uniform_integer(static_cast<int64_t>(items.size())))];
  };
  int64_t k = nominal.focus.k;
  if (!config.k.empty()) k = one_of(config.k);
  if (!config.k_range.empty()) k = random.uniform_integer(config.k_range[0], config.k_range[1]);
  if (config.k_jitter > 0) k += random.uniform_integer(-config.k_jitter, config.k_jitter);
  compress::MemoryConfig drawn = compress::PlanOverride{window_at(config, step), k}.on(nominal);
  if (config.layers < 1.0) {
    drawn.focus.layers.clear();
    for (const int64_t block : compressed) {
      if (random.uniform() < config.layers) drawn.focus.layers.push_back(block);
    }
    if (drawn.focus.layers.empty()) drawn.focus.layers.push_back(one_of(compressed));
  }
  return drawn;
}

}  // namespace focus::train
