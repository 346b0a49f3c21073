#include "focus/compress/plan/layer_rules.h"

#include <algorithm>

namespace focus::compress {

LayerRules::LayerRules(const WindowConfig& window, const FocusConfig& focus)
    : plan_(window, focus.k), focus_(focus), window_size_(window.size), sink_bases_(focus.sinks) {
  while (sink_kmers_ < plan_.num_kmers(0) && plan_.kmer(0, sink_kmers_).end <= focus.sinks) ++sink_kmers_;
}

Span LayerRules::atom(int64_t base) const {
  const int64_t window = plan_.window_of(base), j = plan_.kmer_of(base);
  return j >= 0 ? plan_.kmer(window, j)
                : Span{plan_.kmer(window, plan_.num_kmers(window) - 1).end, plan_.window(window).end};
}

int64_t LayerRules::tail_begin(int64_t window) const {
  const int64_t begin = plan_.window(window).begin;
  return window == 0 || focus_.tail == 0 ? begin : atom(begin - focus_.tail).begin;
}

int64_t LayerRules::codes_for_sinks() const {
  const int64_t bases = focus_.recent.bases;
  return bases > 0 && bases < plan_.window(0).size() ? kCodesPerSink * sink_bases_ : 0;
}

int64_t LayerRules::recent_begin(int64_t window) const {
  if (window == 0) return 0;
  const int64_t begin = plan_.window(window).begin;
  // No window adds more codes than it has bases, or they would have to come from before those that are held:
  // the first window may be longer than the others.
  const auto of_window = [&](int64_t w) { return std::min(focus_.recent.bases, plan_.window(w).size()); };
  const int64_t codes = of_window(0) + (window - 1) * of_window(1) - codes_for_sinks();
  // Sinks are entries for ever.
  return begin - std::clamp<int64_t>(codes, 0, std::max<int64_t>(begin - sink_bases_, 0));
}

Span LayerRules::summarised(const Span& kmer) const {
  return {std::clamp(sink_bases_, kmer.begin, kmer.end), kmer.end};
}

int64_t LayerRules::entries_of(const Span& kmer) const {
  return std::min(focus_.entries_per_kmer, summarised(kmer).size());
}

int64_t LayerRules::entries_before(int64_t kmer) const {
  // Only a window's last k-mer may be of another size.
  const auto of_window = [&](int64_t window) {
    const int64_t count = plan_.num_kmers(window);
    return (count - 1) * std::min(focus_.entries_per_kmer, plan_.k()) +
           std::min(focus_.entries_per_kmer, plan_.kmer(window, count - 1).size());
  };
  const int64_t window = plan_.window_of_kmer(kmer);
  const int64_t before = window == 0 ? 0 : of_window(0) + (window - 1) * of_window(1);
  return before + (kmer - plan_.kmers_before(window)) * std::min(focus_.entries_per_kmer, plan_.k());
}

int64_t LayerRules::entry_index(int64_t kmer) const {
  if (kmer == 0) return 0;
  if (kmer <= sink_kmers_) return plan_.kmer(0, kmer - 1).end;
  // The k-mer in which sinks end has entries of its other bases alone.
  const Span broken = plan_.kmer(plan_.window_of_kmer(sink_kmers_),
                                 sink_kmers_ - plan_.kmers_before(plan_.window_of_kmer(sink_kmers_)));
  return sink_bases_ + entries_of(broken) + entries_before(kmer) - entries_before(sink_kmers_ + 1);
}

LayerRules::Visible LayerRules::visible(int64_t t) const {
  const int64_t window = plan_.window_of(t);
  Visible out;
  int64_t closed = 0;  // k-mers whose raw bases are gone
  if (rolling()) {
    const int64_t oldest = std::max<int64_t>(t + 1 - window_size_, 0);
    const Span at_oldest = atom(oldest);
    out.raw_begin = at_oldest.begin == oldest ? oldest : at_oldest.end;
    closed = plan_.kmers_completed(out.raw_begin);
  } else {
    out.raw_begin = by_kmer() ? atom(t).begin : tail_begin(window);
    if (focus_.recent.bases > 0) out.recent = out.raw_begin - recent_begin(window);
    closed = plan_.kmers_completed(by_kmer() ? plan_.window(window).begin : out.raw_begin - out.recent);
  }
  out.entry_end = entry_index(shows_open_entries() ? plan_.kmers_completed(t) : closed);
  if (focus_.recent.bases > 0 && window > 0) out.entry_end = std::max(out.entry_end, sink_bases_);
  if (focus_.history == History::none) out.entry_end = std::min(entry_index(closed), sink_bases_);
  if (focus_.history == History::window)
    out.entry_begin = entry_index(std::max<int64_t>(plan_.kmers_before(window) - 1, 0));
  return out;
}

int64_t LayerRules::next_change(int64_t t) const {
  const int64_t closes = plan_.next_close(t, shows_open_entries());
  return rolling() ? std::min(made_in_stream() ? closes : INT64_MAX, visible(t).raw_begin + window_size_)
                   : closes;
}

Span LayerRules::history(int64_t kmer) const {
  if (focus_.history == History::none) return {0, 0};
  const int64_t own_window = plan_.kmers_before(plan_.window_of_kmer(kmer));
  const int64_t end = entry_index(shows_open_entries() || rolling() ? kmer : own_window);
  const int64_t begin =
      focus_.history == History::all ? 0 : entry_index(std::max<int64_t>(own_window - 1, 0));
  return {begin, std::max(begin, end)};
}

LayerRules::Held LayerRules::held(int64_t length) const {
  Held out;
  if (length == 0) return out;
  // As the last base saw it; but what closes with that base is closed, while rolling eviction waits for the
  // next one.
  int64_t made = 0, raw_begin = 0, unread_begin = 0;
  if (rolling()) {
    raw_begin = unread_begin = visible(length - 1).raw_begin;
    made = plan_.kmers_completed(made_in_stream() ? length : raw_begin);
  } else {
    const int64_t window = plan_.window_of(length);
    raw_begin = unread_begin = by_kmer() ? std::min(atom(length).begin, length) : plan_.window(window).begin;
    if (!by_kmer()) raw_begin = tail_begin(window);
    made = shows_open_entries() ? plan_.kmers_completed(length) : plan_.kmers_before(window);
  }
  const int64_t window = plan_.window_of(length);
  const int64_t sinks = std::min(sink_bases_, rolling() ? raw_begin : plan_.window(window).begin);
  int64_t first = 0;
  if (focus_.history == History::window)
    first = entry_index(std::max<int64_t>(plan_.kmers_before(window) - 1, 0));
  out.entries = focus_.history == History::none ? sinks : entry_index(made) - first;
  if (focus_.recent.bases > 0) out.recent = raw_begin - recent_begin(window);
  out.open_bases = length - raw_begin;
  out.unread = length - unread_begin;
  return out;
}

}  // namespace focus::compress
