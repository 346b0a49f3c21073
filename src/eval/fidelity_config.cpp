#include <algorithm>
#include <filesystem>

#include "fidelity_run.h"
#include "focus/compress/memory/memory_factory.h"
#include "focus/core/error.h"
#include "focus/data/sequence_file.h"
#include "focus/report/gates.h"

namespace focus::eval {
namespace {

/// The labels of adapters among them.
std::vector<std::string> known_methods(const std::map<std::string, std::string>& adapters) {
  std::vector<std::string> names;
  for (const std::string& name : compress::memory_names()) {
    if (name == "fitted") names.emplace_back("adaptive_entropy");
    names.push_back(name);
    if (name == "full") names.emplace_back("noise_floor");
  }
  names.emplace_back("focus");
  for (const auto& [label, file] : adapters) names.push_back(label);
  names.emplace_back("oracle");
  return names;
}

std::string joined(const std::vector<std::string>& names) {
  std::string out;
  for (const std::string& name : names) out += (out.empty() ? "" : ", ") + name;
  return out;
}

/// What is fitted to the very bases of a segment has nothing for those that are read behind it.
bool can_be_asked(const std::string& name) { return name != "oracle" && name != "adaptive_entropy"; }

bool holds(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

void OracleConfig::visit(config::Fields& f) {
  f.integer("steps", steps, {1, 1 << 24},
            "steps of Adam for each segment; each costs about three passes over it");
  f.number("lr", lr, {1e-9, 10},
           "first step size: of keys and values relative to their root mean square, of betas in nats");
}

void PlantedConfig::visit(config::Fields& f) {
  f.integer("size", size, {0, int64_t{1} << 32}, "bases of a copy at each segment's end; 0 = none");
  const auto planted = f.when(size > 0, "size", "is set");
  f.only(planted).integer("distance", distance, {1, int64_t{1} << 40},
                          "bases from the source's start to the copy's");
  f.only(planted).number("substitutions", substitutions, {0, 1}, "share of the copy's bases that are others");
  f.only(planted).number("indels", indels, {0, 1},
                         "share of the copy's bases before which one is inserted or left out");
  f.only(planted).boolean("reverse_complement", reverse_complement, "the copy stands on the opposite strand");
}

void NeedleConfig::visit(config::Fields& f) {
  f.integer("size", size, {0, 1 << 16}, "bases of a key and of its value; 0 = none");
  const auto hidden = f.when(size > 0, "size", "is set");
  f.only(hidden).integer("questions", questions, {1, 1 << 20},
                         "needles that are asked for, evenly from 10 to 90 % of a segment");
  f.only(hidden).integers("distractors", distractors, {1, 1 << 16},
                          "each needle has for each of these a near-duplicate, with so many bases of the key "
                          "substituted and another value");
}

void visit_model(FidelityConfig& c, config::Fields& f) {
  f.file("model_config", c.model_config,
         "the backbone's Evo-2 YAML file or config.json; empty = the config.json in the folder "
         "model_checkpoint");
  f.file("model_checkpoint", c.model_checkpoint,
         "checkpoint of the backbone, a file or a Hugging Face folder");
}

void visit_segments(FidelityConfig& c, config::Fields& f) {
  f.file("fasta", c.fasta,
         "sequences: FASTA (plain, BGZF or gzip), JSON lines {\"text\": ...} (.jsonl, .jsonl.gz), or a "
         "folder of "
         "such files");
  f.boolean("allow_truncated", c.allow_truncated,
            "read what there is of a BGZF file that was cut short between two blocks");
  f.regions("regions", c.regions,
            "regions (name:start-end, 1-based, both ends included) or .bed files to draw from; empty = every "
            "record");
  f.integer("records", c.records, {0, int64_t{1} << 32},
            "so many random ones of the regions or records that are long enough; 0 = all");
  f.integer("segments", c.segments, {1, int64_t{1} << 32}, "random segments per region");
  f.integer("length", c.length, {2, int64_t{1} << 40},
            "bases per segment; a segment must be longer than a window to measure anything");
  f.number("max_n_fraction", c.max_n_fraction, {0, 1},
           "a candidate segment with a larger share of N is not used");
}

void visit_run(FidelityConfig& c, config::Fields& f) {
  f.integer("chunk", c.chunk, {0, int64_t{1} << 40},
            "bases per forward call: speed and working memory, not results; 0 = one window");
  f.integer("bootstrap_draws", c.bootstrap_draws, {1, 1 << 24}, "draws of the bootstrap intervals");
  f.integer("seed", c.seed, {0, int64_t{1} << 62}, "seed of the segments and of the bootstrap");
  f.text("dtype", c.dtype, "fp32 or bf16: the backbone's weights and arithmetic");
  f.choice("fp8", c.fp8, {{"emulate", weights::Fp8::emulate}, {"off", weights::Fp8::off}},
           "backbones with FP8 input projections: round as FP8 hardware does, or compute them like other "
           "layers and get other numbers");
  f.text("device", c.device,
         "auto, cpu, cuda:N, or several for one backbone: cuda:0,cuda:1 or cuda:0=0-15,cuda:1=16-31");
  f.integer("threads", c.threads, {0, 4096},
            "CPU threads; 0 = as many as may be used, shared out among the ranks of a machine");
  f.integer("rank_timeout_seconds", c.rank_timeout_seconds, {1, 1 << 24},
            "several ranks: how long one that is done waits for the others");
}

void FidelityConfig::visit(config::Fields& f) {
  const auto no_adapter = f.when(adapter.empty(), "adapter", "is empty");  // which brings its own memory
  visit_model(*this, f);
  f.file("adapter", adapter, "trained adapter: its file, or its run's folder; empty = none");
  f.named_files(
      "adapters", adapters,
      "more trained adapters, each a method under its label: {\"label\": \"its file or its run's folder\"}");
  const auto window = [&](config::Fields& g) { memory.window.visit(g, &plan.window, no_adapter); };
  const auto focus = [&](config::Fields& g) { memory.focus.visit(g, &plan.k, no_adapter); };
  f.group("window", config::Visit(window), "the window plan");
  f.group("focus", config::Visit(focus), "Focus tokens");
  const auto codes = [&](config::Fields& g) { memory.quantised.visit_key_group(g); };
  const bool in_codes =
      methods.empty() || holds(methods, "quantised_int8") || holds(methods, "quantised_int4");
  f.only(f.when(in_codes, "methods", "is empty or names 'quantised_int8' or 'quantised_int4'"))
      .group("quantised", config::Visit(codes), "of the methods quantised_int8 and quantised_int4");
  f.group("storage", memory.storage, "how retained entries are held, for all methods and for an adapter too");
  f.group("far", memory.far, "far memory, of the memories named far_... and of adapters");
  visit_segments(*this, f);
  f.group("planted", planted, "copies written into the segments, on which recall then stands");
  f.group("needles", needles, "keys and values hidden in the segments, and asked for behind them");
  f.texts("methods", methods,
          "of " + joined(known_methods({})) +
              ", labels of adapters; focus needs adapter; empty = all that apply but oracle; full is always "
              "measured");
  f.only(f.when(holds(methods, "oracle"), "methods", "names 'oracle'"))
      .group("oracle", oracle,
             "entries optimised for the very segment that is measured, a bound and no method");
  visit_run(*this, f);
  f.boolean("positions", positions, "write every measure at every position into values.h5");
}

std::vector<std::string> fidelity_methods(const FidelityConfig& config) {
  const std::vector<std::string> known = known_methods(config.adapters);
  std::vector<std::string> out = {"full"};
  if (config.methods.empty()) {
    for (const std::string& name : known) {
      if (config.memory.storage.dtype != compress::StorageType::model && compress::stores_itself(name))
        continue;
      if (config.needles.size > 0 && !can_be_asked(name)) continue;
      if (name == "oracle" || (compress::stands_on_far(name) && !config.memory.far.active())) continue;
      if (name != "full" && (name != "focus" || !config.adapter.empty())) out.push_back(name);
    }
    return out;
  }
  std::vector<std::string> seen;
  for (const std::string& name : config.methods) {
    if (!holds(known, name)) {
      const std::string near = data::nearest_name(name, known);
      fail<ConfigError>("methods: unknown method '", name, "'",
                        near.empty() ? "." : "; did you mean '" + near + "'?", " Known: ", joined(known));
    }
    if (holds(seen, name)) fail<ConfigError>("methods names '", name, "' twice");
    if (config.needles.size > 0 && !can_be_asked(name))
      fail<ConfigError>("methods: '", name, "' knows a segment's own bases only and answers no questions ",
                        "behind it; remove it, or needles.size");
    seen.push_back(name);
    if (name != "full") out.push_back(name);
  }
  if (holds(out, "focus") && config.adapter.empty())
    fail<ConfigError>(
        "methods: 'focus' is a trained adapter; name its file as adapter, or take 'fitted', which needs no "
        "training");
  for (const auto& [label, file] : config.adapters) {
    if (!holds(out, label))
      fail<ConfigError>("adapters.", label, " has no effect: methods does not name '", label, "'; remove it");
  }
  return out;
}

std::string method_in_question(const FidelityConfig& config) {
  std::vector<std::string> trained;
  if (!config.adapter.empty()) trained.emplace_back("focus");
  for (const auto& [label, path] : config.adapters) trained.push_back(label);
  return report::gated_method(fidelity_methods(config), trained);
}

void require_files(const FidelityConfig& c) {
  if (c.model_config.empty() && !std::filesystem::is_directory(c.model_checkpoint))
    fail<ConfigError>("model_config: the backbone's YAML file, or its config.json, is missing");
  if (c.model_checkpoint.empty()) fail<ConfigError>("model_checkpoint: the backbone's checkpoint is missing");
  if (c.fasta.empty())
    fail<ConfigError>("fasta: the sequences' file is missing; set it in the configuration or with --fasta");
}

namespace {

void validate_needles(const FidelityConfig& c) {
  const NeedleConfig& needles = c.needles;
  if (needles.size == 0) return;
  if (c.planted.size > 0)
    fail<ConfigError>("needles.size and planted.size are both set: a copy would lie over needles; keep one");
  for (const int64_t distance : needles.distractors) {
    if (distance > needles.size)
      fail<ConfigError>("needles.distractors: ", distance, " of a key's bases cannot be substituted, it has ",
                        needles.size, " (needles.size)");
  }
  // So that random places for the near-duplicates are found without a search.
  const auto copies = static_cast<int64_t>(needles.distractors.size()) + 1;
  const int64_t bases = 2 * needles.size * needles.questions * copies;
  if (4 * bases > c.length)
    fail<ConfigError>("needles take ", bases, " bases of a segment, more than a quarter of its ", c.length,
                      "; use a larger length, or fewer needles.questions or needles.distractors");
}

}  // namespace

void FidelityConfig::validate() const {
  require_files(*this);
  const std::vector<std::string> taken = known_methods({});
  for (const auto& [label, file] : adapters) {
    const bool plain = !label.empty() && label.find_first_of(" \t\n,/\\") == std::string::npos;
    if (!plain || holds(taken, label))
      fail<ConfigError>("adapters: '", label, "' cannot be a label: ",
                        plain ? "it is the name of another method" : "use a short word", "; choose another");
  }
  fidelity_methods(*this);
  if (planted.size > 0 && planted.distance < planted.size)
    fail<ConfigError>("planted.distance ", planted.distance, " is less than planted.size ", planted.size,
                      ": the copy would overlap its source");
  if (planted.size > 0 && planted.distance + planted.size > length)
    fail<ConfigError>("planted.distance ", planted.distance, " and planted.size ", planted.size,
                      " do not fit into segments of length ", length, "; use a larger length");
  validate_needles(*this);
  config::refuse_idle(*this);
  if (!adapter.empty()) return;
  if (memory.focus.unit == compress::UnitKind::paper)
    fail<ConfigError>("focus.unit 'paper' has no closed form to evaluate: ",
                      "train an adapter with it and name that as adapter");
  plan.on(memory).validate();
}

}  // namespace focus::eval
