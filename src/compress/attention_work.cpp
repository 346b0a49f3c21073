#include "focus/compress/attention_work.h"

#include <algorithm>
#include <cmath>

#include "far_store.h"

namespace focus::compress {
namespace {

// How often an array of scores is read or written when a window closes: product, mask, softmax within k-mers,
// two maxima, product with the k-mers' shares and its sum (fitted_unit.cpp); and by the check, which has two
// arrays of half as many queries: product, mask, softmax, two maxima, product with the values
// (held_out_check.cpp).
constexpr double kFitPasses = 10, kCheckPasses = 8;

/// Of a full list of a window's queries: k-mers, and their bases.
struct FarList {
  double kmers = 0, bases = 0;
};
FarList full_list(const CompressedModel& model, int64_t window) {
  const FarConfig& far = model.config().far;
  const WindowPlan& plan = model.plan();
  int64_t past = plan.kmers_before(window) - far.first_kept(plan, plan.window(window).begin);
  if (far.evicts_by_use()) past = std::min(past, far.keep / plan.k());
  const int64_t kmers = std::clamp<int64_t>(past, 0, far.kmers);
  return {static_cast<double>(kmers), static_cast<double>(kmers * plan.k())};
}

}  // namespace

KeysSeen keys_seen(const CompressedModel* compressed, int64_t begin, int64_t end, int64_t chunk) {
  KeysSeen out;
  int64_t window_begin = 0, window_end = end, entries = 0;
  const bool fetches = compressed != nullptr && compressed->new_chooser() != nullptr;
  double fetched = 0;
  for (int64_t t = begin; t < end;) {
    if (compressed != nullptr && (t == begin || t == window_end)) {
      const WindowPlan& plan = compressed->plan();
      const Span window = plan.window(plan.window_of(t));
      window_begin = window.begin;
      window_end = window.end;
      entries = compressed->planned_use(window_begin).entries;
      if (fetches) fetched = full_list(*compressed, plan.window_of(t)).bases;
    }
    const int64_t stop = std::min({end, window_end, begin + ((t - begin) / chunk + 1) * chunk});
    const double queries = static_cast<double>(stop - t),
                 before = static_cast<double>(entries + t - window_begin) + fetched;
    out.pairs += queries * before + queries * (queries + 1) / 2;
    // Where lists change, so do the calls of attention.
    const double lists =
        fetched > 0 ? std::ceil(queries / static_cast<double>(compressed->config().far.refresh)) : 1;
    out.read += lists * before + (lists + 1) * queries / 2;
    t = stop;
  }
  return out;
}

FarTraffic far_traffic(const CompressedModel* compressed, int64_t begin, int64_t end) {
  FarTraffic out;
  if (compressed == nullptr || compressed->new_chooser() == nullptr) return out;
  const model::Backbone& backbone = compressed->backbone();
  const model::BackboneShape& shape = backbone.shape();
  const FarConfig& far = compressed->config().far;
  const WindowPlan& plan = compressed->plan();
  const double kmer_bytes = static_cast<double>(backbone.attention_blocks().size()) *
                            static_cast<double>(FarStore::kmer_bytes(far.store, plan.k(), shape.num_kv_heads,
                                                                     shape.head_dim, backbone.dtype()));
  out.stored = static_cast<double>(end - begin) / static_cast<double>(plan.k()) * kmer_bytes;
  for (int64_t t = begin; t < end;) {
    const int64_t window = plan.window_of(t), stop = std::min(end, plan.window(window).end);
    const double lists = std::ceil(static_cast<double>(stop - t) / static_cast<double>(far.refresh));
    out.fetched += lists * full_list(*compressed, window).kmers * kmer_bytes;
    t = stop;
  }
  return out;
}

model::Operation choice_work(const CompressedModel* compressed, int64_t begin, int64_t end) {
  model::Operation out{"choosing k-mers", model::Unit::fp32, 0, 0};
  if (compressed == nullptr || compressed->new_chooser() == nullptr) return out;
  const FarConfig& far = compressed->config().far;
  if (!reads_keys(far.score)) return out;
  const model::Backbone& backbone = compressed->backbone();
  const model::BackboneShape& shape = backbone.shape();
  const WindowPlan& plan = compressed->plan();
  const auto layers = static_cast<double>(backbone.attention_blocks().size());
  const auto width = static_cast<double>(far.score == FarScore::sketch ? far.rank : shape.head_dim);
  for (int64_t t = begin; t < end;) {
    const Span window = plan.window(plan.window_of(t));
    const int64_t stop = std::min(end, window.end), kmers = plan.kmers_completed(window.begin);
    const double lists = layers * std::ceil(static_cast<double>(stop - t) / static_cast<double>(far.refresh));
    const auto rows = static_cast<double>(far.score == FarScore::fitted ? kmers : window.begin);
    out.flop += lists * 2 * static_cast<double>(shape.num_heads) * width * rows;
    out.bytes +=
        lists * static_cast<double>(key_scorer_bytes(far.score, far.rank, window.begin, kmers,
                                                     shape.num_kv_heads, shape.head_dim, backbone.dtype()));
    t = stop;
  }
  return out;
}

model::Operation fit_work(const FittedUnitConfig& config, const model::BackboneShape& shape, int64_t layers,
                          double windows, int64_t bases, int64_t kmers) {
  const double n = static_cast<double>(bases), m = static_cast<double>(kmers),
               dim = static_cast<double>(shape.head_dim), kv_heads = static_cast<double>(shape.num_kv_heads);
  const double queries = n / static_cast<double>(config.reference_stride) *
                         static_cast<double>(shape.num_heads / shape.num_kv_heads);
  const double scores = 2 * queries * n * dim;
  // Mean keys, the normal equations and their solution.
  const double regression = 4 * queries * (dim + 1) * m + 2 * queries * (dim + 1) * (dim + 1) +
                            2 * dim * dim * dim / 3 + 2 * dim * dim * m;
  // Half as many queries: scores and values of the open bases and of the past ones.
  const double check = config.check ? 2 * scores : 0;
  const double passes = kFitPasses + (config.check ? kCheckPasses : 0);
  const double times = windows * static_cast<double>(layers) * kv_heads;
  return {"closing windows", model::Unit::fp32, times * (scores + regression + check),
          times * (passes * queries * n + 6 * n * dim) * 4};
}

}  // namespace focus::compress
