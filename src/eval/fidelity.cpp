#include "focus/eval/fidelity.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <optional>

#include "fidelity_cache.h"
#include "fidelity_ranks.h"
#include "fidelity_run.h"
#include "focus/compress/focus/adapter_file.h"
#include "focus/core/error.h"
#include "focus/core/interrupt.h"
#include "focus/core/log.h"
#include "focus/core/progress.h"
#include "focus/core/units.h"
#include "focus/core/version.h"
#include "focus/data/letters.h"
#include "focus/data/open_sequences.h"
#include "focus/data/region.h"
#include "focus/data/segments.h"
#include "focus/report/position_tally.h"
#include "focus/weights/load_model.h"
#include "measure.h"
#include "needles.h"
#include "planted.h"
#include "position_classes.h"

namespace focus::eval {

using at::Tensor;
using report::FidelityResult;
using report::MethodResult;
using report::PositionValues;
using report::SegmentPositions;

data::SegmentSample draw_segments(const FidelityConfig& config, int64_t count) {
  data::FastaOptions reading;
  reading.allow_truncated = config.allow_truncated;
  const auto fasta = data::open_sequences(config.fasta, reading);
  auto sample = data::sample_segments(*fasta, data::read_regions(config.regions, *fasta),
                                      {.length = config.length,
                                       .count = count,
                                       .regions = config.records,
                                       .seed = static_cast<uint64_t>(config.seed),
                                       .max_n_fraction = config.max_n_fraction});
  for (data::SampledSegment& segment : sample.segments) {
    const auto seed = static_cast<uint64_t>(config.seed);
    if (config.planted.size > 0) plant(config.planted, seed, segment);
    if (config.needles.size > 0) hide(make_needles(config.needles, seed, segment), segment);
  }
  data::AmbiguityNote ambiguity;
  for (const auto& segment : sample.segments)
    ambiguity.add(segment.name, data::count_letters(segment.sequence));
  ambiguity.warn();
  if (sample.skipped_regions > 0)
    log::warn(concat(sample.skipped_regions, " region(s) are shorter than a segment of ",
                     format_count(config.length), " bases and were left out"));
  if (sample.overlapping > 0)
    log::warn(concat(sample.overlapping, " segment(s) overlap others: the regions have no room for ", count,
                     " each"));
  return sample;
}

std::map<std::string, std::string> provenance_of(const FidelityConfig& config,
                                                 const weights::LoadedModel& loaded,
                                                 const std::string& device) {
  std::map<std::string, std::string> p;
  p["version"] = version();
  p["git"] = git_hash();
  p["model"] = concat(loaded.model->shape().name, " ", config.model_checkpoint);
  p["model_digest"] = loaded.digest;
  const auto file = [&](const std::string& key, const std::string& path) {
    p[key] = path;
    p[key + "_digest"] = data::source_digest(path);
  };
  file("fasta", config.fasta);
  if (!config.adapter.empty()) file("adapter", compress::adapter_file(config.adapter).string());
  for (const auto& [label, path] : config.adapters)
    file("adapters." + label, compress::adapter_file(path).string());
  p["device"] = device;
  p["dtype"] = loaded.precision;
  p["seed"] = std::to_string(config.seed);
  return p;
}

Input read_segment(const data::SampledSegment& segment, const model::Vocabulary& vocabulary) {
  Input out;
  out.letters = data::clean(segment.sequence, data::CasePolicy::upper, data::AmbiguousPolicy::mask,
                            segment.name, segment.begin);
  out.tokens = vocabulary.encode(out.letters, segment.name, segment.begin);
  out.bases = vocabulary.bases;
  return out;
}

namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

/// Everything but the statistics, the origin and the configuration.
FidelityResult describe_run(const FidelityConfig& config, const compress::WindowPlan& plan,
                            const data::SegmentSample& sample, const std::vector<Method>& methods) {
  FidelityResult out;
  out.window = plan.window_bases();
  out.kmer = plan.k();
  out.length = config.length;
  out.positions = config.length - 1;
  out.bootstrap_draws = config.bootstrap_draws;
  out.bootstrap_seed = static_cast<uint64_t>(config.seed);
  out.skipped_n_rich = sample.skipped_n_rich;
  for (const auto& segment : sample.segments) out.segments.push_back({segment.name, segment.begin});
  if (config.needles.size > 0) {
    out.needle_depths = needle_depths(config.needles);
    for (const auto& segment : sample.segments) {
      const auto needles = make_needles(config.needles, static_cast<uint64_t>(config.seed), segment);
      for (std::size_t q = 0; q < out.needle_depths.size(); ++q)
        out.questions.push_back({needles[q].key, needles[q].value});
    }
  }
  for (const Method& method : methods) {
    MethodResult& m = out.methods.emplace_back();
    m.name = method.name;
    m.description = method.description;
    m.answers.resize(out.questions.size());
  }
  return out;
}

/// Streams one segment after the other through the methods.
class SegmentRun {
 public:
  SegmentRun(const FidelityConfig& config, const model::Backbone& backbone, FidelityCache* cache,
             FidelityResult& out)
      : config_(config), backbone_(backbone), cache_(cache), out_(out) {}

