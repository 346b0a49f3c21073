// The parallel execution: all entries of the sequence are made first, then every stretch of bases that sees the same entries attends to
// them and, causally, to the raw bases that a stream would still hold. Visibility comes from the layer's rules alone; no L x L array
// exists.
#include <algorithm>

#include "focus/core/error.h"
#include "focus/ops/attention.h"
#include "hooks.h"
#include "window_recompute.h"

namespace focus::compress {
namespace {

using at::Tensor;

Tensor index_tensor(const std::vector<int64_t>& values, const at::Device& device) { return at::tensor(values, at::kLong).to(device); }

/// A tensor cut along the sequence once, so that the gradients of its many overlapping stretches are put together once.
class Pieces {
 public:
  /// `cuts` ascending, from 0 to the length.
  Pieces(const Tensor& whole, const std::vector<int64_t>& cuts, int64_t dim) : whole_(whole), cuts_(cuts), dim_(dim) {
    if (!whole.requires_grad() || !at::GradMode::is_enabled()) return;
    std::vector<int64_t> sizes;
    for (std::size_t i = 0; i + 1 < cuts.size(); ++i) sizes.push_back(cuts[i + 1] - cuts[i]);
    parts_ = whole.split_with_sizes(sizes, dim);
  }
  /// [begin, end), both of them cuts.
  Tensor range(int64_t begin, int64_t end) const {
    if (parts_.empty()) return whole_.narrow(dim_, begin, end - begin);
    const auto first = std::lower_bound(cuts_.begin(), cuts_.end(), begin) - cuts_.begin();
    const auto last = std::lower_bound(cuts_.begin(), cuts_.end(), end) - cuts_.begin();
    if (last - first == 1) return parts_[static_cast<std::size_t>(first)];
    return at::cat(std::vector<Tensor>(parts_.begin() + first, parts_.begin() + last), dim_);
  }

 private:
  Tensor whole_;
  std::vector<Tensor> parts_;
  std::vector<int64_t> cuts_;
  int64_t dim_;
};

class Pass {
 public:
  /// `side`: nullptr when the forward pass is over and this is a repetition.
  Pass(const HookContext& context, SideStates* side, const model::AttentionCall& call)
      : c_(context), side_(side), call_(call), rules_(context.rules_of(call.block)) {}

  Tensor run() {
    const int64_t length = call_.u_BLD.size(1);
    const auto device = call_.u_BLD.device();
    positions_ = positions_of(call_);
    const nn::Projection all = call_.attention.project(call_.u_BLD, positions_);
    if (rules_ == nullptr) return call_.attention.output(ops::causal_attention(all.q, all.k, all.v));
    unit_ = c_.adapter->unit(call_.block);
    tables_ = c_.adapter->tables(call_.block);

    for (int64_t row = 0; row < length; ++row)
      (!c_.is_focus.empty() && c_.is_focus[static_cast<std::size_t>(row)] ? focus_rows_ : base_rows_).push_back(row);
    num_bases_ = static_cast<int64_t>(base_rows_.size());
    const bool mixed = !focus_rows_.empty();
    const Tensor rows = mixed ? index_tensor(base_rows_, device) : Tensor();
    const auto of_bases = [&](const Tensor& t, int64_t dim) { return mixed ? t.index_select(dim, rows) : t; };
    bases_ = {of_bases(all.q, 2), of_bases(all.k, 2), of_bases(all.v, 2)};
    u_ = of_bases(call_.u_BLD, 1);
    base_positions_ = of_bases(positions_, 0);
    if (mixed) {
      const Tensor focus = index_tensor(focus_rows_, device);
      focus_x_ = call_.x_BLD.index_select(1, focus);
      focus_q_ = all.q.index_select(2, focus);
      focus_positions_ = positions_.index_select(0, focus);
    }

    make_entries();
    const Tensor out = call_.attention.output(attend_bases());
    if (!mixed) return out;
    const Tensor focus_out = unit_->updates_focus_state() ? at::cat(focus_updates_, 1) : call_.attention.output(attend_focus());
    std::vector<int64_t> order(static_cast<std::size_t>(length));
    for (std::size_t i = 0; i < base_rows_.size(); ++i) order[static_cast<std::size_t>(base_rows_[i])] = static_cast<int64_t>(i);
    for (std::size_t i = 0; i < focus_rows_.size(); ++i)
      order[static_cast<std::size_t>(focus_rows_[i])] = num_bases_ + static_cast<int64_t>(i);
    return at::cat({out, focus_out}, 1).index_select(1, index_tensor(order, device));
  }

