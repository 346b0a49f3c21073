#include "focus/eval/calibrate.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "fidelity_ranks.h"
#include "fidelity_run.h"
#include "focus/compress/focus/adapter_file.h"
#include "focus/compress/memory/memory_factory.h"
#include "focus/compress/tables/tables_fit.h"
#include "focus/core/error.h"
#include "focus/core/interrupt.h"
#include "focus/core/log.h"
#include "focus/core/progress.h"
#include "focus/core/units.h"
#include "focus/metrics/summary.h"
#include "key_figures.h"
#include "layer_plan.h"

namespace focus::eval {
namespace {

using at::Tensor;
using compress::MemoryConfig;
using report::FidelityResult;
using report::MethodResult;

void stop_if_interrupted() {
  if (interrupt_requested()) fail<Interrupted>("interrupted; no report was written");
}

struct Halves {
  data::SegmentSample choosing, judging;
};

/// Every other segment, so that both halves come from all regions.
Halves draw_halves(const FidelityConfig& config) {
  const data::SegmentSample sample = draw_segments(config, 2 * config.segments);
  Halves out;
  for (std::size_t s = 0; s < sample.segments.size(); ++s)
    (s % 2 == 0 ? out.choosing : out.judging).segments.push_back(sample.segments[s]);
  if (out.judging.segments.empty())
    fail<DataError>("'", config.fasta, "' has room for one segment of ", format_count(config.length),
                    " bases: one is needed to choose by and another to measure the choice on; set a smaller "
                    "length");
  return out;
}

Tensor tokens_of(const std::vector<int64_t>& tokens, const model::Backbone& backbone) {
  return at::tensor(tokens, at::kLong).unsqueeze(0).to(backbone.device());
}

/// Base tables of every attention block, as training fits them.
std::shared_ptr<compress::FocusAdapter> fit_tables(const CalibrateConfig& config, model::Backbone& backbone,
                                                   distributed::Ranks& ranks) {
  MemoryConfig memory;
  memory.kind = compress::MemoryKind::tables;
  memory.window = config.memory.window;
  memory.focus.k = config.memory.focus.k;
  memory.tables = config.memory.tables;
  const auto adapter = std::make_shared<compress::FocusAdapter>(backbone, memory, config.run.seed);
  std::map<int64_t, compress::BaseTables*> tables;
  for (const int64_t block : adapter->blocks()) tables.emplace(block, adapter->tables(block).get());
  compress::TablesFit fit(backbone, std::move(tables), memory.tables);
  const data::SequenceSampler training(config.data, static_cast<uint64_t>(config.run.seed));
  const int64_t count = memory.tables.fit_sequences;
  Progress progress({.label = "tables", .unit = "sequences", .total = count});
  for (int64_t first = 0; first < count; first += ranks.size()) {
    if (const int64_t own = first + ranks.rank(); own < count) {
      const data::Sample sample =
          training.sample(compress::kFitSamples + static_cast<uint64_t>(own), memory.tables.fit_length);
      fit.add(tokens_of(backbone.vocabulary().encode(sample.letters, sample.name, sample.begin), backbone));
    }
    progress.advance(std::min(ranks.size(), count - first));
    stop_if_interrupted();
    ranks.barrier();
  }
  ranks.all_reduce_sum(fit.sums());
  fit.solve();
  progress.finish();
  return adapter;
}

/// Ranks of keys, and how well `tables`, which may be null, predict their scores.
void measure_keys(const FidelityConfig& config, const compress::WindowPlan& plan,
                  const data::SegmentSample& sample, model::Backbone& backbone,
                  std::shared_ptr<const compress::FocusAdapter> tables, distributed::Ranks& ranks,
                  std::vector<report::BlockCalibration>& blocks) {
  KeyFigures figures(backbone, plan, std::move(tables));
  Progress progress({.label = "keys",
                     .unit = "bases",
                     .total = static_cast<int64_t>(sample.segments.size()) * config.length});
  for (std::size_t s = 0; s < sample.segments.size(); ++s) {
    if (is_own(ranks, s))
      figures.add(backbone,
                  tokens_of(read_segment(sample.segments[s], backbone.vocabulary()).tokens, backbone));
    progress.advance(config.length);
    stop_if_interrupted();
  }
  ranks.all_reduce_sum(figures.sums());
  progress.finish();
  for (report::BlockCalibration& block : blocks) figures.write(block);
}

report::MemoryFigures figures_of(const FidelityResult& run, const MethodResult& method,
                                 const MethodResult& none) {
  constexpr auto kKl = static_cast<std::size_t>(report::Measure::kl);
  const auto totals = [&](const MethodResult& m) {
    std::vector<metrics::Total> out;
    for (const report::SegmentTotals& segment : m.segments) out.push_back(segment.columns[kKl].behind);
    return out;
  };
  const metrics::BootstrapOptions bootstrap{.draws = run.bootstrap_draws, .seed = run.bootstrap_seed};
  const std::vector<metrics::Total> own = totals(method), forgetting = totals(none);
  metrics::Total all;
  for (const metrics::Total& segment : own) all.add(segment);
  return {all.mean(), metrics::bootstrap_mean(own, bootstrap),
          metrics::recovered_share(own, forgetting, bootstrap)};
}

/// Everything that one run of the command holds on to.
class Calibrator {
 public:
  Calibrator(const CalibrateConfig& config, weights::LoadedModel loaded, Halves halves,
             distributed::Ranks& ranks)
      : config_(config),
        loaded_(std::move(loaded)),
        halves_(std::move(halves)),
        ranks_(ranks),
        names_(calibrated_memories(config)),
        blocks_(loaded_.model->attention_blocks()),
        windows_(config.memory.window, config.memory.focus.k),
        at_length_(config.at_length > 0 ? config.at_length : config.run.length) {
    if (blocks_.empty())
      fail<ConfigError>("model '", loaded_.model->shape().name, "' has no attention block: nothing to plan");
    if (std::find(names_.begin(), names_.end(), "tables") != names_.end())
      tables_ = fit_tables(config_, *loaded_.model, ranks_);
    full_ = compress::make_memory("full", loaded_.model, shared());
    none_ = compress::make_memory("state_only", loaded_.model, shared());
  }

