#include "policy_memory.h"

#include <algorithm>

#include "call_walk.h"
#include "far_layer.h"
#include "focus/core/error.h"
#include "focus/ops/attention.h"
#include "window_recompute.h"

namespace focus::compress {

namespace {

using at::Tensor;

StorageFormat format_of(const RetentionPolicy& policy, const StorageConfig& configured) {
  StorageFormat format = configured;
  if (policy.bits == 0) return format;
  if (configured.dtype != StorageType::model)
    fail<ConfigError>("storage.dtype has no effect with retention policy '", policy.name,
                      "', which is a way of storing itself");
  format.bits = policy.bits;
  format.key_group = policy.key_group;
  return format;
}

}  // namespace

class PolicyMemory::Walk final : public CallWalk {
 public:
  Walk(const PolicyMemory& memory, const model::AttentionCall& layer, const ModelCall& call)
      : CallWalk(layer, call, memory.plan_, memory.inline_stream_),
        memory_(memory),
        state_(state_of<EntriesState>(layer)) {}

 private:
  int64_t next_change(int64_t base) const override { return plan_.next_close(base, /*by_kmer=*/false); }
  Tensor bases(int64_t row, int64_t base, int64_t count) override {
    const auto rows = [&](const Tensor& t) { return t.narrow(2, row, count); };
    const Tensor q = rows(now_.q);
    state_.open.append(rows(now_.k), rows(now_.v), memory_.policy_.needs_queries ? q : Tensor(), {},
                       positions_.narrow(0, row, count), state_.stretch);
    const ops::Memory past = state_.retained.memory(q);
    const OpenBases::Shown open = state_.open.shown(state_.stretch);
    return layer_.attention.output(
        call_.far_layer == nullptr
            ? attend(q, past, open)
            : call_.far_layer->attend(base, far_view(base, past.size()), past, {q, open.k, open.v}));
  }
  Tensor focus_token(int64_t row, int64_t base) override { return bases(row, base, 1); }
  void end(int64_t base) override {
    const int64_t window = plan_.window_of(base - 1), begin = plan_.window(window).begin;
    if (base != plan_.window(window).end || state_.open.size() == 0) return;
    const Span all{begin, begin + state_.open.size()};
    const OpenBases& open = state_.open;
    const LayerBases raw{layer_.attention, layer_.pre_norm, all.end, open.q(),
                         open.k(),         open.v(),        {},      open.positions()};
    const Kmers kmers = memory_.kmers_->get(plan_.kmers(window));
    const ClosedSpan closing = raw.span(all, all.size(), window, plan_.kmers_before(window), kmers);
    memory_.policy_.close(closing, memory_.budget_, state_.retained);
    if (call_.far_layer != nullptr) call_.far_layer->take(begin, open.k(), open.v());
    state_.open.clear();
  }

  /// Entries are bases in ascending order; the gate hides none of them.
  FarView far_view(int64_t base, int64_t num_entries) const {
    return {.raw_begin = plan_.window(plan_.window_of(base)).begin,
            .first_kmer = 0,
            .summaries = {num_entries, num_entries},
            .entries_of = [this](int64_t kmer) {
              const int64_t window = plan_.window_of_kmer(kmer);
              const Span bases = plan_.kmer(window, kmer - plan_.kmers_before(window));
              const std::vector<EntryOrigin>& origin = state_.retained.origin();
              const auto first_from = [&](int64_t index) {
                return std::partition_point(origin.begin(), origin.end(),
                                            [&](const EntryOrigin& e) { return e.index < index; }) -
                       origin.begin();
              };
              return Span{first_from(bases.begin), first_from(bases.end)};
            }};
  }

