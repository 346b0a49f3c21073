#include "focus/core/error.h"
#include "focus/ops/attention.h"
#include "hooks.h"

namespace focus::compress {
namespace {

using at::Tensor;

const FullPolicy kKeepAll;

/// Attention of queries that are the last of the open keys, over the retained entries but the last `hidden` and the open keys.
Tensor attend(const Tensor& q, const EntryStore& retained, int64_t hidden, const Tensor& k, const Tensor& v) {
  Entries past = retained.read(q);
  if (hidden > 0) past = past.slice(0, past.size() - hidden);
  return ops::memory_attention(q, {past.k, past.v, past.beta}, k, v);
}

/// One call of one layer.
class Walk {
 public:
  Walk(const HookContext& context, SideStates& side, const model::AttentionCall& call, MemoryState& state)
      : c_(context), side_(side), call_(call), rules_(context.rules_of(call.block)), state_(state) {
    unit_ = rules_ != nullptr ? c_.adapter->unit(call.block) : nullptr;
    // Layers that Focus leaves alone keep everything.
    policy_ = c_.policy != nullptr ? c_.policy : rules_ == nullptr ? &kKeepAll : nullptr;
  }

  Tensor run() {
    const int64_t length = call_.u_BLD.size(1);
    positions_ = positions_of(call_);
    now_ = call_.attention.project(call_.u_BLD, positions_);
    int64_t row = 0, base = c_.first_base;
    while (row < length) {
      if (!c_.is_focus.empty() && c_.is_focus[static_cast<std::size_t>(row)]) {
        outputs_.push_back(focus_row(row, base));
        ++row;
        close_at(base);
        continue;
      }
      if (rules_ != nullptr && rules_->rolling()) evict_before(base);
      int64_t stop = rules_ != nullptr ? rules_->next_change(base) : c_.plan.next_close(base, false);
      // An inline stream pauses at every k-mer's end, where its Focus token follows.
      if (c_.inline_stream()) stop = std::min(stop, c_.plan.next_close(base, true));
      const int64_t count = std::min(stop - base, length - row);
      outputs_.push_back(bases(row, count));
      row += count;
      base += count;
      if (!focus_follows(base)) close_at(base);
    }
    return outputs_.size() == 1 ? outputs_[0] : at::cat(outputs_, 1);
  }

 private:
  bool ends_kmer(int64_t base) const {
    const int64_t window = c_.plan.window_of(base - 1), j = c_.plan.kmer_of(base - 1);
    return j >= 0 && c_.plan.kmer(window, j).end == base;
  }
  bool focus_follows(int64_t base) const { return c_.inline_stream() && ends_kmer(base); }

  Tensor bases(int64_t row, int64_t count) {
    const Tensor k = now_.k.narrow(2, row, count), v = now_.v.narrow(2, row, count), q = now_.q.narrow(2, row, count);
    const bool summarises = unit_ != nullptr, needs_q = summarises || (policy_ != nullptr && policy_->needs_queries());
    state_.append(k, v, needs_q ? q : Tensor(), summarises ? call_.u_BLD.narrow(1, row, count) : Tensor(),
                  positions_.narrow(0, row, count));
    return call_.attention.output(attend(q, state_.retained, state_.hidden, state_.k, state_.v));
  }

  /// The unread bases from `begin` on (`count` of them, counted among the unread ones) with the given k-mers, relative to `begin`.
  ClosedSpan span(int64_t begin, int64_t count, int64_t window, int64_t first_base, int64_t first_kmer, std::vector<Span> kmers) const {
    const int64_t read = state_.u.defined() ? state_.num_open() - state_.num_unread() : 0;
    const auto raw = [&](const Tensor& t, int64_t dim) { return t.narrow(dim, read + begin, count); };
    ClosedSpan out{.attention = call_.attention,
                   .pre_norm = call_.pre_norm,
                   .window = window,
                   .first_base = first_base,
                   .first_kmer = first_kmer,
                   .kmers = std::move(kmers),
                   .entries_per_kmer = rules_ != nullptr ? rules_->focus().entries_per_kmer : 1,
                   .positions = raw(state_.positions, 0),
                   .q = state_.q.defined() ? state_.q.narrow(2, begin, count) : Tensor(),
                   .k = raw(state_.k, 2),
                   .v = raw(state_.v, 2),
                   .u_BND = state_.u.defined() ? state_.u.narrow(1, begin, count) : Tensor(),
                   .focus_x = {},
                   .focus_positions = {}};
    return out;
  }