  Calibration run(std::map<std::string, std::string> provenance) {
    Calibration out;
    report::CalibrationResult& result = out.result;
    for (const int64_t block : blocks_) result.blocks.push_back({.block = block});
    measure_keys(config_.run, windows_, halves_.choosing, *loaded_.model, tables_, ranks_, result.blocks);
    const MethodResult forgetting = measure_blocks(result.blocks);
    const std::map<int64_t, std::string> by_block = settle(result, forgetting);
    const auto model = planned(by_block);
    judge(model, result);
    describe(*model, by_block, result);
    result.provenance = std::move(provenance);
    out.plan = adapter_of(by_block);
    out.loaded = std::move(loaded_);
    return out;
  }

 private:
  /// The settings of memories that every layer has.
  MemoryConfig shared() const {
    MemoryConfig out;
    out.window = config_.memory.window;
    out.focus.k = config_.memory.focus.k;
    return out;
  }

  std::shared_ptr<compress::FocusAdapter> adapter_of(const std::map<int64_t, std::string>& by_block) const {
    const MemoryConfig memory = with_memories(*loaded_.model, config_.memory, by_block);
    auto out = std::make_shared<compress::FocusAdapter>(*loaded_.model, memory, config_.run.seed);
    for (const auto& [block, name] : by_block) {
      if (name != "tables") continue;
      const auto fitted = tables_->tables(block)->named_parameters(),
                 own = out->tables(block)->named_parameters();
      for (const auto& item : fitted) own[item.key()].copy_(item.value());
    }
    return out;
  }

  std::shared_ptr<compress::CompressedModel> planned(const std::map<int64_t, std::string>& by_block) const {
    return std::make_shared<compress::CompressedModel>(loaded_.model, adapter_of(by_block));
  }

  Method method(const std::string& name, std::shared_ptr<const compress::CompressedModel> model) const {
    const int64_t chunk = config_.run.chunk > 0 ? config_.run.chunk : windows_.window_bases();
    return {name, model->describe(),
            [model, chunk](const Tensor& tokens_BL, const OnLogits& on_logits, const OnBases& on_bases) {
              return stream_in_chunks(model, chunk, tokens_BL, on_logits, on_bases);
            }};
  }

