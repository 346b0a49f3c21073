#include "fidelity_cache.h"

#include "focus/core/error.h"

namespace focus::eval {
namespace {

/// What the model and its numbers depend on, and nothing else.
FidelityConfig model_settings(const FidelityConfig& config) {
  FidelityConfig out;
  out.model_config = config.model_config;
  out.model_checkpoint = config.model_checkpoint;
  out.dtype = config.dtype;
  out.fp8 = config.fp8;
  return out;
}

}  // namespace

const weights::LoadedModel& FidelityCache::model(const FidelityConfig& config, const std::string& device,
                                                 c10::ScalarType dtype) {
  const std::string key = config::to_json(model_settings(config)) + device;
  if (!model_ || model_key_ != key) {
    logits_.clear();
    known_.clear();
    segments_key_.clear();
    model_.reset();  // two are not held at once
    model_ = weights::load_model(config.model_config, config.model_checkpoint, dtype, device, config.fp8);
    model_key_ = key;
  }
  return *model_;
}

std::string FidelityCache::group_of(const FidelityConfig& config, int64_t chunk) {
  FidelityConfig settings = model_settings(config);
  settings.fasta = config.fasta;
  settings.allow_truncated = config.allow_truncated;
  settings.regions = config.regions;
  settings.segments = config.segments;
  settings.length = config.length;
  settings.max_n_fraction = config.max_n_fraction;
  settings.seed = config.seed;
  settings.records = config.records;
  settings.planted = config.planted;
  settings.needles = config.needles;
  settings.chunk = chunk;
  return config::to_json(settings);
}

void FidelityCache::open(const FidelityConfig& config, const compress::WindowPlan& plan,
                         std::size_t num_segments) {
  begun_.clear();  // of a run that failed
  windows_.clear();
  for (int64_t w = 0; w == 0 || plan.window(w - 1).end < config.length; ++w)
    windows_ += concat(" ", plan.window(w).end);
  const std::string key = group_of(config, config.chunk > 0 ? config.chunk : plan.window_bases());
  if (key == segments_key_) return;
  segments_key_ = key;
  known_.clear();
  logits_.assign(num_segments, at::Tensor());
}

std::optional<std::string> FidelityCache::key_of(const std::string& method) const {
  if (method == "full" || method == "noise_floor") return method;
  // It keeps the open window alone, so that only the windows' ends count.
  return method == "state_only" ? std::optional(method + windows_) : std::nullopt;
}

const FidelityCache::Known* FidelityCache::known(const std::string& method) const {
  const auto key = key_of(method);
  const auto found = key ? known_.find(*key) : known_.end();
  return found == known_.end() ? nullptr : &found->second;
}

void FidelityCache::keep_values(const std::string& method, std::size_t segment,
                                const report::PositionValues& values) {
  const auto key = key_of(method);
  std::size_t bytes = 0;
  for (const auto& measure : values.values) bytes += measure.size() * sizeof(float) * logits_.size();
  if (!key || static_cast<int64_t>(bytes) > logits_bytes_) return;
  Known& known = begun_[*key];
  known.values.resize(logits_.size());
  known.values[segment] = values;
}

void FidelityCache::keep_costs(const report::MethodResult& result) {
  const auto key = key_of(result.name);
  auto begun = key ? begun_.extract(*key) : decltype(begun_)::node_type();
  if (begun.empty()) return;
  Known& known = known_[*key] = std::move(begun.mapped());
  known.costs = result;
  known.costs.segments.clear();
  known.costs.columns = {};
}

}  // namespace focus::eval