 private:
  ClosedSpan span(int64_t begin, int64_t end, int64_t window, int64_t first_kmer, std::vector<Span> kmers) const {
    return {.attention = call_.attention,
            .pre_norm = call_.pre_norm,
            .window = window,
            .first_base = begin,
            .first_kmer = first_kmer,
            .kmers = std::move(kmers),
            .entries_per_kmer = rules_->focus().entries_per_kmer,
            .positions = base_positions_.narrow(0, begin, end - begin),
            .q = bases_.q.narrow(2, begin, end - begin),
            .k = bases_.k.narrow(2, begin, end - begin),
            .v = bases_.v.narrow(2, begin, end - begin),
            .u_BND = u_.narrow(1, begin, end - begin),
            .focus_x = {},
            .focus_positions = {}};
  }

  Tensor attend(const Tensor& q, const Entries& entries, const Tensor& k, const Tensor& v) const {
    return c_.recompute ? attend_recomputed(q, entries, k, v) : ops::memory_attention(q, {entries.k, entries.v, entries.beta}, k, v);
  }
  Summary summarise(const ClosedSpan& span, const Entries& history) const {
    return c_.recompute ? summarise_recomputed(*unit_, span, history) : unit_->summarise(span, history);
  }

  Entries history_of(int64_t kmer) const {
    const Span seen = rules_->history(kmer);
    return entries_.slice(seen.begin, std::min(seen.end, entries_.size()));
  }

  SideStates& side() const {
    FOCUS_CHECK(side_ != nullptr, "block ", call_.block, " cannot be run again: its Focus states were beside the bases");
    return *side_;
  }

  void close(int64_t begin, int64_t end, int64_t window, int64_t first_kmer, std::vector<Span> kmers) {
    ClosedSpan s = span(begin, end, window, first_kmer, std::move(kmers));
    const auto count = static_cast<int64_t>(s.kmers.size());
    if (unit_->updates_focus_state()) {
      s.focus_x = side().get(first_kmer, count, c_.adapter->embedding, s.u_BND);
      s.focus_positions = last_positions(s);
    } else if (focus_x_.defined()) {
      s.focus_x = focus_x_.narrow(1, first_kmer, count);
    }
    const Summary summary = summarise(s, history_of(first_kmer));
    if (summary.focus_x.defined()) side().set(first_kmer, summary.focus_x);
    entries_.append(rounded(summary.entries, c_.storage()));
  }

  void append_sinks(int64_t begin, int64_t end) {
    Entries sinks = raw_entries(bases_.k, bases_.v, begin, end, 0, begin);
    if (rules_->focus().bias) add_zero_beta(sinks);
    entries_.append(rounded(sinks, c_.storage()));
  }

  /// Tables: an entry for every base.
  void predict_all() {
    const auto [key, value] = tables_->predict(c_.codes.to(u_.device()), num_bases_);
    entries_.k = call_.attention.rotate(key, base_positions_).to(bases_.k.scalar_type());
    entries_.v = value.to(bases_.v.scalar_type());
    entries_.beta = tables_->beta.to(key.scalar_type()).unsqueeze(-1).unsqueeze(0).expand({key.size(0), key.size(1), num_bases_});
    entries_.origin.resize(static_cast<std::size_t>(num_bases_));
  }

  void make_entries() {
    if (tables_ != nullptr) return predict_all();
    if (rules_->made_in_stream()) return make_from_focus_rows();
    const bool makes = rules_->focus().history != History::none;
    const WindowPlan& plan = rules_->plan();
    const int64_t sinks = rules_->sink_kmers();
    for (int64_t window = 0; plan.window(window).begin < num_bases_; ++window) {
      if (!makes && window > 0) return;
      const Span w = plan.window(window);
      const int64_t first = plan.kmers_before(window), count = plan.num_kmers(window);
      if (!rules_->rolling() && !rules_->by_kmer()) {
        if (w.end > num_bases_) return;
        const int64_t skip = window == 0 ? sinks : 0;
        if (skip > 0) append_sinks(0, rules_->sink_bases());
        std::vector<Span> kmers = plan.kmers(window);
        kmers.erase(kmers.begin(), kmers.begin() + skip);
        if (makes && !kmers.empty()) close(w.begin, w.end, window, first + skip, std::move(kmers));
        continue;
      }
      for (int64_t j = 0; j < count; ++j) {
        const Span kmer = plan.kmer(window, j);
        // A k-mer closes with its last base, or, rolling, when its first base is W bases old.
        const int64_t until = rules_->rolling() ? kmer.begin + w.size() : kmer.end;
        if (until > num_bases_) return;
        if (first + j < sinks) {
          append_sinks(kmer.begin, kmer.end);
        } else if (makes) {
          close(kmer.begin, rules_->rolling() && !unit_->updates_focus_state() ? until : kmer.end, window, first + j, {{0, kmer.size()}});
        }
      }
    }
  }