  /// Inline: the Focus token after base `base - 1`.
  Tensor focus_row(int64_t row, int64_t base) {
    if (unit_ == nullptr) {
      // An uncompressed layer: the Focus token is an ordinary token that sees and is seen.
      return bases(row, 1);
    }
    const WindowPlan& plan = rules_->plan();
    const int64_t window = plan.window_of(base - 1), j = plan.kmer_of(base - 1);
    const Span kmer = plan.kmer(window, j);
    FOCUS_CHECK(kmer.end == base, "Focus token away from its k-mer's end");
    const Tensor x = call_.x_BLD.narrow(1, row, 1);
    if (unit_->updates_focus_state()) {
      const bool sees_window = c_.config.focus.paper.focus_sees == FocusSees::window;
      const int64_t seen = base - (sees_window ? plan.window(window).begin : kmer.begin);
      ClosedSpan s =
          span(state_.num_unread() - seen, seen, window, base - seen, plan.kmers_before(window) + j, {{seen - kmer.size(), seen}});
      s.focus_x = x;
      s.focus_positions = positions_.narrow(0, row, 1);
      const Summary summary = unit_->summarise(s, state_.retained.read(s.k));
      if (rules_->focus().history != History::none) state_.retained.append(summary.entries);
      return summary.focus_x - x;
    }
    state_.focus_x.push_back(x);
    const Tensor q = now_.q.narrow(2, row, 1);
    // It sees its own k-mer and the past, none of them after it: no causal mask is needed.
    const int64_t begin = state_.num_open() - kmer.size();
    const Tensor k = state_.k.narrow(2, begin, kmer.size()), v = state_.v.narrow(2, begin, kmer.size());
    return call_.attention.output(attend(q, state_.retained, state_.hidden, k, v));
  }

  /// Rolling eviction: k-mers whose first base is W bases old when `base` comes.
  void evict_before(int64_t base) {
    for (;;) {
      const int64_t begin = base - state_.num_open(), keep_from = rules_->visible(base).raw_begin;
      if (begin >= keep_from) return;
      const Span oldest = rules_->atom(begin);
      const int64_t window = rules_->plan().window_of(begin), j = rules_->plan().kmer_of(begin);
      const int64_t kmer = rules_->plan().kmers_before(window) + j;
      if (j >= 0 && kmer >= rules_->sink_kmers() && makes_entries()) {
        // Its reference queries are those of all raw bases; a Focus query has no use for later bases.
        const int64_t count = unit_->updates_focus_state() ? oldest.size() : state_.num_open();
        state_.retained.append(summarise(span(0, count, window, begin, kmer, {{0, oldest.size()}})));
      } else if (j >= 0) {
        if (kmer < rules_->sink_kmers()) state_.retained.append(raw_sinks(oldest.size(), window, begin));
        if (!state_.focus_x.empty()) state_.focus_x.erase(state_.focus_x.begin());
      }
      const int64_t left = state_.num_open() - oldest.size();
      state_.keep_open(left, left);
    }
  }

  /// The first `count` open bases as entries.
  Entries raw_sinks(int64_t count, int64_t window, int64_t first_base) const {
    Entries out = raw_entries(state_.k, state_.v, 0, count, window, first_base);
    if (rules_->focus().bias) add_zero_beta(out);
    return out;
  }

  bool makes_entries() const { return rules_->focus().history != History::none && !rules_->made_in_stream(); }

  void close_at(int64_t base) {
    if (policy_ != nullptr) {
      const int64_t window = c_.plan.window_of(base - 1);
      if (base != c_.plan.window(window).end || state_.num_open() == 0) return;
      const int64_t first = c_.plan.window(window).begin;
      policy_->close(span(0, state_.num_open(), window, first, c_.plan.kmers_before(window), c_.plan.kmers(window)), state_.retained);
      state_.drop_open();
      return;
    }
    if (rules_->rolling()) return;
    const WindowPlan& plan = rules_->plan();
    const int64_t own_window = plan.window_of(base - 1), j = plan.kmer_of(base - 1);
    const bool window_ends = base == plan.window(own_window).end;
    if (rules_->by_kmer()) {
      if (j >= 0 && base == plan.kmer(own_window, j).end) {
        if (makes_entries()) {
          const int64_t count = state_.num_open();
          state_.retained.append(summarise(span(0, count, own_window, base - count, plan.kmers_before(own_window) + j, {{0, count}})));
        }
        state_.drop_open();
      }
    } else if (window_ends) {
      close_window(own_window);
    }
    if (window_ends) {
      if (rules_->by_kmer()) state_.drop_open();
      forget(own_window);
    }
  }

