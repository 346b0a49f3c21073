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
#include "focus/weights/load_model.h"
#include "measure.h"
#include "needles.h"
#include "planted.h"
#include "position_classes.h"

namespace focus::eval {

using at::Tensor;
using report::FidelityResult;
using report::MethodResult;

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

/// Everything but the values, the origin and the configuration.
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
  for (const auto& segment : sample.segments) {
    std::vector<bool> copied = data::repeated_positions(segment.sequence, out.window);
    const auto count = static_cast<double>(std::count(copied.begin(), copied.end(), true));
    if (!segment.planted.empty()) copied = segment.planted;
    copied.erase(copied.begin());  // nothing predicts the first base
    out.segments.push_back({segment.name, segment.begin, count / static_cast<double>(config.length),
                            std::move(copied), position_classes(segment.sequence)});
  }
  if (config.needles.size > 0) {
    out.needle_bases = config.needles.size;
    out.needle_depths = needle_depths(config.needles);
  }
  for (const Method& method : methods) {
    MethodResult& m = out.methods.emplace_back();
    m.name = method.name;
    m.description = method.description;
    for (auto& values : m.values)
      values.assign(sample.segments.size() * static_cast<std::size_t>(out.positions), kNan);
    m.right_bases.assign(sample.segments.size() * out.needle_depths.size(), kNan);
  }
  return out;
}

/// Streams one segment through the methods that are not `known` and measures it.
void measure_segment(const FidelityConfig& config, const model::Backbone& backbone,
                     const std::vector<Method>& methods, const std::vector<bool>& known, FidelityCache* cache,
                     const data::SampledSegment& segment, int64_t index, FidelityResult& out,
                     const OnBases& on_progress) {
  const Input input = read_segment(segment, backbone.vocabulary());
  const Tensor tokens_BL = at::tensor(input.tokens, at::kLong).unsqueeze(0).to(backbone.device());
  const std::string where = data::format_region({segment.name, segment.begin, segment.begin + config.length});
  const auto place = static_cast<std::size_t>(index);
  Tensor full = cache != nullptr ? cache->logits(place) : Tensor();
  const std::vector<Needle> needles =
      config.needles.size > 0 ? make_needles(config.needles, static_cast<uint64_t>(config.seed), segment)
                              : std::vector<Needle>();
  for (std::size_t m = 0; m < methods.size(); ++m) {
    // Full memory's own logits are what the others are compared with.
    if (known[m] && (m > 0 || full.defined())) continue;
    const auto on_bases = [&](int64_t count, const std::string& detail) {
      on_progress(count, detail.empty() ? methods[m].name : concat(methods[m].name, " (", detail, ")"));
      if (interrupt_requested()) fail<Interrupted>("interrupted; no report was written");
    };
    const auto start = std::chrono::steady_clock::now();
    const Streamed streamed = methods[m].stream(tokens_BL, on_bases);
    if (m == 0) {
      full = streamed.logits_LV;
      if (cache != nullptr) cache->keep_logits(place, full);
    }
    if (known[m]) continue;
    MethodResult& result = out.methods[m];
    const std::size_t questions = out.needle_depths.size();
    for (std::size_t q = 0; q < questions; ++q) {
      result.right_bases[place * questions + q] = static_cast<float>(right_bases(streamed, needles[q]));
      on_bases(0, concat("question ", q + 1, " of ", questions));
    }
    result.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    result.kept_entries = std::max(result.kept_entries, streamed.kept_entries);
    result.kept_bytes = std::max(result.kept_bytes, streamed.kept_bytes);
    result.open_bytes = std::max(result.open_bytes, streamed.open_bytes);
    result.far_bytes = std::max(result.far_bytes, streamed.far_bytes);
    measure(full, streamed.logits_LV, input, concat("method '", methods[m].name, "', segment ", where),
            result, index * out.positions);
  }
}

}  // namespace

FidelityResult run_methods(const FidelityConfig& config, const compress::WindowPlan& plan,
                           const data::SegmentSample& sample, const model::Backbone& backbone,
                           const std::vector<Method>& methods, const std::string& label,
                           distributed::Ranks& ranks, FidelityCache* cache) {
  FidelityResult out = describe_run(config, plan, sample, methods);
  std::vector<bool> known(methods.size());
  for (std::size_t m = 0; cache != nullptr && m < methods.size(); ++m) {
    const MethodResult* figures = cache->figures(methods[m].name);
    if (figures == nullptr) continue;
    known[m] = true;
    out.methods[m] = *figures;
  }
  const auto num_segments = sample.segments.size();
  const int64_t num_ranks = ranks.size(),
                rounds = (static_cast<int64_t>(num_segments) + num_ranks - 1) / num_ranks;
  if (ranks.is_first() && num_ranks > static_cast<int64_t>(num_segments))
    log::warn(concat(num_ranks, " ranks share ", num_segments, " segment(s): the others only wait"));
  int64_t passes = 0;
  for (const Method& method : methods) passes += method.passes;
  std::optional<Progress> progress;
  if (cache == nullptr)
    progress.emplace(
        ProgressOptions{.label = label, .unit = "bases", .total = rounds * passes * config.length});
  for (std::size_t s = 0; s < num_segments; ++s) {
    if (is_own(ranks, s)) {
      const std::string note = concat("segment ", s + 1, " of ", num_segments);
      measure_segment(config, backbone, methods, known, cache, sample.segments[s], static_cast<int64_t>(s),
                      out, [&](int64_t count, const std::string& method) {
                        const std::string text = concat(method, ", ", note);
                        progress ? progress->advance(count, text) : cache->on_bases()(count, text);
                      });
    }
    // A rank that was lost is noticed here, not when all the work is done.
    if (static_cast<int64_t>(s + 1) % num_ranks == 0) ranks.barrier();
  }
  if (progress) progress->finish();
  merge(ranks, out);
  for (std::size_t m = 0; cache != nullptr && m < methods.size(); ++m) cache->keep_figures(out.methods[m]);
  return out;
}

FidelityResult run_fidelity(const FidelityConfig& config, const std::string& device, c10::ScalarType dtype) {
  return run_fidelity(config, device, dtype, *distributed::one_rank());
}

FidelityResult run_fidelity(const FidelityConfig& config, const std::string& device, c10::ScalarType dtype,
                            distributed::Ranks& ranks, FidelityCache* cache) {
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
  FidelityResult out = run_methods(config, plan, sample, *loaded.model, methods, "fidelity", ranks, cache);
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
