#include "far_memory.h"

#include <algorithm>

#include "call_walk.h"
#include "far_layer.h"
#include "focus/core/error.h"
#include "on_host.h"

namespace focus::compress {
namespace {

using at::Tensor;

std::unique_ptr<MemoryState> as_memory(std::unique_ptr<cache::LayerState> state) {
  return std::unique_ptr<MemoryState>(dynamic_cast<MemoryState*>(state.release()));
}

}  // namespace

std::unique_ptr<cache::LayerState> FarState::clone() const {
  return std::make_unique<FarState>(as_memory(near_->clone()), store.copy(), keys.clone());
}

std::unique_ptr<cache::LayerState> FarState::snapshot() const {
  return std::make_unique<FarState>(as_memory(near_->snapshot()), store.copy(), keys.snapshot());
}

cache::TensorMap FarState::save() const {
  cache::TensorMap out = near_->save();
  store.save(out);
  keys.save(out);
  return out;
}

void FarState::load(const cache::TensorMap& saved, const at::Device& device) {
  near_->load(saved, device);
  store.load(saved, device);
  keys.load(saved, device);
}

MemoryUse FarState::use() const {
  MemoryUse use = near_->use();
  use.retained_bytes += store.ready_bytes() + keys.num_bytes();
  use.far_bytes += store.num_bytes();
  return use;
}

void FarState::detach() {
  near_->detach();
  store.detach();
}

FarMemory::FarMemory(std::shared_ptr<const LayerMemory> near, const FarConfig& config, const WindowPlan& plan,
                     const model::Backbone& backbone)
    : near_(std::move(near)),
      config_(config),
      plan_(plan),
      shape_(backbone.shape()),
      dtype_(backbone.dtype()) {
  if (!near_->first_raw(0))
    fail<ConfigError>("far.kmers: far memory cannot stand on '", near_->describe(),
                      "'; it stands on Focus entries and on the memories named far_...");
  if (config_.place == FarPlace::host && on_host(backbone))
    fail<ConfigError>(
        "far.place 'host' with a model on the CPU: keys and values are in host memory anyway; set 'model' or "
        "'file'");
}

std::string FarMemory::describe() const {
  const char* const stores[] = {"the model's precision", "bf16", "int8", "int4"};
  const char* const places[] = {"", ", in host memory", ", in a file"};
  std::string text = concat(near_->describe(), "; far memory: up to ", config_.kmers, " k-mers fetched for ",
                            config_.refresh, " queries, stored in ", stores[static_cast<int>(config_.store)],
                            places[static_cast<int>(config_.place)]);
  const char* const scores[] = {"letters",    "chance",     "exact keys",      "entries",
                                "1-bit keys", "2-bit keys", "sketches of keys"};
  if (config_.score != FarScore::seeds)
    text += concat(", chosen by ", scores[static_cast<int>(config_.score)]);
  if (config_.gate > 0) text += concat(", no summaries from ", config_.gate, " votes on");
  if (config_.keep > 0)
    text += concat(", the ", config_.evicts_by_use() ? "last used " : "newest ", config_.keep, " bases");
  return text;
}

Tensor FarMemory::stream(const model::AttentionCall& layer, ModelCall& call) const {
  auto& state = state_of<FarState>(layer);
  FarLayer far(config_, plan_, *call.far, state.keys, &state.store);
  model::AttentionCall near = layer;
  near.state = &state.near();
  call.far_layer = &far;
  Tensor out = near_->stream(near, call);
  call.far_layer = nullptr;
  return out;
}

Tensor FarMemory::parallel(const model::AttentionCall& layer, ModelCall& call) const {
  FarKeys keys(config_, plan_);
  FarLayer far(config_, plan_, *call.far, keys, nullptr);
  call.far_layer = &far;
  Tensor out = near_->parallel(layer, call);
  call.far_layer = nullptr;
  return out;
}

MemoryUse FarMemory::planned(int64_t num_bases) const {
  MemoryUse use = near_->planned(num_bases);
  if (num_bases == 0) return use;
  const auto size_of = [&](int64_t kmer) {
    const int64_t window = plan_.window_of_kmer(kmer);
    return plan_.kmer(window, kmer - plan_.kmers_before(window)).size();
  };
  const auto bytes_of = [&](FarStoreType store, int64_t bases) {
    return FarStore::kmer_bytes(store, bases, shape_.num_kv_heads, shape_.head_dim, dtype_);
  };
  // What chooses was given the past of the newest tile's first query.
  const FarTile tile = config_.tile(plan_, num_bases - 1);
  const int64_t end = plan_.kmers_completed(near_->first_raw(num_bases).value()),
                chosen_from =
                    plan_.kmers_completed(std::min(tile.past_end, near_->first_seen_raw(tile.begin)));
  int64_t longest = 0, newer = 0, chosen_bases = 0;
  for (int64_t kmer = 0; kmer < end; ++kmer) {
    const int64_t bases = size_of(kmer);
    if (kmer >= config_.first_kept(plan_, tile.past_end)) use.far_bytes += bytes_of(config_.store, bases);
    if (kmer >= chosen_from) newer += bytes_of(config_.store, bases);
    if (kmer < chosen_from) chosen_bases += bases;
    longest = std::max(longest, bases);
  }
  if (config_.evicts_by_use() && end > 0) {
    // Which ones is not known: as many bases as may be, in the shortest k-mers.
    const int64_t shortest = std::min(size_of(0), size_of(plan_.num_kmers(0) - 1)),
                  each = bytes_of(config_.store, 0), kmers = (config_.keep + shortest - 1) / shortest;
    use.far_bytes =
        std::min(use.far_bytes, bytes_of(config_.store, config_.keep) - each + kmers * each + newer);
  }
  const bool has_codes = config_.store == FarStoreType::int8 || config_.store == FarStoreType::int4,
             converts = config_.store == FarStoreType::bf16 && dtype_ != at::kBFloat16;
  if (config_.place != FarPlace::model || converts)
    use.retained_bytes +=
        std::min(config_.hot, end) * bytes_of(has_codes ? config_.store : FarStoreType::model, longest);
  if (reads_keys(config_.score)) {
    use.retained_bytes += key_scorer_bytes(config_.score, config_.rank, chosen_bases, chosen_from,
                                           shape_.num_kv_heads, shape_.head_dim, dtype_);
    if (config_.evicts_by_use()) use.retained_bytes += RecentlyUsed::planned_bytes(chosen_from);
  }
  return use;
}

}  // namespace focus::compress
