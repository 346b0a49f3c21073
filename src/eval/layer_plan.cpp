#include "layer_plan.h"

#include <algorithm>
#include <limits>

#include "focus/compress/memory/named_settings.h"
#include "focus/core/error.h"
#include "focus/core/units.h"

namespace focus::eval {

using compress::LayerSchedule;
using compress::MemoryConfig;
using compress::MemoryKind;
using Names = std::vector<std::string>;

namespace {

bool holds(const Names& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

MemoryKind kind_of(const std::string& name) {
  if (name == "full") return MemoryKind::full;
  if (name == "tables") return MemoryKind::tables;
  return name.starts_with("quantised_") ? MemoryKind::quantised : MemoryKind::focus;
}

}  // namespace

const Names& candidate_names() {
  static const Names all = {"state_only",     "fitted", "mixture",    "quantised_int4",
                            "quantised_int8", "tables", "far_fitted", "full"};
  return all;
}

MemoryConfig with_memories(const model::Backbone& backbone, const MemoryConfig& memory,
                           const std::map<int64_t, std::string>& by_block) {
  Names names;
  for (const auto& [block, name] : by_block) names.push_back(name);
  const auto has = [&](const char* name) { return holds(names, name); };
  MemoryConfig out;
  out.window = memory.window;
  out.focus.k = memory.focus.k;
  // Of blocks that are full or quantised an adapter then holds nothing.
  for (const MemoryKind kind : {MemoryKind::tables, MemoryKind::focus, MemoryKind::quantised}) {
    const auto is = [&](const std::string& name) { return kind_of(name) == kind; };
    if (std::any_of(names.begin(), names.end(), is)) out.kind = kind;
  }
  const bool entries = has("fitted") || has("mixture") || has("far_fitted");
  if (entries || has("state_only")) out.focus.fitted = memory.focus.fitted;
  if (entries) out.storage = memory.storage;
  compress::FocusConfig mixture;
  if (has("mixture")) {
    mixture = compress::mixture(backbone, memory, memory.focus);
    out.focus.recent = mixture.recent;
  }
  if (has("tables")) out.tables = memory.tables;
  for (const int64_t bits : {8, 4}) {
    if (!has(bits == 8 ? "quantised_int8" : "quantised_int4")) continue;
    out.quantised = memory.quantised;
    out.quantised.bits = bits;  // with both, the schedule says where there are 8
  }
  if (has("far_fitted")) out.far = compress::far_by_name("far_fitted", memory.far);
  for (const auto& [block, name] : by_block) {
    LayerSchedule part{.from = block, .to = block};
    if (kind_of(name) != out.kind) part.memory = kind_of(name);
    if (name == "mixture") {
      part.k = mixture.k;
      part.sinks = mixture.sinks;
    }
    if (name == "state_only") part.history = compress::History::none;
    if (kind_of(name) == MemoryKind::focus) {
      if (has("mixture") && name != "mixture") part.recent = 0;
      if (out.far.active() && name != "far_fitted") part.far = false;
    }
    if (name == "quantised_int8" && out.quantised.bits != 8) part.bits = 8;
    if (part.bits) part.memory = MemoryKind::quantised;
    if (part != LayerSchedule{.from = block, .to = block}) out.focus.schedule.push_back(part);
  }
  out.validate();
  return out;
}

double predicted_share(const std::vector<BlockOptions>& blocks, const std::vector<std::size_t>& chosen) {
  double lost = 0, forgetting = 0;
  for (std::size_t b = 0; b < blocks.size(); ++b) {
    lost += blocks[b].options[chosen[b]].kl;
    forgetting += blocks[b].forgetting;
  }
  return forgetting > 0 ? 1 - lost / forgetting : 1;
}

int64_t total_bytes(const std::vector<BlockOptions>& blocks, const std::vector<std::size_t>& chosen) {
  int64_t out = 0;
  for (std::size_t b = 0; b < blocks.size(); ++b) out += blocks[b].options[chosen[b]].bytes;
  return out;
}

std::vector<std::size_t> choose(const std::vector<BlockOptions>& blocks, double min_share,
                                int64_t max_bytes) {
  std::vector<std::size_t> chosen(blocks.size(), 0);
  for (std::size_t b = 0; b < blocks.size(); ++b) {
    const auto& options = blocks[b].options;
    bool any = false;
    for (std::size_t o = 0; o < options.size(); ++o) {
      const Option &now = options[chosen[b]], &other = options[o];
      if (!other.allowed) continue;
      if (!any || other.bytes < now.bytes || (other.bytes == now.bytes && other.kl < now.kl)) chosen[b] = o;
      any = true;
    }
    FOCUS_CHECK(any, "a block without a memory that is allowed");
  }
  if (const int64_t least = total_bytes(blocks, chosen); least > max_bytes)
    fail<ConfigError>("goal.max_bytes: ", format_bytes(max_bytes), " are less than the ", format_bytes(least),
                      " that the cheapest memories take; allow more, or more memories");
  struct Step {
    std::size_t block = 0, option = 0;
    double worth = 0;
  };
  // The best change of one block by `worth_of`, which is positive for what may be taken.
  const auto best_step = [&](const auto& worth_of) {
    Step best;
    for (std::size_t b = 0; b < blocks.size(); ++b) {
      for (std::size_t o = 0; o < blocks[b].options.size(); ++o) {
        if (!blocks[b].options[o].allowed) continue;
        const double worth = worth_of(b, blocks[b].options[chosen[b]], blocks[b].options[o], o);
        if (worth > best.worth) best = {b, o, worth};
      }
    }
    return best;
  };
  const auto saves_most_per_byte = [&](std::size_t, const Option& now, const Option& other, std::size_t) {
    const double saved = now.kl - other.kl;
    const int64_t extra = other.bytes - now.bytes;
    if (saved <= 0 || (extra > 0 && extra > max_bytes - total_bytes(blocks, chosen))) return 0.0;
    return extra > 0 ? saved / static_cast<double>(extra) : std::numeric_limits<double>::infinity();
  };
  while (predicted_share(blocks, chosen) < min_share) {
    const Step step = best_step(saves_most_per_byte);
    if (step.worth == 0) return chosen;
    chosen[step.block] = step.option;
  }
  const auto frees_most = [&](std::size_t b, const Option& now, const Option& other, std::size_t o) {
    std::vector<std::size_t> changed = chosen;
    changed[b] = o;
    const bool enough = predicted_share(blocks, changed) >= min_share;
    return enough ? static_cast<double>(now.bytes - other.bytes) : 0.0;
  };
  for (Step step = best_step(frees_most); step.worth > 0; step = best_step(frees_most))
    chosen[step.block] = step.option;
  return chosen;
}

}  // namespace focus::eval
