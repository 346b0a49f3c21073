// The parallel execution: all entries of the sequence are made first, then each window's bases attend to their own window and, through a
// mask computed from the plan's integers alone, to the entries that a stream would still hold.
#include "focus/core/error.h"
#include "focus/ops/attention.h"
#include "focus/ops/shared_heads.h"
#include "hooks.h"

namespace focus::compress {
namespace {

using at::Tensor;

Tensor index_tensor(const std::vector<int64_t>& values, const at::Device& device) { return at::tensor(values, at::kLong).to(device); }

class Pass {
 public:
  Pass(const HookContext& context, SideStates& side, const model::AttentionCall& call)
      : c_(context), side_(side), call_(call), unit_(context.unit(call.block)) {}

  Tensor run() {
    const int64_t length = call_.u_BLD.size(1);
    const auto device = call_.u_BLD.device();
    positions_ = at::arange(call_.position, call_.position + length, at::TensorOptions().dtype(at::kLong).device(device));
    const nn::Projection all = call_.attention.project(call_.u_BLD, positions_);
    if (unit_ == nullptr) return call_.attention.output(causal(all.q, all.k, all.v));

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
    std::vector<Tensor> base_context, focus_context;
    for (int64_t first = 0; first < num_bases_;) {
      const int64_t window = c_.plan.window_of(first), end = std::min(c_.plan.window(window).end, num_bases_);
      attend_window(window, first, end, base_context, focus_context);
      first = end;
    }
    Tensor out = call_.attention.output(at::cat(base_context, 2));
    if (!mixed) return out;
    const Tensor focus_out = unit_->updates_focus_state() ? at::cat(focus_updates_, 1) : call_.attention.output(at::cat(focus_context, 2));
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
            .positions = base_positions_.narrow(0, begin, end - begin),
            .q = bases_.q.narrow(2, begin, end - begin),
            .k = bases_.k.narrow(2, begin, end - begin),
            .v = bases_.v.narrow(2, begin, end - begin),
            .u_BND = u_.narrow(1, begin, end - begin),
            .focus_x = {},
            .focus_positions = {}};
  }

  /// Entries that Focus queries of k-mers from `first_kmer` on, in this window, may see; all earlier ones exist already.
  Entries history_of(int64_t window, int64_t first_kmer) const {
    if (c_.history() == History::none || entries_.empty()) return {};
    const int64_t own = c_.plan.kmers_before(window);
    const int64_t end = c_.sees_open_entries() ? first_kmer : own;
    const int64_t begin = c_.history() == History::all ? 0 : std::max<int64_t>(own - 1, 0);
    return begin < end ? entries_.slice(begin, end) : Entries{};
  }

  void make_entries() {
    const bool keep_entries = c_.history() != History::none;
    const bool paper = unit_->updates_focus_state();
    if (c_.inline_stream() && paper) {
      for (std::size_t g = 0; g < focus_rows_.size(); ++g) {
        const auto [window, j] = kmer_index(static_cast<int64_t>(g));
        const Span kmer = c_.plan.kmer(window, j);
        const int64_t begin = c_.config.focus.paper.focus_sees == FocusSees::window ? c_.plan.window(window).begin : kmer.begin;
        ClosedSpan s = span(begin, kmer.end, window, static_cast<int64_t>(g), {{kmer.begin - begin, kmer.end - begin}});
        s.focus_x = focus_x_.narrow(1, static_cast<int64_t>(g), 1);
        s.focus_positions = focus_positions_.narrow(0, static_cast<int64_t>(g), 1);
        const Summary summary = unit_->summarise(s, history_of(window, s.first_kmer));
        focus_updates_.push_back(summary.focus_x - s.focus_x);
        if (keep_entries) entries_.append(rounded(summary.entries, c_.storage()));
      }
      return;
    }
    if (!keep_entries) return;
    const auto close = [&](int64_t begin, int64_t end, int64_t window, int64_t first_kmer, std::vector<Span> kmers) {
      ClosedSpan s = span(begin, end, window, first_kmer, std::move(kmers));
      const auto count = static_cast<int64_t>(s.kmers.size());
      if (paper) {
        s.focus_x = side_.get(first_kmer, count, c_.adapter->embedding, s.u_BND);
        std::vector<int64_t> ends;
        for (const Span& kmer : s.kmers) ends.push_back(kmer.end - 1);
        s.focus_positions = s.positions.index_select(0, index_tensor(ends, s.positions.device()));
      } else if (focus_x_.defined()) {
        s.focus_x = focus_x_.narrow(1, first_kmer, count);
      }
      const Summary summary = unit_->summarise(s, history_of(window, first_kmer));
      if (summary.focus_x.defined()) side_.set(first_kmer, summary.focus_x);
      entries_.append(rounded(summary.entries, c_.storage()));
    };
    for (int64_t window = 0; c_.plan.window(window).begin < num_bases_; ++window) {
      const Span w = c_.plan.window(window);
      const int64_t first = c_.plan.kmers_before(window);
      if (!c_.by_kmer()) {
        if (w.end <= num_bases_) close(w.begin, w.end, window, first, c_.plan.kmers(window));
        continue;
      }
      for (int64_t j = 0; j < c_.plan.num_kmers(window); ++j) {
        const Span kmer = c_.plan.kmer(window, j);
        if (kmer.end <= num_bases_) close(kmer.begin, kmer.end, window, first + j, {{0, kmer.size()}});
      }
    }
  }