  void make_from_focus_rows() {
    const WindowPlan& plan = rules_->plan();
    for (int64_t g = 0; g < static_cast<int64_t>(focus_rows_.size()); ++g) {
      const int64_t window = plan.window_of_kmer(g), j = g - plan.kmers_before(window);
      const Span kmer = plan.kmer(window, j);
      const int64_t begin = c_.config.focus.paper.focus_sees == FocusSees::window ? plan.window(window).begin : kmer.begin;
      ClosedSpan s = span(begin, kmer.end, window, g, {{kmer.begin - begin, kmer.end - begin}});
      s.focus_x = focus_x_.narrow(1, g, 1);
      s.focus_positions = focus_positions_.narrow(0, g, 1);
      const Summary summary = summarise(s, history_of(g));
      focus_updates_.push_back(summary.focus_x - s.focus_x);
      if (rules_->focus().history != History::none) entries_.append(rounded(summary.entries, c_.storage()));
    }
  }

  Entries shown(const LayerRules::Visible& seen) const {
    if (tables_ != nullptr) return entries_.slice(0, seen.raw_begin);
    return seen.entry_begin < seen.entry_end ? entries_.slice(seen.entry_begin, seen.entry_end) : Entries{};
  }

  /// [B, H, bases, E]
  Tensor attend_bases() const {
    std::vector<Span> stretches;
    std::vector<LayerRules::Visible> seen;
    std::vector<int64_t> cuts = {0, num_bases_};
    for (int64_t t = 0; t < num_bases_; t = stretches.back().end) {
      stretches.push_back({t, std::min(rules_->next_change(t), num_bases_)});
      seen.push_back(rules_->visible(t));
      cuts.push_back(t);
      cuts.push_back(seen.back().raw_begin);
    }
    std::sort(cuts.begin(), cuts.end());
    cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
    const Pieces q(bases_.q, cuts, 2), k(bases_.k, cuts, 2), v(bases_.v, cuts, 2);
    std::vector<Tensor> out;
    for (std::size_t i = 0; i < stretches.size(); ++i) {
      const auto [begin, end] = stretches[i];
      const int64_t raw = seen[i].raw_begin;
      out.push_back(attend(q.range(begin, end), shown(seen[i]), k.range(raw, end), v.range(raw, end)));
    }
    return out.size() == 1 ? out[0] : at::cat(out, 2);
  }

  /// Focus tokens of an inline stream that are read out: each sees what the last base of its k-mer sees of the past, and its own k-mer.
  Tensor attend_focus() const {
    std::vector<Tensor> out;
    const WindowPlan& plan = rules_->plan();
    for (int64_t g = 0; g < static_cast<int64_t>(focus_rows_.size()); ++g) {
      const int64_t window = plan.window_of_kmer(g);
      const Span kmer = plan.kmer(window, g - plan.kmers_before(window));
      out.push_back(attend(focus_q_.narrow(2, g, 1), shown(rules_->visible(kmer.end - 1)), bases_.k.narrow(2, kmer.begin, kmer.size()),
                           bases_.v.narrow(2, kmer.begin, kmer.size())));
    }
    return at::cat(out, 2);
  }

  const HookContext& c_;
  SideStates* side_;
  const model::AttentionCall& call_;
  const LayerRules* rules_;
  const FocusUnit* unit_ = nullptr;
  const BaseTables* tables_ = nullptr;
  std::vector<int64_t> base_rows_, focus_rows_;
  int64_t num_bases_ = 0;
  Tensor positions_, base_positions_, focus_positions_, u_, focus_x_, focus_q_;
  nn::Projection bases_;
  Entries entries_;
  std::vector<Tensor> focus_updates_;
};

}  // namespace

Tensor MaskedHook::mix(const model::AttentionCall& call) {
  FOCUS_CHECK(call.state == nullptr, "the parallel execution keeps no state");
  return Pass(context_, side_.lock().get(), call).run();
}

bool MaskedHook::repeatable(int64_t block) const {
  // Side Focus tokens pass from layer to layer outside the call; inline ones are rows of it.
  const FocusUnit* unit = context_.adapter->unit(block);
  return unit == nullptr || !unit->updates_focus_state() || context_.inline_stream();
}

std::unique_ptr<cache::LayerState> MaskedHook::make_state(int64_t) {
  FOCUS_CHECK(false, "the parallel execution keeps no state");
  return nullptr;
}

}  // namespace focus::compress
