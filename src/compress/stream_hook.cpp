#include "focus/core/error.h"
#include "focus/ops/attention.h"
#include "hooks.h"

namespace focus::compress {
namespace {

using at::Tensor;

const FullPolicy kKeepAll;

/// Attention of queries that are the last of the open keys, over the retained entries and the open keys.
Tensor attend(const Tensor& q, const EntryStore& retained, const Tensor& k, const Tensor& v) {
  const Entries past = retained.read(q);
  return ops::memory_attention(q, {past.k, past.v, past.beta}, k, v);
}

/// One call of one layer.
class Walk {
 public:
  Walk(const HookContext& context, SideStates& side, const model::AttentionCall& call)
      : c_(context), side_(side), call_(call), unit_(context.unit(call.block)), state_(*dynamic_cast<MemoryState*>(call.state)) {
    // Layers that the adapter leaves alone keep everything.
    policy_ = c_.policy != nullptr ? c_.policy : unit_ == nullptr ? &kKeepAll : nullptr;
    by_kmer_ = unit_ != nullptr && c_.by_kmer();
  }

  Tensor run() {
    const int64_t length = call_.u_BLD.size(1);
    positions_ = at::arange(call_.position, call_.position + length, at::TensorOptions().dtype(at::kLong).device(call_.u_BLD.device()));
    now_ = call_.attention.project(call_.u_BLD, positions_);
    int64_t row = 0, base = c_.first_base;
    while (row < length) {
      if (!c_.is_focus.empty() && c_.is_focus[static_cast<std::size_t>(row)]) {
        outputs_.push_back(focus_row(row, base));
        ++row;
        close_at(base);
        continue;
      }
      // An inline stream pauses at every k-mer's end, where its Focus token follows.
      const int64_t stop = c_.plan.next_close(base, by_kmer_ || c_.inline_stream());
      const int64_t count = std::min(stop - base, length - row);
      outputs_.push_back(bases(row, count));
      row += count;
      base += count;
      const bool focus_follows = c_.inline_stream() && c_.plan.kmer_of(base - 1) >= 0;
      if (base == stop && !focus_follows) close_at(base);
    }
    return outputs_.size() == 1 ? outputs_[0] : at::cat(outputs_, 1);
  }

 private:
  Tensor bases(int64_t row, int64_t count) {
    const Tensor k = now_.k.narrow(2, row, count), v = now_.v.narrow(2, row, count), q = now_.q.narrow(2, row, count);
    const bool summarises = unit_ != nullptr, needs_q = summarises || policy_->needs_queries();
    state_.append(k, v, needs_q ? q : Tensor(), summarises ? call_.u_BLD.narrow(1, row, count) : Tensor(),
                  positions_.narrow(0, row, count));
    return call_.attention.output(attend(q, state_.retained, state_.k, state_.v));
  }

  /// The span [begin, num_open) of the open bases with the given k-mers (relative to it).
  ClosedSpan span(int64_t begin, int64_t window, int64_t first_base, int64_t first_kmer, std::vector<Span> kmers) const {
    const int64_t count = state_.num_open() - begin;
    const auto part = [&](const Tensor& t, int64_t dim) { return t.defined() ? t.narrow(dim, begin, count) : t; };
    ClosedSpan out{.attention = call_.attention,
                   .pre_norm = call_.pre_norm,
                   .window = window,
                   .first_base = first_base,
                   .first_kmer = first_kmer,
                   .kmers = std::move(kmers),
                   .positions = part(state_.positions, 0),
                   .q = part(state_.q, 2),
                   .k = part(state_.k, 2),
                   .v = part(state_.v, 2),
                   .u_BND = part(state_.u, 1),
                   .focus_x = {},
                   .focus_positions = {}};
    return out;
  }

  /// Inline: the Focus token after base `base - 1`.
  Tensor focus_row(int64_t row, int64_t base) {
    const int64_t window = c_.plan.window_of(base - 1), j = c_.plan.kmer_of(base - 1);
    const Span kmer = c_.plan.kmer(window, j);
    FOCUS_CHECK(kmer.end == base, "Focus token away from its k-mer's end");
    const Tensor x = call_.x_BLD.narrow(1, row, 1);
    if (unit_ == nullptr) {
      // An uncompressed layer: the Focus token is an ordinary token that sees and is seen.
      return bases(row, 1);
    }
    if (unit_->updates_focus_state()) {
      const bool sees_window = c_.config.focus.paper.focus_sees == FocusSees::window;
      const int64_t open = state_.num_open(), begin = sees_window ? 0 : open - kmer.size();
      ClosedSpan s =
          span(begin, window, base - (open - begin), c_.plan.kmers_before(window) + j, {{open - begin - kmer.size(), open - begin}});
      s.focus_x = x;
      s.focus_positions = positions_.narrow(0, row, 1);
      const Summary summary = unit_->summarise(s, state_.retained.read(s.k));
      if (c_.history() != History::none) state_.retained.append(summary.entries);
      return summary.focus_x - x;
    }
    state_.focus_x.push_back(x);
    const int64_t open = state_.num_open(), begin = open - kmer.size();
    const Tensor q = now_.q.narrow(2, row, 1);
    // It sees its own k-mer and the past, none of them after it: no causal mask is needed.
    const Tensor k = state_.k.narrow(2, begin, kmer.size()), v = state_.v.narrow(2, begin, kmer.size());
    return call_.attention.output(attend(q, state_.retained, k, v));
  }

