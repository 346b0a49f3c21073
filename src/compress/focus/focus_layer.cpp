#include "focus/compress/focus/focus_layer.h"

#include <algorithm>

#include "window_recompute.h"

namespace focus::compress {

using at::Tensor;

Span FocusLayer::seen_in_stream(int64_t kmer) const {
  const WindowPlan& plan = rules.plan();
  const int64_t window = plan.window_of_kmer(kmer);
  const Span own = plan.kmer(window, kmer - plan.kmers_before(window));
  return rules.focus().paper.focus_sees == FocusSees::window ? Span{plan.window(window).begin, own.end} : own;
}

ClosedSpan FocusLayer::span(const LayerBases& source, const Span& bases, int64_t window, int64_t first_kmer,
                            std::vector<Span> relative) const {
  const WindowPlan& plan = rules.plan();
  const int64_t inserted =
      inline_stream() ? plan.kmers_completed(bases.end - 1) - plan.kmers_completed(bases.begin) : 0;
  return source.span(bases, bases.size() + inserted, window, first_kmer, kmers->get(std::move(relative)));
}

Entries FocusLayer::sinks(const Tensor& k, const Tensor& v, const Span& bases, int64_t first_base) const {
  Entries out = raw_entries(k, v, bases.begin - first_base, bases.end - first_base,
                            rules.plan().window_of(bases.begin), first_base);
  if (rules.focus().bias) add_zero_beta(out);
  return out;
}

StorageFormat FocusLayer::recent_format() const {
  StorageFormat codes = StorageFormat::codes(rules.focus().recent.bits);
  codes.device = format.device;
  return codes;
}

Span FocusLayer::joins_recent(int64_t window) const {
  const Span bases = rules.plan().window(window);
  return {std::max(bases.begin, rules.recent_begin(window + 1)), bases.end};
}

Entries FocusLayer::recent(const Tensor& k, const Tensor& v, int64_t window, int64_t first_base) const {
  const auto [begin, end] = joins_recent(window);
  return raw_entries(k.detach(), v.detach(), begin - first_base, end - first_base, window, first_base);
}

Summary FocusLayer::summarise(ClosedSpan span, const Entries& history, ModelCall& call,
                              std::size_t& next_side) const {
  if (!unit->updates_focus_state()) return compress::summarise(unit, span, history, call.recompute);
  const std::size_t own = next_side++;
  if (own == call.side.size()) {
    const auto count = static_cast<int64_t>(span.kmers.size());
    call.side.push_back(
        embedding.to(span.u_BND.device(), span.u_BND.scalar_type()).expand({span.u_BND.size(0), count, -1}));
  }
  span.focus_x = call.side[own].to(span.u_BND.device());
  span.focus_positions = last_positions(span);
  Summary summary = compress::summarise(unit, span, history, call.recompute);
  call.side[own] = summary.focus_x;
  return summary;
}

std::optional<FocusLayer> focus_layer(const FocusAdapter& adapter, int64_t block,
                                      std::shared_ptr<KmersCache> kmers) {
  const auto unit = adapter.unit(block);
  const auto settings = adapter.config().focus.at(block);
  if (unit == nullptr || !settings) return std::nullopt;
  return FocusLayer{LayerRules(adapter.config().window, *settings), unit, adapter.embedding,
                    adapter.config().storage, std::move(kmers)};
}

}  // namespace focus::compress