  void begin(const data::SampledSegment& segment, std::size_t place) {
    place_ = place;
    where_ = data::format_region({segment.name, segment.begin, segment.begin + config_.length});
    input_ = read_segment(segment, backbone_.vocabulary());
    tokens_BL_ = at::tensor(input_.tokens, at::kLong).unsqueeze(0).to(backbone_.device());
    full_ = cache_ != nullptr ? cache_->logits(place) : Tensor();
  }

  /// The method's values; `first`: it is full memory, with whose logits the others are compared.
  PositionValues measure(const Method& method, bool first, const OnBases& on_progress, MethodResult& result) {
    const FidelityCache::Known* known = cache_ != nullptr ? cache_->known(method.name) : nullptr;
    if (known != nullptr && (!first || full_.defined())) return known->values[place_];
    const auto on_bases = [&](int64_t count, const std::string& detail) {
      on_progress(count, detail.empty() ? method.name : concat(method.name, " (", detail, ")"));
      if (interrupt_requested()) fail<Interrupted>("interrupted; no report was written");
    };
    using Clock = std::chrono::steady_clock;
    Clock::duration measuring{};
    WholeLogits whole(config_.length);
    PositionValues values;
    for (auto& measure : values.values) measure.assign(static_cast<std::size_t>(out_.positions), kNan);
    const std::string where = concat("method '", method.name, "', segment ", where_);
    const auto on_logits = [&](int64_t begin, const Tensor& logits_LV) {
      const auto start = Clock::now();
      if (first) {
        whole.add(begin, logits_LV);
        full_ = whole.logits();
      }
      const Tensor own_LV = first ? full_.narrow(0, begin, logits_LV.size(0)) : logits_LV;
      if (known == nullptr) eval::measure(full_, begin, own_LV, input_, where, values);
      measuring += Clock::now() - start;
    };
    if (method.prepare) method.prepare(tokens_BL_);
    const auto start = Clock::now();
    const Streamed streamed = method.stream(tokens_BL_, on_logits, on_bases);
    if (first && cache_ != nullptr) cache_->keep_logits(place_, full_);
    if (known != nullptr) return known->values[place_];
    const std::size_t questions = out_.needle_depths.size();
    for (std::size_t q = 0; q < questions; ++q) {
      const std::size_t at = place_ * questions + q;
      result.answers[at] = answer(streamed, out_.questions[at]);
      on_bases(0, concat("question ", q + 1, " of ", questions));
    }
    result.seconds += std::chrono::duration<double>(Clock::now() - start - measuring).count();
    result.kept_entries = std::max(result.kept_entries, streamed.kept_entries);
    result.kept_bytes = std::max(result.kept_bytes, streamed.kept_bytes);
    result.open_bytes = std::max(result.open_bytes, streamed.open_bytes);
    result.far_bytes = std::max(result.far_bytes, streamed.far_bytes);
    if (cache_ != nullptr) cache_->keep_values(method.name, place_, values);
    return values;
  }

 private:
  const FidelityConfig& config_;
  const model::Backbone& backbone_;
  FidelityCache* cache_;
  const FidelityResult& out_;
  std::size_t place_ = 0;
  std::string where_;
  Input input_;
  Tensor tokens_BL_, full_;  // full_: full memory's logits, [L, V]
};

}  // namespace

