#include "support/random_memory.h"

#include <algorithm>

#include "focus/core/error.h"
#include "focus/core/random.h"

namespace focus::testing {

using namespace compress;

namespace {

MemoryConfig draw(Random& random) {
  const auto below = [&](int64_t n) { return random.uniform_integer(n); };
  const auto chance = [&](double p) { return random.uniform() < p; };
  MemoryConfig c;
  FocusConfig& f = c.focus;
  f.k = 1 + below(9);
  c.window.unit = chance(0.2) ? WindowUnit::focus : WindowUnit::bases;
  c.window.size = c.window.unit == WindowUnit::focus ? 2 + below(3) : f.k + below(18);
  c.window.remainder = static_cast<Remainder>(below(3));
  f.stream = chance(0.6) ? Stream::side : Stream::inline_tokens;
  if (f.stream == Stream::side) f.anchor = static_cast<Anchor>(below(3));
  const double kind = random.uniform();
  c.kind = kind < 0.15 ? MemoryKind::tables : kind < 0.25 ? MemoryKind::quantised : MemoryKind::focus;
  if (c.kind == MemoryKind::focus) f.unit = chance(0.6) ? UnitKind::fitted : UnitKind::paper;
  f.local = chance(0.75) ? Local::window : Local::kmer;
  f.history = chance(0.7) ? History::all : chance(0.7) ? History::window : History::none;
  if (chance(0.35)) f.eviction = Eviction::rolling;
  if (chance(0.3)) f.tail = 1 + below(c.window.size);
  if (chance(0.3)) f.sinks = 1 + below(c.window.size);
  if (c.kind == MemoryKind::tables || chance(0.1)) {
    c.tables.word = 1 + below(3);
    c.tables.offsets = {below(4)};
    for (int64_t more = below(4); more > 0; --more)
      c.tables.offsets.push_back(c.tables.offsets.back() + 1 + below(3));
  }
  if (c.kind == MemoryKind::quantised || chance(0.1)) c.quantised = {chance(0.5) ? 8 : 4, below(12)};
  if (c.kind == MemoryKind::quantised) f.eviction = Eviction::window, f.tail = 0;
  if (c.kind != MemoryKind::focus) {
    f.stream = Stream::side;
    f.anchor = Anchor::end;
    f.local = Local::window;
    f.history = History::all;
    f.sinks = 0;
  } else if (f.unit == UnitKind::fitted) {
    if (chance(0.3)) f.entries_per_kmer = 2 + below(3);
    f.fitted.ridge = 0.5 + 5 * random.uniform();
    f.fitted.reference_stride = 1 + below(4);
    f.fitted.leave_out = below(4);
    f.fitted.check = chance(0.7);
  } else {
    f.paper = {static_cast<FocusSees>(below(2)), static_cast<Update>(below(2)),
               static_cast<EntrySource>(below(2))};
    f.bias = chance(0.7);
  }
  if (c.kind == MemoryKind::focus) f.rank = chance(0.5) ? 0 : 1 + below(4);
  for (int64_t part = chance(0.3) ? 1 + below(2) : 0; part > 0; --part) {
    LayerSchedule s;
    s.from = below(5);
    s.to = s.from + below(3);
    if (chance(0.3)) {
      s.memory = MemoryKind::full;
    } else if (c.quantised != QuantisedConfig{} && chance(0.5)) {
      s.memory = MemoryKind::quantised;
      if (chance(0.5)) s.bits = chance(0.5) ? 4 : 8;
    } else {
      if (c.tables.word != TablesConfig{}.word && chance(0.5)) s.memory = MemoryKind::tables;
      if (chance(0.4)) s.k = 1 + below(9);
      if (chance(0.2)) s.local = static_cast<Local>(below(2));
      if (chance(0.2)) s.history = static_cast<History>(below(3));
      if (chance(0.3)) s.eviction = static_cast<Eviction>(below(2));
      if (chance(0.3)) s.tail = below(c.window.size);
      if (chance(0.2)) s.sinks = below(c.window.size);
      if (chance(0.2)) s.entries_per_kmer = 1 + below(4);
      if (chance(0.2)) s.recent = below(8);
    }
    f.schedule.push_back(s);
  }
  if (c.kind == MemoryKind::focus && f.history == History::all && f.eviction == Eviction::window &&
      chance(0.4)) {
    f.tail = 0;
    f.recent = {.bases = 1 + below(8), .bits = chance(0.5) ? 4 : 8};
  }
  return c;
}

/// Of seeds so short that they are found again, or by keys. In the model's precision: gradients through bf16
/// are rounded.
FarConfig draw_far(Random& random, const MemoryConfig& near) {
  const auto below = [&](int64_t n) { return random.uniform_integer(n); };
  FarConfig far;
  if (random.uniform() < 0.5) return far;
  far.kmers = 1 + below(4);
  far.refresh = 1 + below(7);
  if (random.uniform() < 0.3) far.keep = 1 + below(30);
  if (far.keep > 0 && random.uniform() < 0.5) far.evict = FarEvict::use;
  if (random.uniform() < 0.4) {
    const FocusConfig& f = near.focus;
    const bool one_each = near.kind == MemoryKind::focus && f.unit == UnitKind::fitted &&
                          f.entries_per_kmer == 1 && f.history == History::all && f.sinks == 0 &&
                          f.recent.bases == 0 && f.schedule.empty();
    constexpr FarScore kScores[] = {FarScore::random, FarScore::oracle, FarScore::bits1,
                                    FarScore::bits2,  FarScore::sketch, FarScore::fitted};
    far.score = kScores[below(one_each ? 6 : 5)];
    if (far.score == FarScore::sketch) far.rank = 1 + below(6);
    return far;
  }
  far.gate = below(4);
  far.seeds.seed = 1 + below(3);
  far.seeds.span = 1 + below(12);
  far.seeds.width = below(2);
  return far;
}

}  // namespace

MemoryConfig random_memory(int64_t seed) {
  Random random(static_cast<uint64_t>(seed));
  for (;;) {
    MemoryConfig config = draw(random);
    try {
      config.validate();
    } catch (const ConfigError&) {
      continue;  // options were drawn that contradict each other
    }
    Random of_far(static_cast<uint64_t>(seed), /*stream=*/3);
    const MemoryConfig near = config;
    config.far = draw_far(of_far, near);
    for (LayerSchedule& part : config.focus.schedule)
      if (config.far.active() && of_far.uniform() < 0.4) part.far = false;
    try {
      config.validate();
      return config;
    } catch (const ConfigError&) {
      return near;  // on which no far memory stands
    }
  }
}

}  // namespace focus::testing
