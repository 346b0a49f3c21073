#include "focus_whole.h"

#include <algorithm>
#include <numeric>

#include "call_walk.h"
#include "focus/ops/host_copy.h"
#include "stretches.h"
#include "window_recompute.h"

namespace focus::compress {
namespace {

using at::Tensor;

/// Rows of bases and of Focus tokens among a call's tokens, and where each token is in [bases, Focus tokens].
struct Rows {
  Tensor bases, focus, order;
};
Rows rows_of(const std::vector<bool>& is_focus, const at::Device& device) {
  std::vector<int64_t> bases, focus;
  for (std::size_t row = 0; row < is_focus.size(); ++row)
    (is_focus[row] ? focus : bases).push_back(static_cast<int64_t>(row));
  std::vector<int64_t> order(is_focus.size());
  for (std::size_t i = 0; i < bases.size(); ++i)
    order[static_cast<std::size_t>(bases[i])] = static_cast<int64_t>(i);
  for (std::size_t i = 0; i < focus.size(); ++i)
    order[static_cast<std::size_t>(focus[i])] = static_cast<int64_t>(bases.size() + i);
  return {ops::from_host(bases, device), ops::from_host(focus, device), ops::from_host(order, device)};
}

class WholeSequence {
 public:
  WholeSequence(const FocusLayer& focus, const model::AttentionCall& layer, ModelCall& call)
      : focus_(focus), rules_(focus.rules), layer_(layer), call_(call) {}

  Tensor run() {
    const Tensor positions = positions_of(layer_);
    const nn::Projection all = layer_.attention.project(layer_.u_BLD, positions);
    const bool mixed = std::find(call_.is_focus.begin(), call_.is_focus.end(), true) != call_.is_focus.end();
    const Rows rows = mixed ? rows_of(call_.is_focus, layer_.u_BLD.device()) : Rows{};
    const auto of_bases = [&](const Tensor& t, int64_t dim) {
      return mixed ? t.index_select(dim, rows.bases) : t;
    };
    bases_ = {of_bases(all.q, 2), of_bases(all.k, 2), of_bases(all.v, 2)};
    u_ = of_bases(layer_.u_BLD, 1);
    base_positions_ = of_bases(positions, 0);
    num_bases_ = u_.size(1);
    if (mixed) {
      focus_x_ = layer_.x_BLD.index_select(1, rows.focus);
      focus_q_ = all.q.index_select(2, rows.focus);
      focus_positions_ = positions.index_select(0, rows.focus);
    }
    make_entries();
    const auto shown = [this](const LayerRules::Visible& seen) { return shown_to(seen); };
    const Tensor out =
        layer_.attention.output(attend_stretches(rules_, bases_, shown, call_.recompute, call_.far_layer));
    if (!mixed) return out;
    const Tensor focus_out = focus_.unit->updates_focus_state() ? at::cat(focus_updates_, 1)
                                                                : layer_.attention.output(attend_focus());
    return at::cat({out, focus_out}, 1).index_select(1, rows.order);
  }

 private:
  int64_t num_focus() const { return focus_x_.defined() ? focus_x_.size(1) : 0; }

  ClosedSpan span(const Span& bases, int64_t window, int64_t first_kmer, std::vector<Span> kmers) const {
    const LayerBases all{layer_.attention, layer_.pre_norm, num_bases_, bases_.q,
                         bases_.k,         bases_.v,        u_,         base_positions_};
    return focus_.span(all, bases, window, first_kmer, std::move(kmers));
  }

  Entries history_of(int64_t kmer) const {
    if (!focus_.unit->reads_history()) return {};
    const Span seen = rules_.history(kmer);
    return entries_.slice(seen.begin, std::min(seen.end, entries_.size()));
  }

  void close(const Span& bases, int64_t window, int64_t first_kmer, std::vector<Span> kmers) {
    ClosedSpan closing = span(bases, window, first_kmer, std::move(kmers));
    if (!focus_.unit->updates_focus_state() && focus_x_.defined())
      closing.focus_x = focus_x_.narrow(1, first_kmer, static_cast<int64_t>(closing.kmers.size()));
    const Summary summary = focus_.summarise(std::move(closing), history_of(first_kmer), call_, next_side_);
    entries_.append(rounded(summary.entries, focus_.format));
  }

  void append_sinks(const Span& bases) {
    entries_.append(rounded(focus_.sinks(bases_.k, bases_.v, bases, 0), focus_.format));
  }