  void close_at(int64_t base) {
    const int64_t window = c_.plan.window_of(base - 1);
    const bool window_ends = base == c_.plan.window(window).end;
    const int64_t j = c_.plan.kmer_of(base - 1);
    const bool kmer_ends = j >= 0 && base == c_.plan.kmer(window, j).end;
    if (policy_ != nullptr) {
      if (!window_ends || state_.num_open() == 0) return;
      const int64_t first = c_.plan.window(window).begin;
      policy_->close(span(0, window, first, c_.plan.kmers_before(window), c_.plan.kmers(window)), state_.retained);
      state_.drop_open();
      return;
    }
    if (by_kmer_ ? kmer_ends : window_ends) summarise(window, by_kmer_ ? j : -1);
    if (by_kmer_ && kmer_ends) state_.drop_open();
    if (window_ends) {
      state_.drop_open();
      forget(window);
    }
  }

  /// Entries of k-mer j, or of all k-mers of the window (j = -1), unless the Focus rows have made them already.
  void summarise(int64_t window, int64_t j) {
    if (c_.history() == History::none) return;
    if (c_.inline_stream() && unit_->updates_focus_state()) return;
    const bool all = j < 0;
    std::vector<Span> kmers = all ? c_.plan.kmers(window) : std::vector<Span>{{0, state_.num_open()}};
    const int64_t first_kmer = c_.plan.kmers_before(window) + (all ? 0 : j);
    const auto count = static_cast<int64_t>(kmers.size());
    const int64_t first_base = all ? c_.plan.window(window).begin : c_.plan.kmer(window, j).begin;
    ClosedSpan s = span(0, window, first_base, first_kmer, std::move(kmers));
    if (unit_->updates_focus_state()) {
      s.focus_x = side_.get(first_kmer, count, c_.adapter->embedding, s.u_BND);
      std::vector<int64_t> ends;
      for (const Span& kmer : s.kmers) ends.push_back(kmer.end - 1);
      s.focus_positions = s.positions.index_select(0, at::tensor(ends).to(s.positions.device()));
    } else if (!state_.focus_x.empty()) {
      s.focus_x = at::cat(state_.focus_x, 1);
    }
    const Summary summary = unit_->summarise(s, state_.retained.read(s.k));
    if (summary.focus_x.defined()) side_.set(first_kmer, summary.focus_x);
    state_.retained.append(summary.entries);
    state_.focus_x.clear();
  }

  /// What the history rule drops when a window ends.
  void forget(int64_t window) {
    if (c_.history() == History::all) return;
    EntryStore& kept = state_.retained;
    const bool boundary = c_.history() == History::window && !kept.empty() && kept.origin().back().window == window;
    kept.keep(boundary ? kept.size() - 1 : kept.size(), kept.size());
  }

  const HookContext& c_;
  SideStates& side_;
  const model::AttentionCall& call_;
  const FocusUnit* unit_;
  const RetentionPolicy* policy_ = nullptr;
  MemoryState& state_;
  bool by_kmer_ = false;
  Tensor positions_;
  nn::Projection now_;
  std::vector<Tensor> outputs_;
};

}  // namespace

Tensor SideStates::get(int64_t first_kmer, int64_t count, const Tensor& embedding, const Tensor& like_BND) {
  const auto found = states_.find(first_kmer);
  if (found != states_.end()) return found->second.to(like_BND.device());
  return embedding.to(like_BND.device(), like_BND.scalar_type()).expand({like_BND.size(0), count, embedding.size(0)});
}

Tensor StreamHook::mix(const model::AttentionCall& call) {
  FOCUS_CHECK(dynamic_cast<MemoryState*>(call.state) != nullptr, "block ", call.block, " needs a stream of this compressed model");
  return Walk(context_, side_, call).run();
}

std::unique_ptr<cache::LayerState> StreamHook::make_state(int64_t) { return std::make_unique<MemoryState>(context_.storage()); }

}  // namespace focus::compress
