#include <algorithm>

#include "fidelity_run.h"
#include "focus/compress/tables/tables_fit.h"
#include "focus/core/error.h"
#include "focus/data/sequence_file.h"
#include "focus/eval/calibrate.h"
#include "layer_plan.h"

namespace focus::eval {
namespace {

bool holds(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::string known_memories() {
  std::string out;
  for (const std::string& name : candidate_names()) out += (out.empty() ? "" : ", ") + name;
  return out;
}

}  // namespace

void GoalConfig::visit(config::Fields& f) {
  f.number("min_r", min_r, {0, 1}, "share of the loss of forgetting that the plan avoids, R");
  f.integer(
      "max_bytes", max_bytes, {0, int64_t{1} << 50},
      "most bytes beside the model that the plan may hold after at_length bases of one sequence; 0 = any");
  f.number("max_bytes_per_base", max_bytes_per_base, {0, 1e9}, "the same per base; 0 = any");
}

void CalibrateConfig::visit(config::Fields& f) {
  const auto names = [&](const std::string& part) {
    return memories.empty() || std::any_of(memories.begin(), memories.end(), [&](const std::string& name) {
             return name.find(part) != std::string::npos;
           });
  };
  const auto entries = f.when(names("fitted") || names("mixture"), "memories",
                              "is empty or names 'fitted', 'mixture' or 'far_fitted'");
  const auto with_tables = f.when(names("tables"), "memories", "is empty or names 'tables'");
  const auto tabled = with_tables && f.when(!data.sources.empty(), "data.sources", "is not empty");
  visit_model(run, f);
  f.group("window", memory.window, "the window plan");
  const auto focus = [&](config::Fields& g) {
    g.integer("k", memory.focus.k, {1, int64_t{1} << 32}, "bases per Focus token");
    g.only(entries).group("fitted", memory.focus.fitted, "the fitted unit");
  };
  f.group("focus", config::Visit(focus), "Focus tokens");
  const auto codes = [&](config::Fields& g) { memory.quantised.visit_key_group(g); };
  f.only(f.when(names("quantised"), "memories", "is empty or names quantised memory"))
      .group("quantised", config::Visit(codes), "of quantised_int8 and quantised_int4");
  f.only(entries).group("storage", memory.storage, "how retained entries are held");
  f.only(f.when(names("far_fitted"), "memories", "is empty or names 'far_fitted'"))
      .group("far", memory.far, "far memory; 8 k-mers where far.kmers is 0");
  f.only(tabled).group("tables", memory.tables, "base tables");
  f.only(with_tables).group("data", data, "sequences that base tables are fitted to");
  visit_segments(run, f);
  f.texts("memories", memories,
          "of " + known_memories() + "; empty = all that apply (tables where data.sources is not empty)");
  f.only(tabled).number("largest_residual", largest_residual, {0, 1e6},
                        "nats; base memory is refused in a block whose scores tables leave more uncertain");
  f.integer("at_length", at_length, {0, int64_t{1} << 40},
            "bases of one sequence that bytes are planned for; 0 = length");
  f.group("goal", goal, "what the plan has to do");
  visit_run(run, f);
}

std::vector<std::string> calibrated_memories(const CalibrateConfig& config) {
  std::vector<std::string> out = {"state_only"};
  std::vector<std::string> seen;
  for (const std::string& name : config.memories) {
    if (!holds(candidate_names(), name)) {
      const std::string near = data::nearest_name(name, candidate_names());
      fail<ConfigError>("memories: no schedule has a memory called '", name, "'",
                        near.empty() ? "." : "; did you mean '" + near + "'?", " Known: ", known_memories());
    }
    if (holds(seen, name)) fail<ConfigError>("memories names '", name, "' twice");
    seen.push_back(name);
    if (name != "state_only") out.push_back(name);
  }
  if (holds(out, "tables") && config.data.sources.empty())
    fail<ConfigError>("memories: 'tables' are fitted to training sequence: set data.sources");
  if (!config.memories.empty()) return out;
  for (const std::string& name : candidate_names()) {
    if (name == "state_only" || (name == "tables" && config.data.sources.empty())) continue;
    out.push_back(name);
  }
  return out;
}

void CalibrateConfig::validate() const {
  require_files(run);
  calibrated_memories(*this);
  config::refuse_idle(*this);
  if (!data.sources.empty()) data.validate();
  const data::SamplerConfig fresh;
  if (data.copies != fresh.copies || data.lowercase_weight != fresh.lowercase_weight ||
      data.natural_weight != fresh.natural_weight || data.copy_weight != fresh.copy_weight ||
      data.copy_warmup != fresh.copy_warmup)
    fail<ConfigError>("data: copies, and weights of losses, have no effect on base tables; remove ",
                      "copies, lowercase_weight, natural_weight, copy_weight and copy_warmup");
  if (run.length <= memory.window.size)
    fail<ConfigError>("length: segments of ", run.length, " bases do not reach beyond a window of ",
                      memory.window.size, ", so they cannot tell one memory from another; take longer ones");
}

}  // namespace focus::eval