FidelityResult run_methods(const FidelityConfig& config, const compress::WindowPlan& plan,
                           const data::SegmentSample& sample, const model::Backbone& backbone,
                           const std::vector<Method>& methods, const std::string& label,
                           distributed::Ranks& ranks, FidelityCache* cache,
                           const report::OnValues& on_values) {
  FidelityResult out = describe_run(config, plan, sample, methods);
  for (std::size_t m = 0; cache != nullptr && m < methods.size(); ++m) {
    if (const FidelityCache::Known* known = cache->known(methods[m].name)) {
      const std::string description = out.methods[m].description;
      out.methods[m] = known->costs;
      out.methods[m].description = description;
    }
  }
  const auto num_segments = static_cast<int64_t>(sample.segments.size());
  const int64_t num_ranks = ranks.size(), rounds = (num_segments + num_ranks - 1) / num_ranks;
  if (ranks.is_first() && num_ranks > num_segments)
    log::warn(concat(num_ranks, " ranks share ", num_segments, " segment(s): the others only wait"));
  int64_t passes = 0;
  for (const Method& method : methods) passes += method.passes;
  std::optional<Progress> progress;
  if (cache == nullptr)
    progress.emplace(
        ProgressOptions{.label = label, .unit = "bases", .total = rounds * passes * config.length});
  const report::PositionTally tally(out.positions, out.window);
  SegmentRun run(config, backbone, cache, out);
  // In each round every rank has a segment, and hears of all of them after each method: so nobody waits long,
  // and one that was lost is noticed.
  for (int64_t round = 0; round < num_segments; round += num_ranks) {
    const int64_t own = round + ranks.rank(), end = std::min(round + num_ranks, num_segments);
    const auto at = [](int64_t s) { return static_cast<std::size_t>(s); };
    std::vector<SegmentPositions> where;
    std::vector<std::vector<float>> full_cross_entropy;
    for (int64_t s = round; s < end; ++s)
      where.push_back(describe_segment(sample.segments[at(s)], out.window, out.segments[at(s)]));
    if (own < end) run.begin(sample.segments[at(own)], at(own));
    const std::string note = concat("segment ", own + 1, " of ", num_segments);
    const auto on_progress = [&](int64_t count, const std::string& method) {
      const std::string text = concat(method, ", ", note);
      progress ? progress->advance(count, text) : cache->on_bases()(count, text);
    };
    for (std::size_t m = 0; m < methods.size(); ++m) {
      PositionValues measured;
      if (own < end) measured = run.measure(methods[m], m == 0, on_progress, out.methods[m]);
      for (int64_t s = round; s < end; ++s) {
        const PositionValues values = shared(ranks, s - round, measured, out.positions);
        if (m == 0)
          full_cross_entropy.push_back(
              values.values[static_cast<std::size_t>(report::Measure::cross_entropy)]);
        tally.add(out.segments[at(s)], where[at(s - round)], values, full_cross_entropy[at(s - round)],
                  out.methods[m]);
        if (on_values) on_values(out, m, at(s), values);
      }
    }
  }
  if (progress) progress->finish();
  merge_costs(ranks, out);
  for (std::size_t m = 0; cache != nullptr && m < methods.size(); ++m) cache->keep_costs(out.methods[m]);
  return out;
}

FidelityResult run_fidelity(const FidelityConfig& config, const std::string& device, c10::ScalarType dtype,
                            const report::OnValues& on_values) {
  return run_fidelity(config, device, dtype, *distributed::one_rank(), nullptr, on_values);
}

FidelityResult run_fidelity(const FidelityConfig& config, const std::string& device, c10::ScalarType dtype,
                            distributed::Ranks& ranks, FidelityCache* cache,
                            const report::OnValues& on_values) {
  config.validate();
  const at::NoGradGuard no_grad;
  const compress::MemoryConfig memory = resolve_memory(config);
  const compress::WindowPlan plan(memory.window, memory.focus.k);
  if (config.length - 1 <= plan.window(0).size()) {
    log::warn(concat(
        "NO BOUNDARY IS CROSSED: segments of ", format_count(config.length), " bases fit into one window of ",
        format_count(plan.window(0).size()),
        ", so nothing is compressed and the figures say nothing about compression; use a larger length"));
  }
  if (plan.window(0).size() != plan.window_bases())
    log::warn(concat("the first window has ", plan.window(0).size(), " bases, the others ",
                     plan.window_bases(), ": the report places all boundaries at multiples of the latter"));
  bool keeps_all = !memory.focus.layers.empty();
  for (const auto& part : memory.focus.schedule)
    keeps_all |= part.memory == compress::MemoryKind::full || part.memory == compress::MemoryKind::quantised;
  if (keeps_all)
    log::warn(
        "focus.layers or focus.schedule leaves some attention layers uncompressed; rivals compress all, so "
        "they hold fewer bytes than "
        "Focus does");
  const data::SegmentSample sample = draw_segments(config, config.segments);
  const weights::LoadedModel loaded =
      cache != nullptr
          ? cache->model(config, device, dtype)
          : weights::load_model(config.model_config, config.model_checkpoint, dtype, device, config.fp8);
  require_same_run(ranks, config, sample, loaded.digest);
  const std::vector<Method> methods = make_methods(config, memory, loaded.model, loaded.digest);
  auto provenance = provenance_of(config, loaded, device);
  if (cache != nullptr) cache->open(config, plan, sample.segments.size());
  FidelityResult out =
      run_methods(config, plan, sample, *loaded.model, methods, "fidelity", ranks, cache, on_values);
  FidelityConfig resolved = config;
  resolved.plan = {memory.window.size, memory.focus.k};
  resolved.methods.clear();
  for (const Method& method : methods) resolved.methods.push_back(method.name);
  out.config_json = config::to_json(resolved);
  out.provenance = std::move(provenance);
  const std::string subject = method_in_question(config);
  for (const Method& method : methods) out.subject = method.name == subject ? subject : out.subject;
  return out;
}

}  // namespace focus::eval
