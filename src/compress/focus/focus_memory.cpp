#include "focus_memory.h"

#include <algorithm>

#include "focus/core/error.h"

namespace focus::compress {

FocusMemory::FocusMemory(FocusLayer focus, const model::Backbone& backbone) : focus_(std::move(focus)) {
  const auto& shape = backbone.shape();
  const auto element = static_cast<int64_t>(at::elementSize(backbone.dtype()));
  entry_bytes_ = focus_.format.entry_bytes(shape.num_kv_heads, shape.head_dim, backbone.dtype(),
                                           focus_.rules.focus().bias);
  open_bytes_ =
      bytes_per_entry(1, shape.num_kv_heads, shape.head_dim, backbone.dtype(), /*with_beta=*/false) +
      static_cast<int64_t>(sizeof(int64_t));
  unread_bytes_ = (shape.num_heads * shape.head_dim + shape.width) * element;
  const StorageFormat codes = focus_.recent_format();
  code_bytes_ = codes.entry_bytes(shape.num_kv_heads, shape.head_dim, backbone.dtype(), /*with_beta=*/false);
  scale_bytes_ = codes.group_bytes(shape.num_kv_heads, shape.head_dim);
}

int64_t FocusMemory::recent_bytes(int64_t num_bases) const {
  const LayerRules& rules = focus_.rules;
  const int64_t open = rules.plan().window_of(num_bases), oldest = rules.recent_begin(open),
                end = rules.plan().window(open).begin;
  if (rules.focus().recent.bases == 0 || oldest == end) return 0;
  int64_t groups = 0;  // they never cross a window's end
  for (int64_t window = rules.plan().window_of(oldest); window < open; ++window) {
    const auto [begin, stop] = focus_.joins_recent(window);
    groups += (stop - begin + kKeyGroup - 1) / kKeyGroup - std::max<int64_t>(oldest - begin, 0) / kKeyGroup;
  }
  return (end - oldest) * code_bytes_ + groups * scale_bytes_;
}

MemoryUse FocusMemory::planned(int64_t num_bases) const {
  const LayerRules::Held held = focus_.rules.held(num_bases);
  return {held.entries + held.recent, held.entries * entry_bytes_ + recent_bytes(num_bases),
          held.open_bases * open_bytes_ + held.unread * unread_bytes_};
}

int64_t FocusMemory::steady_bases(int64_t base) const {
  const LayerRules& rules = focus_.rules;
  if (focus_.inline_stream() || focus_.format.device == StorageDevice::host) return 0;
  const int64_t next = rules.next_change(base);
  // Rolling eviction drops before it reads a base, windows and k-mers close after their last one.
  if (rules.rolling()) return base > 0 && rules.next_change(base - 1) == base ? 0 : next - base;
  return std::min(next, rules.plan().next_close(base, rules.by_kmer())) - 1 - base;
}

std::string FocusMemory::describe() const {
  const FocusConfig& f = focus_.rules.focus();
  const bool is_fitted = f.unit == UnitKind::fitted, trained = !is_fitted || f.fitted.corrections;
  std::string text =
      concat(trained ? "" : "closed form, untrained: ", is_fitted ? "fitted" : "the paper's", " unit, k ",
             f.k, f.stream == Stream::side ? ", beside the bases" : ", among the bases",
             f.bias ? ", with beta" : ", no beta");
  if (trained) text += f.rank > 0 ? concat(", rank ", f.rank) : std::string(", full rank");
  if (f.local == Local::kmer) text += ", bases see their k-mer only";
  if (f.eviction == Eviction::rolling) text += ", rolling eviction";
  if (f.tail > 0) text += concat(", raw tail of ", f.tail);
  if (f.sinks > 0) text += concat(", ", f.sinks, " raw sinks");
  if (f.recent.bases > 0)
    text += concat(", the newest ", f.recent.bases, " bases per closed window in ", f.recent.bits, " bits");
  if (f.entries_per_kmer > 1) text += concat(", ", f.entries_per_kmer, " entries per k-mer");
  if (f.history != History::all)
    text += f.history == History::window ? ", history of one window" : ", no history";
  return text;
}

}  // namespace focus::compress
