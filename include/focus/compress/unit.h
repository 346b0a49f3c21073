// Focus units: how the entries of a span's k-mers are made, one unit per compressed attention layer, and the adapter that holds them all.
// Legend: B batch, G key/value heads, n bases of a span, m k-mers, E head dimension, D width, R reference queries.
#pragma once

#include <ATen/ATen.h>
#include <torch/nn/module.h>

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "focus/compress/base_tables.h"
#include "focus/compress/config.h"
#include "focus/compress/policy.h"
#include "focus/model/adapt.h"
#include "focus/model/backbone.h"

namespace focus::compress {

struct Summary {
  Entries entries;     // of each k-mer of the span, in order
  at::Tensor focus_x;  // [B, m, D] Focus states after this layer; undefined for units that have none
};

class FocusUnit : public torch::nn::Module {
 public:
  /// `history`: the entries that Focus queries of this span may see. Differentiable in the unit's parameters and, through the span, in the
  /// backbone's states. Nothing outside the span and the history is read.
  virtual Summary summarise(const ClosedSpan& span, const Entries& history) const = 0;
  /// Whether Focus tokens have a residual state of their own that this unit reads and updates.
  virtual bool updates_focus_state() const = 0;
};

/// Trained linear map out of D inputs: a full matrix starting at zero, or up * down with `up` starting at zero.
class LowRankMap : public torch::nn::Module {
 public:
  LowRankMap(int64_t in, int64_t out, int64_t rank);
  at::Tensor forward(const at::Tensor& x) const;
  at::Tensor matrix() const;
  at::Tensor full, down, up;
};

/// Closed form (spec: the fitted unit). Reference queries are the span's own, rotated one span ahead; a key/value head that several query
/// heads read has the queries of them all. Per key/value head and k-mer j,
///   q.K_j/sqrt(E) + beta_j  ~  log sum_{t in j} exp(q.k_t/sqrt(E))   by ridge regression around the mean key,
///   V_j = sum_t a_t v_t / sum_t a_t,  a_t = the attention that the references pay to base t;
/// in fp32. With several entries per k-mer all but one are the bases of greatest a_t themselves (beta 0), and j stands for the others.
/// Corrections: key (before rotation), value and beta move by trained maps of the k-mer's mean hidden state (inline: of its Focus
/// token's), which start at zero, so that training starts at the fit.
class FittedUnit final : public FocusUnit {
 public:
  FittedUnit(const FocusConfig& config, const model::BackboneShape& shape);
  Summary summarise(const ClosedSpan& span, const Entries& history) const override;
  bool updates_focus_state() const override { return false; }

  std::shared_ptr<LowRankMap> key, value;  // corrections
  at::Tensor beta_weight, beta_bias;       // [G, D], [G]

 private:
  FocusConfig config_;
};

/// The paper's unit (Eq. 2, 3): masked multi-head attention with the Focus token as query over its visible bases and the history.
/// Projections start as the backbone's own: only the differences are trained. beta = log(bases of the k-mer) + a trained offset.
class PaperUnit final : public FocusUnit {
 public:
  PaperUnit(const FocusConfig& config, const model::BackboneShape& shape);
  Summary summarise(const ClosedSpan& span, const Entries& history) const override;
  bool updates_focus_state() const override { return true; }

  std::shared_ptr<LowRankMap> query, key, value, output;
  at::Tensor beta_bias;  // [G]

 private:
  FocusConfig config_;
};

/// All trainable parts: one unit per compressed block and, where Focus tokens have states, their embedding.
class FocusAdapter : public torch::nn::Module {
 public:
  /// `seed` fixes the initial values. ConfigError: focus.layers names a block that is no attention block.
  FocusAdapter(const model::Backbone& backbone, const MemoryConfig& config, int64_t seed);
  /// Units made elsewhere, by block, on the devices of their blocks; none of them has Focus states.
  FocusAdapter(const MemoryConfig& config, std::map<int64_t, std::shared_ptr<FocusUnit>> units);
  const MemoryConfig& config() const { return config_; }
  /// nullptr for a block that is not compressed, or by tables.
  const FocusUnit* unit(int64_t block) const;
  /// nullptr unless focus.unit is 'tables' and the block is compressed.
  BaseTables* tables(int64_t block) const;
  /// ConfigError unless these parameters can work under `config`: only the window plan, k, the choice among the adapter's layers and the
  /// storage may differ from what they were made for.
  void check_serves(const MemoryConfig& config) const;
  /// Parameters stay fp32 whatever the backbone's dtype. [D]; undefined without Focus states.
  at::Tensor embedding;

 private:
  MemoryConfig config_;
  std::map<int64_t, std::shared_ptr<FocusUnit>> units_;
  std::map<int64_t, std::shared_ptr<BaseTables>> tables_;
  std::shared_ptr<torch::nn::Module> layers_;
};

/// One safetensors file: parameters, those of the backbone that were trained with them, and in its metadata the configurations of both and
/// the original backbone's digest.
void save_adapter(const FocusAdapter& adapter, const model::AdaptedBackbone& adapted, const std::string& backbone_digest,
                  const std::filesystem::path& path);
struct LoadedAdapter {
  std::shared_ptr<FocusAdapter> adapter;
  model::AdaptedBackbone adapted;  // what the adapter runs on: `backbone` itself, or a twin of it with the trained changes, frozen
};
/// CheckpointError: another backbone, tensors missing, unexpected or of another shape.
LoadedAdapter load_adapter(const std::filesystem::path& path, const std::shared_ptr<model::Backbone>& backbone,
                           const std::string& backbone_digest);
/// Only the configuration of an adapter file.
MemoryConfig read_adapter_config(const std::filesystem::path& path);
/// The adapter file that a path means: itself, or adapter.safetensors in a run's folder. CheckpointError when it is not there.
std::filesystem::path adapter_file(const std::filesystem::path& path);
/// The same parameters under another window plan, of which the shapes of parameters do not depend. `config` differs in nothing else.
std::shared_ptr<FocusAdapter> with_plan(const FocusAdapter& trained, const model::Backbone& backbone, const MemoryConfig& config);

}  // namespace focus::compress