  FidelityResult stream(const data::SegmentSample& sample, std::vector<Method> methods,
                        const std::string& label) const {
    methods.insert(methods.begin(), method("full", full_));
    return run_methods(config_.run, windows_, sample, *loaded_.model, methods, label, ranks_);
  }

  /// Every memory in every block alone. Returns what forgetting in all of them gave.
  MethodResult measure_blocks(std::vector<report::BlockCalibration>& blocks) const {
    std::vector<Method> methods = {method("state_only", none_)};
    const compress::MemoryUse all = full_->planned_use(at_length_);
    const auto others = static_cast<int64_t>(blocks_.size()) - 1;
    const auto of_one = [&](int64_t with_others, int64_t full) {
      return with_others - full / (others + 1) * others;
    };
    for (report::BlockCalibration& block : blocks) {
      for (const std::string& name : names_) {
        std::map<int64_t, std::string> by_block;
        for (const int64_t other : blocks_) by_block[other] = other == block.block ? name : "full";
        const auto model = planned(by_block);
        const compress::MemoryUse use = model->planned_use(at_length_);
        report::BlockMemory& memory = block.memories.emplace_back();
        memory.name = name;
        memory.kept_bytes = of_one(use.retained_bytes, all.retained_bytes);
        memory.open_bytes = of_one(use.open_bytes, all.open_bytes);
        memory.far_bytes = use.far_bytes;
        if (name == "tables" && block.residual > config_.largest_residual)
          memory.refused = concat("letters leave a score uncertain by ", block.residual, " nats, above ",
                                  config_.largest_residual);
        if (name == "full") continue;  // is what all others are compared with
        methods.push_back(method(concat(name, " in block ", block.block), model));
      }
    }
    const FidelityResult run = stream(halves_.choosing, methods, "blocks");
    std::size_t next = 2;
    for (report::BlockCalibration& block : blocks) {
      const MethodResult& none = run.methods[next];  // the first name is state_only
      for (report::BlockMemory& memory : block.memories) {
        const MethodResult& own = memory.name == "full" ? run.methods[0] : run.methods[next++];
        memory.description = own.description;
        memory.figures = figures_of(run, own, none);
      }
      block.forgetting = block.memories.front().figures;
    }
    return run.methods[1];
  }

  /// Chooses, measures the choice, and asks for more until the measurement too keeps enough.
  std::map<int64_t, std::string> settle(report::CalibrationResult& result,
                                        const MethodResult& forgetting) const {
    const bool far_is_fast = config_.memory.far.place == compress::FarPlace::model;
    std::vector<BlockOptions> blocks;
    for (const report::BlockCalibration& block : result.blocks) {
      BlockOptions& options = blocks.emplace_back();
      options.forgetting = block.forgetting.kl;
      for (const report::BlockMemory& m : block.memories)
        options.options.push_back(
            {m.figures.kl, m.kept_bytes + m.open_bytes + (far_is_fast ? m.far_bytes : 0), m.refused.empty()});
    }
    const GoalConfig& goal = config_.goal;
    int64_t most = goal.max_bytes > 0 ? goal.max_bytes : std::numeric_limits<int64_t>::max();
    if (goal.max_bytes_per_base > 0)
      most = std::min(most, static_cast<int64_t>(goal.max_bytes_per_base * static_cast<double>(at_length_)));
    std::vector<std::size_t> chosen;
    for (double wanted = goal.min_r;;) {
      const std::vector<std::size_t> next = choose(blocks, wanted, most);
      if (next == chosen) break;  // there is no more to be had
      chosen = next;
      result.predicted = predicted_share(blocks, chosen);
      FidelityResult run =
          stream(halves_.choosing, {method("plan", planned(names_of(chosen)))}, "plan, choosing");
      run.methods.push_back(forgetting);
      result.choosing = plan_figures(run, 1, 2);
      if (result.choosing.plan.recovered.share >= goal.min_r) break;
      wanted = std::max(wanted, std::nextafter(result.predicted, 2.0));
    }
    for (std::size_t b = 0; b < blocks.size(); ++b) result.blocks[b].memories[chosen[b]].chosen = true;
    return names_of(chosen);
  }

