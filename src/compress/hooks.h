// The two attention hooks of a compressed model, and the visibility rules they share.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "focus/compress/compressed_model.h"
#include "focus/compress/layer_rules.h"

namespace focus::compress {

/// What both hooks need to know about the model and about the tokens of the running call.
struct HookContext {
  const WindowPlan& plan;
  const MemoryConfig& config;
  const std::map<int64_t, LayerRules>& rules;  // of the blocks that Focus compresses
  const FocusAdapter* adapter = nullptr;       // Focus
  const RetentionPolicy* policy = nullptr;     // rivals
  int64_t first_base = 0;                      // of the call
  std::vector<bool> is_focus;                  // inline: per token of the call; empty = bases only
  at::Tensor codes;                            // tables: uint8 [B, L] letters of the call
  bool recompute = false;                      // parallel: run each window's attention and fit again for the gradient

  StorageFormat storage() const { return policy != nullptr ? policy->storage(config.storage) : StorageFormat(config.storage); }
  bool inline_stream() const { return adapter != nullptr && config.focus.stream == Stream::inline_tokens; }
  /// nullptr where Focus compresses nothing: another policy does, or the layer keeps everything.
  const LayerRules* rules_of(int64_t block) const {
    const auto found = rules.find(block);
    return found == rules.end() ? nullptr : &found->second;
  }
};

/// [T] rotary positions of a call's tokens, on their device.
at::Tensor positions_of(const model::AttentionCall& call);

/// [kmers] rotary positions of the last base of each of a span's k-mers: where side Focus tokens stand.
at::Tensor last_positions(const ClosedSpan& span);

/// Focus states of the side stream during one call: they pass from layer to layer beside the bases. All layers of a unit that has such
/// states close the same k-mers together.
class SideStates {
 public:
  /// [B, m, D] of the k-mers from first_kmer on: as the last layer left them, or the embedding.
  at::Tensor get(int64_t first_kmer, int64_t count, const at::Tensor& embedding, const at::Tensor& like_BND);
  void set(int64_t first_kmer, const at::Tensor& focus_x) { states_[first_kmer] = focus_x; }

 private:
  std::map<int64_t, at::Tensor> states_;
};

/// A layer's memory in a stream: entries of the past and the raw bases of the open window (or k-mer).
class MemoryState final : public cache::LayerState {
 public:
  explicit MemoryState(const StorageFormat& format = {}) : retained(format) {}
  std::unique_ptr<cache::LayerState> clone() const override;
  std::unique_ptr<cache::LayerState> snapshot() const override { return std::make_unique<MemoryState>(*this); }
  cache::TensorMap save() const override;
  void load(const cache::TensorMap& saved, const at::Device& device) override;
  int64_t num_bytes() const override { return retained.num_bytes() + letters.num_bytes() + open_bytes(); }
  void detach() override;
  int64_t open_bytes() const;
  void append(const at::Tensor& k_new, const at::Tensor& v_new, const at::Tensor& q_new, const at::Tensor& u_new,
              const at::Tensor& positions_new);
  int64_t num_open() const { return k.defined() ? k.size(2) : 0; }
  /// Open bases that are not summarised yet: the last ones.
  int64_t num_unread() const { return u.defined() ? u.size(1) : 0; }
  void drop_open() { keep_open(0, 0); }
  /// Drops all but the last `raw` open bases, and queries and inputs of all but the last `unread`.
  void keep_open(int64_t raw, int64_t unread);

  EntryStore retained;
  int64_t hidden = 0;               // the last of these, whose k-mers are still raw in the tail
  PackedBases letters;              // tables: of all bases so far
  at::Tensor k, v;                  // [B, G, n, E] open bases
  at::Tensor q, u;                  // [B, H, unread, E], [B, unread, D]; only where a unit needs them
  at::Tensor positions;             // [n]
  std::vector<at::Tensor> focus_x;  // inline, fitted: states of the open window's Focus tokens, [B, 1, D] each
};

/// One call of a layer with base memory in a stream: letters stay, raw keys and values go as the layer's rules say.
at::Tensor stream_letters(const HookContext& context, const LayerRules& rules, const BaseTables& tables, MemoryState& state,
                          const model::AttentionCall& call);

/// Walks a stream and really drops.
class StreamHook final : public model::AttentionHook {
 public:
  explicit StreamHook(HookContext context) : context_(std::move(context)) {}
  at::Tensor mix(const model::AttentionCall& call) override;
  std::unique_ptr<cache::LayerState> make_state(int64_t block) override;

 private:
  HookContext context_;
  SideStates side_;
};

/// A whole sequence with masks. Recomputed blocks keep their hook, and with it the graph that `side` belongs to, which they are part of: so
/// the forward pass owns those states, not the hook. Whoever needs them after it is not repeatable.
class MaskedHook final : public model::AttentionHook {
 public:
  MaskedHook(HookContext context, const std::shared_ptr<SideStates>& side) : context_(std::move(context)), side_(side) {}
  at::Tensor mix(const model::AttentionCall& call) override;
  bool repeatable(int64_t block) const override;
  std::unique_ptr<cache::LayerState> make_state(int64_t block) override;

 private:
  HookContext context_;
  std::weak_ptr<SideStates> side_;
};

}  // namespace focus::compress