  void close_window(int64_t window) {
    const WindowPlan& plan = rules_->plan();
    const Span bases = plan.window(window);
    const int64_t tail_begin = rules_->tail_begin(window + 1), tail = bases.end - tail_begin;
    const int64_t sinks = window == 0 ? rules_->sink_kmers() : 0;
    Entries made;
    if (sinks > 0) made = raw_sinks(rules_->sink_bases(), window, bases.begin);
    const int64_t count = plan.num_kmers(window) - sinks;
    if (makes_entries() && count > 0) {
      std::vector<Span> kmers = plan.kmers(window);
      kmers.erase(kmers.begin(), kmers.begin() + sinks);
      if (sinks > 0 && !state_.focus_x.empty()) state_.focus_x.erase(state_.focus_x.begin(), state_.focus_x.begin() + sinks);
      made.append(summarise(span(0, bases.size(), window, bases.begin, plan.kmers_before(window) + sinks, std::move(kmers))));
    }
    // Entries of bases that stay raw in the tail wait until it goes.
    const int64_t shown = rules_->entry_index(plan.kmers_completed(tail_begin)) - rules_->entry_index(plan.kmers_before(window));
    state_.retained.append(made);
    state_.hidden = std::max<int64_t>(made.size() - shown, 0);
    state_.focus_x.clear();
    state_.keep_open(tail, 0);
  }

  /// The entries of the span's k-mers; all entries made before are what its Focus queries may see.
  Entries summarise(ClosedSpan s) {
    const auto count = static_cast<int64_t>(s.kmers.size());
    if (unit_->updates_focus_state()) {
      s.focus_x = side_.get(s.first_kmer, count, c_.adapter->embedding, s.u_BND);
      s.focus_positions = last_positions(s);
    } else if (!state_.focus_x.empty()) {
      s.focus_x = at::cat(std::vector<Tensor>(state_.focus_x.begin(), state_.focus_x.begin() + count), 1);
      state_.focus_x.erase(state_.focus_x.begin(), state_.focus_x.begin() + count);
    }
    Summary summary = unit_->summarise(s, state_.retained.read(s.k));
    if (summary.focus_x.defined()) side_.set(s.first_kmer, summary.focus_x);
    return std::move(summary.entries);
  }

  /// What the history rule drops when a window ends.
  void forget(int64_t window) {
    if (rules_->focus().history != History::window) return;
    EntryStore& kept = state_.retained;
    const Span last = rules_->plan().kmer(window, rules_->plan().num_kmers(window) - 1);
    const bool boundary = !kept.empty() && kept.origin().back().window == window;
    kept.keep(boundary ? kept.size() - rules_->entries_of(last) : kept.size(), kept.size());
  }

  const HookContext& c_;
  SideStates& side_;
  const model::AttentionCall& call_;
  const LayerRules* rules_;
  const FocusUnit* unit_ = nullptr;
  const RetentionPolicy* policy_ = nullptr;
  MemoryState& state_;
  Tensor positions_;
  nn::Projection now_;
  std::vector<Tensor> outputs_;
};

}  // namespace

Tensor positions_of(const model::AttentionCall& call) {
  return at::arange(call.position, call.position + call.u_BLD.size(1), at::TensorOptions().dtype(at::kLong).device(call.u_BLD.device()));
}

Tensor last_positions(const ClosedSpan& span) {
  std::vector<int64_t> ends;
  for (const Span& kmer : span.kmers) ends.push_back(kmer.end - 1);
  return span.positions.index_select(0, at::tensor(ends, at::kLong).to(span.positions.device()));
}

Tensor SideStates::get(int64_t first_kmer, int64_t count, const Tensor& embedding, const Tensor& like_BND) {
  const auto found = states_.find(first_kmer);
  if (found != states_.end()) return found->second.to(like_BND.device());
  return embedding.to(like_BND.device(), like_BND.scalar_type()).expand({like_BND.size(0), count, embedding.size(0)});
}

Tensor StreamHook::mix(const model::AttentionCall& call) {
  auto* state = dynamic_cast<MemoryState*>(call.state);
  FOCUS_CHECK(state != nullptr, "block ", call.block, " needs a stream of this compressed model");
  const LayerRules* rules = context_.rules_of(call.block);
  const BaseTables* tables = rules != nullptr ? context_.adapter->tables(call.block) : nullptr;
  if (tables != nullptr) return stream_letters(context_, *rules, *tables, *state, call);
  return Walk(context_, side_, call, *state).run();
}

std::unique_ptr<cache::LayerState> StreamHook::make_state(int64_t) { return std::make_unique<MemoryState>(context_.storage()); }

}  // namespace focus::compress