  std::map<int64_t, std::string> names_of(const std::vector<std::size_t>& chosen) const {
    std::map<int64_t, std::string> out;
    for (std::size_t b = 0; b < chosen.size(); ++b) out[blocks_[b]] = names_[chosen[b]];
    return out;
  }

  static report::PlanFigures plan_figures(const FidelityResult& run, std::size_t plan, std::size_t none) {
    return {static_cast<int64_t>(run.segments.size()), figures_of(run, run.methods[plan], run.methods[none]),
            figures_of(run, run.methods[none], run.methods[none])};
  }

  void judge(const std::shared_ptr<const compress::CompressedModel>& model,
             report::CalibrationResult& result) const {
    const FidelityResult run =
        stream(halves_.judging, {method("state_only", none_), method("plan", model)}, "plan, judging");
    result.judging = plan_figures(run, 2, 1);
    if (!ranks_.is_first()) return;
    const double reached =
        std::min(result.choosing.plan.recovered.share, result.judging.plan.recovered.share);
    if (reached < config_.goal.min_r)
      log::warn(concat("the plan keeps R ", reached, ", less than goal.min_r ", config_.goal.min_r,
                       result.choosing.plan.recovered.share < config_.goal.min_r
                           ? ": no more is to be had from these memories and bytes"
                           : " on the segments that did not choose it; ask for more, or take more segments"));
  }

  void describe(const compress::CompressedModel& model, const std::map<int64_t, std::string>& by_block,
                report::CalibrationResult& result) const {
    result.window = windows_.window_bases();
    result.kmer = windows_.k();
    result.length = config_.run.length;
    result.at_length = at_length_;
    result.min_r = config_.goal.min_r;
    result.max_bytes = config_.goal.max_bytes;
    const compress::MemoryUse use = model.planned_use(at_length_);
    result.kept_bytes = use.retained_bytes;
    result.open_bytes = use.open_bytes;
    result.far_bytes = use.far_bytes;
    CalibrateConfig resolved = config_;
    resolved.memories = names_;
    resolved.at_length = at_length_;
    result.config_json = config::to_json(resolved);
    result.memory_json = config::to_json(with_memories(*loaded_.model, config_.memory, by_block));
  }

  const CalibrateConfig& config_;
  weights::LoadedModel loaded_;
  Halves halves_;
  distributed::Ranks& ranks_;
  std::vector<std::string> names_;  // state_only first
  std::vector<int64_t> blocks_;
  compress::WindowPlan windows_;
  int64_t at_length_;
  std::shared_ptr<compress::FocusAdapter> tables_;  // null: none are asked for
  std::shared_ptr<compress::CompressedModel> full_, none_;
};

}  // namespace

Calibration run_calibrate(const CalibrateConfig& config, const std::string& device, c10::ScalarType dtype,
                          distributed::Ranks& ranks) {
  config.validate();
  const at::NoGradGuard no_grad;
  Halves halves = draw_halves(config.run);
  weights::LoadedModel loaded = weights::load_model(config.run.model_config, config.run.model_checkpoint,
                                                    dtype, device, config.run.fp8);
  CalibrateConfig shared = config;  // what is each rank's own affair left out
  shared.run.device.clear();
  shared.run.threads = 0;
  std::string letters;
  for (const auto& segment : halves.choosing.segments) letters += segment.sequence;
  distributed::require_agreement(
      ranks, {{"settings", config::to_json(shared)}, {"backbone", loaded.digest}, {"sequence", letters}});
  auto provenance = provenance_of(config.run, loaded, device);
  return Calibrator(config, std::move(loaded), std::move(halves), ranks).run(std::move(provenance));
}

void write_calibration(const Calibration& calibration, const std::filesystem::path& folder) {
  report::write_calibration_report(calibration.result, folder);
  compress::save_adapter(*calibration.plan, {calibration.loaded.model, {}, {}}, calibration.loaded.digest,
                         folder / "adapter.safetensors");
}

}  // namespace focus::eval