  std::pair<int64_t, int64_t> kmer_index(int64_t global) const {
    int64_t window = 0;
    while (c_.plan.kmers_before(window + 1) <= global) ++window;
    return {window, global - c_.plan.kmers_before(window)};
  }

  /// The rule of spec section 4 for entry `e` (by its origin) and a query at base t.
  bool sees_entry(const EntryOrigin& e, int64_t t) const {
    const int64_t window = c_.plan.window_of(t);
    if (c_.plan.kmer(e.window, e.index - c_.plan.kmers_before(e.window)).end > t) return false;
    if (e.window == window) return c_.sees_open_entries();
    return c_.history() == History::all || (e.window == window - 1 && e.index == c_.plan.kmers_before(window) - 1);
  }
  bool sees_base(int64_t u, int64_t t) const { return u <= t && (!c_.by_kmer() || c_.plan.kmer_of(u) == c_.plan.kmer_of(t)); }

  void attend_window(int64_t window, int64_t first, int64_t end, std::vector<Tensor>& base_context,
                     std::vector<Tensor>& focus_context) const {
    const int64_t count = end - first;
    const Tensor k = bases_.k.narrow(2, first, count), v = bases_.v.narrow(2, first, count), q = bases_.q.narrow(2, first, count);
    // Candidates: entries of earlier windows, and this window's own where they are shown.
    const int64_t known = std::min(entries_.size(), c_.plan.kmers_before(c_.sees_open_entries() ? window + 1 : window));
    const int64_t oldest = c_.history() == History::window ? std::min(known, std::max<int64_t>(c_.plan.kmers_before(window) - 1, 0)) : 0;
    const Entries candidates = known > oldest ? entries_.slice(oldest, known) : Entries{};
    std::vector<int64_t> focus_of_window;
    if (!focus_rows_.empty() && !unit_->updates_focus_state()) {
      const auto total = static_cast<int64_t>(focus_rows_.size());
      for (int64_t g = c_.plan.kmers_before(window); g < std::min(total, c_.plan.kmers_before(window + 1)); ++g)
        focus_of_window.push_back(g);
    }
    if (candidates.empty() && !c_.by_kmer()) {
      base_context.push_back(causal(q, k, v));
    } else {
      const Tensor mask = build_mask(
          count, candidates, first, count, [&](int64_t i) { return first + i; }, [&](int64_t u, int64_t t) { return sees_base(u, t); });
      base_context.push_back(attend(q, k, v, candidates, mask));
    }
    if (!focus_of_window.empty()) {
      const auto last_base = [&](int64_t i) {
        const int64_t g = focus_of_window[static_cast<std::size_t>(i)];
        return c_.plan.kmer(window, g - c_.plan.kmers_before(window)).end - 1;
      };
      const auto num = static_cast<int64_t>(focus_of_window.size());
      const Tensor mask = build_mask(num, candidates, first, count, last_base,
                                     [&](int64_t u, int64_t t) { return u <= t && c_.plan.kmer_of(u) == c_.plan.kmer_of(t); });
      focus_context.push_back(attend(focus_q_.narrow(2, focus_of_window.front(), num), k, v, candidates, mask));
    }
  }

  /// [queries, candidates + bases], true where visible.
  template <class BaseOf, class SeesBase>
  Tensor build_mask(int64_t queries, const Entries& candidates, int64_t first, int64_t count, const BaseOf& base_of,
                    const SeesBase& sees) const {
    const int64_t columns = candidates.size() + count;
    Tensor mask = at::empty({queries, columns}, at::kBool);
    bool* cell = mask.mutable_data_ptr<bool>();
    for (int64_t i = 0; i < queries; ++i) {
      const int64_t t = base_of(i);
      for (const EntryOrigin& e : candidates.origin) *cell++ = sees_entry(e, t);
      for (int64_t u = first; u < first + count; ++u) *cell++ = sees(u, t);
    }
    return mask.to(call_.u_BLD.device());
  }

  static Tensor causal(const Tensor& q, const Tensor& k, const Tensor& v) {
    return ops::causal_attention(q, ops::shared_heads(k, q.size(1)), ops::shared_heads(v, q.size(1)));
  }
  static Tensor attend(const Tensor& q, const Tensor& k, const Tensor& v, const Entries& past, const Tensor& mask) {
    const int64_t heads = q.size(1);
    const auto options = q.options().dtype(q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
    Tensor bias = at::zeros(mask.sizes(), options).masked_fill_(mask.logical_not(), -std::numeric_limits<double>::infinity());
    if (past.empty()) return ops::attention(q, ops::shared_heads(k, heads), ops::shared_heads(v, heads), bias);
    if (past.beta.defined()) {
      const Tensor beta = at::constant_pad_nd(past.beta, {0, k.size(2)}).unsqueeze(2);  // [B, G, 1, S]
      bias = ops::shared_heads(beta, heads) + bias;
    }
    return ops::attention(q, ops::shared_heads(at::cat({past.k, k}, 2), heads), ops::shared_heads(at::cat({past.v, v}, 2), heads), bias);
  }

  const HookContext& c_;
  SideStates& side_;
  const model::AttentionCall& call_;
  const FocusUnit* unit_;
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
  return Pass(context_, side_, call).run();
}

std::unique_ptr<cache::LayerState> MaskedHook::make_state(int64_t) {
  FOCUS_CHECK(false, "the parallel execution keeps no state");
  return nullptr;
}

}  // namespace focus::compress
