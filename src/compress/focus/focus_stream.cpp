#include "focus_stream.h"

#include "call_walk.h"
#include "entries_state.h"
#include "far_layer.h"
#include "window_recompute.h"

namespace focus::compress {
namespace {

using at::Tensor;

class FocusWalk final : public CallWalk {
 public:
  FocusWalk(const FocusLayer& focus, const model::AttentionCall& layer, ModelCall& call)
      : CallWalk(layer, call, focus.rules.plan(), focus.inline_stream()),
        focus_(focus),
        rules_(focus.rules),
        shared_call_(call),
        state_(state_of<EntriesState>(layer)),
        open_(state_.open),
        read_(call.first_base) {}

 private:
  int64_t next_change(int64_t base) const override { return rules_.next_change(base); }
  void begin(int64_t base) override {
    if (rules_.rolling()) evict_before(base);
  }

  Tensor bases(int64_t row, int64_t base, int64_t count) override {
    const auto rows = [&](const Tensor& t) { return t.narrow(2, row, count); };
    open_.append(rows(now_.k), rows(now_.v), rows(now_.q), layer_.u_BLD.narrow(1, row, count),
                 positions_.narrow(0, row, count), state_.stretch);
    read_ = base + count;
    const Tensor q = rows(now_.q);
    const ops::Memory past = shown(q);
    const OpenBases::Shown open = open_.shown(state_.stretch);
    return layer_.attention.output(
        call_.far_layer == nullptr
            ? attend(q, past, open)
            : call_.far_layer->attend(base, far_view(rules_, base, past.size()), past, {q, open.k, open.v}));
  }

  Tensor focus_token(int64_t row, int64_t base) override {
    const int64_t kmer = plan_.kmers_completed(base) - 1, window = plan_.window_of_kmer(kmer);
    const Span own = plan_.kmer(window, kmer - plan_.kmers_before(window));
    FOCUS_CHECK(own.end == base, "Focus token away from its k-mer's end");
    const Tensor x = layer_.x_BLD.narrow(1, row, 1);
    if (focus_.unit->updates_focus_state()) {
      const Span seen = focus_.seen_in_stream(kmer);
      ClosedSpan span =
          focus_.span(raw(base), seen, window, kmer, {{own.begin - seen.begin, own.end - seen.begin}});
      span.focus_x = x;
      span.focus_positions = positions_.narrow(0, row, 1);
      const Summary summary = focus_.unit->summarise(span, history(span));
      if (rules_.focus().history != History::none) state_.retained.append(summary.entries);
      return summary.focus_x - x;
    }
    state_.focus_x.push_back(x);
    // It sees its own k-mer and the past, none of them after it: no causal mask is needed.
    const auto of_kmer = [&](const Tensor& t) { return t.narrow(2, open_.size() - own.size(), own.size()); };
    const Tensor q = now_.q.narrow(2, row, 1);
    return layer_.attention.output(attend(q, shown(q), of_kmer(open_.k()), of_kmer(open_.v())));
  }

  void end(int64_t base) override {
    if (rules_.rolling()) return;
    const int64_t window = plan_.window_of(base - 1);
    const bool window_ends = base == plan_.window(window).end;
    if (!rules_.by_kmer()) {
      if (window_ends) close_window(window);
    } else if (plan_.ends_kmer(base)) {
      const int64_t count = open_.size();
      if (focus_.closes_spans()) {
        const int64_t kmer = plan_.kmers_before(window) + plan_.kmer_of(base - 1);
        state_.retained.append(
            close(focus_.span(raw(base), {base - count, base}, window, kmer, {{0, count}})));
      }
      drop_open();
    }
    if (window_ends) {
      if (rules_.by_kmer()) drop_open();
      forget(window);
    }
  }

  /// The entries that queries see, as they are held.
  ops::Memory shown(const Tensor& q) const {
    ops::Memory past = state_.retained.memory(q);
    if (state_.hidden > 0) past = past.narrow(0, past.size() - state_.hidden);
    if (!state_.recent.empty()) past.parts.push_back(state_.recent.memory(q));
    return past;
  }

  /// What spans are cut from when the bases before `base` have been read.
  LayerBases raw(int64_t base) const {
    return {layer_.attention, layer_.pre_norm, base,      open_.q(),
            open_.k(),        open_.v(),       open_.u(), open_.positions()};
  }
  /// All entries made before are what a span's Focus queries may see.
  Entries history(const ClosedSpan& span) const {
    return focus_.unit->reads_history() ? state_.retained.read(span.k) : Entries{};
  }

