#include "focus/compress/rivals/budget.h"

#include <algorithm>
#include <cmath>

#include "focus/compress/plan/layer_rules.h"

namespace focus::compress {

int64_t focus_entry_bytes(const model::Backbone& backbone, const MemoryConfig& config) {
  const auto& shape = backbone.shape();
  return StorageFormat(config.storage)
      .entry_bytes(shape.num_kv_heads, shape.head_dim, backbone.dtype(), config.focus.bias);
}

Budget budget_of(const model::Backbone& backbone, const MemoryConfig& config) {
  const auto& shape = backbone.shape();
  const int64_t entry_bytes = focus_entry_bytes(backbone, config);
  const int64_t raw_bytes =
      bytes_per_entry(1, shape.num_kv_heads, shape.head_dim, backbone.dtype(), /*with_beta=*/false);
  double kmer = 0, raw = 0;
  int64_t layers = 0;
  for (const int64_t block : backbone.attention_blocks()) {
    const auto focus = config.focus.at(block);
    if (!focus) continue;
    ++layers;
    const LayerRules rules(config.window, *focus);
    kmer += static_cast<double>(focus->entries_per_kmer * entry_bytes * config.focus.k) /
            static_cast<double>(focus->k);
    const StorageFormat codes = StorageFormat::codes(focus->recent.bits);
    const int64_t recent_bytes = codes.bytes_of(std::min(focus->recent.bases, rules.plan().window_bases()),
                                                shape.num_kv_heads, shape.head_dim, backbone.dtype());
    kmer += static_cast<double>(recent_bytes) /
            static_cast<double>(WindowPlan(config.window, config.focus.k).num_kmers(1));
    const int64_t tail = rules.plan().window(1).begin - rules.tail_begin(1);
    FocusConfig without_sinks = *focus;
    without_sinks.sinks = 0;
    const int64_t first = rules.plan().num_kmers(0);
    const int64_t more =
        rules.entry_index(first) - LayerRules(config.window, without_sinks).entry_index(first);
    const int64_t fewer = rules.codes_for_sinks() *
                          codes.entry_bytes(shape.num_kv_heads, shape.head_dim, backbone.dtype(), false);
    raw += static_cast<double>(tail * raw_bytes + more * entry_bytes - fewer);
  }
  const double count = static_cast<double>(std::max<int64_t>(layers, 1));
  return {WindowPlan(config.window, config.focus.k), static_cast<int64_t>(std::floor(kmer / count)),
          static_cast<int64_t>(std::floor(raw / count))};
}

}  // namespace focus::compress