  const PolicyMemory& memory_;
  EntriesState& state_;
};

PolicyMemory::PolicyMemory(const model::Backbone& backbone, const MemoryConfig& config, const Budget& budget,
                           const RetentionPolicy& policy, bool inline_stream)
    : plan_(config.window, config.focus.k),
      policy_(policy),
      inline_stream_(inline_stream),
      format_(format_of(policy, config.storage)),
      budget_(budget),
      shape_(backbone.shape()),
      dtype_(backbone.dtype()) {}

Tensor PolicyMemory::stream(const model::AttentionCall& layer, ModelCall& call) const {
  return Walk(*this, layer, call).run();
}

Tensor PolicyMemory::parallel(const model::AttentionCall& layer, ModelCall& call) const {
  if (policy_.keeps != Keeps::everything) return LayerMemory::parallel(layer, call);
  const nn::Projection all = layer.attention.project(layer.u_BLD, positions_of(layer));
  if (format_ == StorageFormat{}) return layer.attention.output(ops::causal_attention(all.q, all.k, all.v));
  // Each window sees the closed ones as they are stored.
  const int64_t length = layer.u_BLD.size(1);
  const auto token = [&](int64_t base) {
    return std::min(base + (inline_stream_ ? plan_.kmers_completed(base) : 0), length);
  };
  std::vector<Span> windows;
  for (int64_t window = 0; token(plan_.window(window).begin) < length; ++window)
    windows.push_back({token(plan_.window(window).begin), token(plan_.window(window).end)});
  EntryStore codes(format_);
  for (std::size_t w = 0; format_.bits > 0 && w + 1 < windows.size(); ++w) {
    Entries closed = raw_entries(all.k, all.v, windows[w].begin, windows[w].end, 0, 0);
    if (policy_.bits > 0) closed.detach();
    codes.append(closed);
  }
  const ops::MemoryPart in_codes = codes.memory(all.k);
  std::vector<Tensor> outputs;
  for (const Span& window : windows) {
    const auto rows = [&](const Tensor& t) { return t.narrow(2, window.begin, window.size()); };
    const ops::MemoryPart past =
        format_.bits > 0 ? in_codes.narrow(0, window.begin)
                         : rounded(raw_entries(all.k, all.v, 0, window.begin, 0, 0), format_).memory();
    outputs.push_back(attend(rows(all.q), past, rows(all.k), rows(all.v), call.recompute));
  }
  return layer.attention.output(at::cat(outputs, 2));
}

std::optional<int64_t> PolicyMemory::first_raw(int64_t num_bases) const {
  const bool is_bases =
      policy_.keeps == Keeps::nothing || (policy_.keeps == Keeps::budget && policy_.bits > 0);
  if (!is_bases || inline_stream_) return std::nullopt;
  return plan_.window(plan_.window_of(num_bases)).begin;
}

int64_t PolicyMemory::steady_bases(int64_t base) const {
  if (inline_stream_ || format_.device == StorageDevice::host) return 0;
  return plan_.next_close(base, /*by_kmer=*/false) - 1 - base;
}

MemoryUse PolicyMemory::planned(int64_t num_bases) const {
  const int64_t window = num_bases > 0 ? plan_.window_of(num_bases - 1) : 0;
  const int64_t closed = num_bases == plan_.window(window).end ? window + 1 : window,
                open = num_bases - (closed > 0 ? plan_.window(closed - 1).end : 0);
  const int64_t open_focus =
      inline_stream_ ? plan_.kmers_completed(num_bases) - plan_.kmers_before(closed) : 0;
  const auto element = static_cast<int64_t>(at::elementSize(dtype_));
  const int64_t token_bytes =
      bytes_per_entry(1, shape_.num_kv_heads, shape_.head_dim, dtype_, /*with_beta=*/false) +
      static_cast<int64_t>(sizeof(int64_t)) +
      (policy_.needs_queries ? shape_.num_heads * shape_.head_dim * element : 0);
  MemoryUse use;
  use.open_bytes = (open + open_focus) * token_bytes;
  if (policy_.keeps == Keeps::budget && closed > 0) {
    use.entries = plan_.kmers_before(closed);
    use.retained_bytes = budget_.bytes_after(closed - 1);
  }
  if (policy_.keeps == Keeps::everything) {
    use.entries = num_bases - open + (inline_stream_ ? plan_.kmers_before(closed) : 0);
    int64_t groups = 0;
    for (int64_t w = 0; format_.key_group > 0 && w < std::min<int64_t>(closed, 2);
         ++w) {  // the later are alike
      const int64_t tokens = plan_.window(w).size() + (inline_stream_ ? plan_.num_kmers(w) : 0);
      groups += (w == 0 ? 1 : closed - 1) * ((tokens + format_.key_group - 1) / format_.key_group);
    }
    use.retained_bytes =
        use.entries * format_.entry_bytes(shape_.num_kv_heads, shape_.head_dim, dtype_, /*with_beta=*/false) +
        groups * StorageFormat::group_bytes(shape_.num_kv_heads, shape_.head_dim);
  }
  return use;
}

}  // namespace focus::compress