  void make_entries() {
    if (rules_.made_in_stream()) return make_from_focus_tokens();
    const bool closes = focus_.closes_spans();
    const WindowPlan& plan = rules_.plan();
    for (int64_t window = 0; plan.window(window).begin < num_bases_; ++window) {
      if (!closes && window > 0) return;
      const Span w = plan.window(window);
      const int64_t first = plan.kmers_before(window), count = plan.num_kmers(window);
      if (!rules_.rolling() && !rules_.by_kmer()) {
        if (w.end > num_bases_) return;
        const int64_t skip = window == 0 ? rules_.sink_kmers() : 0;
        if (window == 0 && rules_.sink_bases() > 0) append_sinks({0, rules_.sink_bases()});
        std::vector<Span> kmers = plan.kmers(window);
        kmers.erase(kmers.begin(), kmers.begin() + skip);
        if (window == 0 && !kmers.empty()) kmers.front() = rules_.summarised(kmers.front());
        if (closes && !kmers.empty()) close(w, window, first + skip, std::move(kmers));
        if (rules_.focus().recent.bases > 0)
          recent_.push_back(rounded(focus_.recent(bases_.k, bases_.v, window, 0), focus_.recent_format()));
        continue;
      }
      for (int64_t j = 0; j < count; ++j) {
        const Span kmer = plan.kmer(window, j);
        // A k-mer closes with its last base, or, rolling, when its first base is W bases old.
        const int64_t until = rules_.rolling() ? kmer.begin + w.size() : kmer.end;
        if (until > num_bases_) return;
        const Span made_of = rules_.summarised(kmer);
        if (kmer.begin < made_of.begin) append_sinks({kmer.begin, made_of.begin});
        if (closes && made_of.size() > 0) {
          const bool reads_later = rules_.rolling() && !focus_.unit->updates_focus_state();
          close({kmer.begin, reads_later ? until : kmer.end}, window, first + j,
                {{made_of.begin - kmer.begin, made_of.end - kmer.begin}});
        }
      }
    }
  }

  void make_from_focus_tokens() {
    const WindowPlan& plan = rules_.plan();
    for (int64_t g = 0; g < num_focus(); ++g) {
      const int64_t window = plan.window_of_kmer(g);
      const Span own = plan.kmer(window, g - plan.kmers_before(window)), seen = focus_.seen_in_stream(g);
      ClosedSpan made = span(seen, window, g, {{own.begin - seen.begin, own.end - seen.begin}});
      made.focus_x = focus_x_.narrow(1, g, 1);
      made.focus_positions = focus_positions_.narrow(0, g, 1);
      const Summary summary = summarise(focus_.unit, made, history_of(g), call_.recompute);
      focus_updates_.push_back(summary.focus_x - made.focus_x);
      if (rules_.focus().history != History::none) entries_.append(rounded(summary.entries, focus_.format));
    }
  }

  ops::Memory shown_to(const LayerRules::Visible& seen) const {
    ops::Memory out;
    if (seen.entry_begin < seen.entry_end)
      out.parts.push_back(entries_.slice(seen.entry_begin, seen.entry_end).memory());
    for (const Entries& codes : recent_) {
      if (codes.empty()) continue;  // of a window of sinks
      const int64_t begin = codes.origin.front().index, end = begin + codes.size(),
                    from = std::max(begin, seen.raw_begin - seen.recent);
      if (from < std::min(end, seen.raw_begin))
        out.parts.push_back(codes.slice(from - begin, codes.size()).memory());
    }
    return out;
  }

  /// Focus tokens of an inline stream that are read out: each sees what the last base of its k-mer sees of
  /// the past, and its own k-mer.
  Tensor attend_focus() const {
    std::vector<Tensor> out;
    const WindowPlan& plan = rules_.plan();
    for (int64_t g = 0; g < num_focus(); ++g) {
      const int64_t window = plan.window_of_kmer(g);
      const Span kmer = plan.kmer(window, g - plan.kmers_before(window));
      const auto own = [&](const Tensor& t) { return t.narrow(2, kmer.begin, kmer.size()); };
      out.push_back(attend(focus_q_.narrow(2, g, 1), shown_to(rules_.visible(kmer.end - 1)), own(bases_.k),
                           own(bases_.v), call_.recompute));
    }
    return at::cat(out, 2);
  }

  const FocusLayer& focus_;
  const LayerRules& rules_;
  const model::AttentionCall& layer_;
  ModelCall& call_;
  int64_t num_bases_ = 0;
  nn::Projection bases_;
  Tensor u_, base_positions_, focus_positions_, focus_x_, focus_q_;
  Entries entries_;
  std::vector<Entries> recent_;  // by window
  std::vector<Tensor> focus_updates_;
  std::size_t next_side_ = 0;
};

}  // namespace

Tensor whole_focus(const FocusLayer& focus, const model::AttentionCall& layer, ModelCall& call) {
  return WholeSequence(focus, layer, call).run();
}

}  // namespace focus::compress