  /// Rolling eviction: k-mers whose first base is W bases old when `base` comes.
  void evict_before(int64_t base) {
    const int64_t keep_from = rules_.visible(base).raw_begin;
    for (int64_t first = base - open_.size(); first < keep_from; first = base - open_.size()) {
      const Span oldest = rules_.atom(first);
      const int64_t window = plan_.window_of(first), j = plan_.kmer_of(first),
                    kmer = plan_.kmers_before(window) + j;
      const Span made_of = rules_.summarised(oldest);
      if (j >= 0 && first < made_of.begin)
        state_.retained.append(focus_.sinks(open_.k(), open_.v(), {first, made_of.begin}, first));
      if (j >= 0 && kmer >= rules_.sink_kmers() && focus_.closes_spans()) {
        // Its reference queries are those of all raw bases; a Focus query has no use for later bases.
        const Span used{first, focus_.unit->updates_focus_state() ? oldest.end : base};
        state_.retained.append(close(
            focus_.span(raw(base), used, window, kmer, {{made_of.begin - first, made_of.end - first}})));
      } else if (j >= 0) {
        if (!state_.focus_x.empty()) state_.focus_x.erase(state_.focus_x.begin());
      }
      keep_open(base - oldest.end, base - oldest.end);
    }
  }

  void close_window(int64_t window) {
    const Span bases = plan_.window(window);
    const int64_t tail_begin = rules_.tail_begin(window + 1), sinks = window == 0 ? rules_.sink_kmers() : 0;
    Entries made;
    if (window == 0 && rules_.sink_bases() > 0)
      made =
          focus_.sinks(open_.k(), open_.v(), {bases.begin, bases.begin + rules_.sink_bases()}, bases.begin);
    if (focus_.closes_spans() && plan_.num_kmers(window) > sinks) {
      std::vector<Span> kmers = plan_.kmers(window);
      kmers.erase(kmers.begin(), kmers.begin() + sinks);
      if (window == 0) kmers.front() = rules_.summarised(kmers.front());
      if (sinks > 0 && !state_.focus_x.empty())
        state_.focus_x.erase(state_.focus_x.begin(), state_.focus_x.begin() + sinks);
      made.append(close(
          focus_.span(raw(bases.end), bases, window, plan_.kmers_before(window) + sinks, std::move(kmers))));
    }
    // Entries of bases that stay raw in the tail, or are held as codes, wait until these go.
    const int64_t recent_begin = rules_.recent_begin(window + 1);
    const int64_t shown =
        std::max(rules_.entry_index(plan_.kmers_completed(std::min(tail_begin, recent_begin))),
                 rules_.focus().recent.bases > 0 ? rules_.sink_bases() : 0) -
        rules_.entry_index(plan_.kmers_before(window));
    state_.retained.append(made);
    state_.hidden = std::max<int64_t>(made.size() - shown, 0);
    if (rules_.focus().recent.bases > 0) {
      state_.recent.append(focus_.recent(open_.k(), open_.v(), window, bases.begin));
      state_.recent.keep(state_.recent.size() - (bases.end - recent_begin), state_.recent.size());
    }
    state_.focus_x.clear();
    keep_open(bases.end - tail_begin, 0);
  }

  Entries close(ClosedSpan span) {
    if (!focus_.unit->updates_focus_state() && !state_.focus_x.empty()) {
      const auto count = static_cast<std::ptrdiff_t>(span.kmers.size());
      span.focus_x = at::cat(std::vector<Tensor>(state_.focus_x.begin(), state_.focus_x.begin() + count), 1);
      state_.focus_x.erase(state_.focus_x.begin(), state_.focus_x.begin() + count);
    }
    const Entries past = history(span);
    return focus_.summarise(std::move(span), past, shared_call_, next_side_).entries;
  }

  /// What the history rule drops when a window ends.
  void forget(int64_t window) {
    if (rules_.focus().history != History::window) return;
    EntryStore& kept = state_.retained;
    const Span last = plan_.kmer(window, plan_.num_kmers(window) - 1);
    const bool boundary = !kept.empty() && kept.origin().back().window == window;
    kept.keep(boundary ? kept.size() - rules_.entries_of(last) : kept.size(), kept.size());
  }

  void drop_open() { keep_open(0, 0); }
  void keep_open(int64_t raw, int64_t unread) {
    const int64_t leaving = open_.size() - std::min(raw, open_.size());
    if (call_.far_layer != nullptr && leaving > 0)
      call_.far_layer->take(read_ - open_.size(), open_.k().narrow(2, 0, leaving),
                            open_.v().narrow(2, 0, leaving));
    open_.keep(raw, unread);
    if (raw == 0) state_.focus_x.clear();
  }

  const FocusLayer& focus_;
  const LayerRules& rules_;
  ModelCall& shared_call_;
  EntriesState& state_;
  OpenBases& open_;
  int64_t read_;  // bases
  std::size_t next_side_ = 0;
};

}  // namespace

Tensor stream_focus(const FocusLayer& focus, const model::AttentionCall& layer, ModelCall& call) {
  return FocusWalk(focus, layer, call).run();
}

}  // namespace focus::compress
