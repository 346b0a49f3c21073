// Optional training of the backbone beside the Focus adapter (App. A): low-rank changes of chosen linear
// layers (LoRA, Hu et al. 2021), and the top blocks unfrozen. The original is never touched: the adapted
// model is a twin that shares its memory.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "focus/config/fields.h"
#include "focus/model/backbone.h"

namespace focus::model {

/// y = W x + (alpha / rank) * up down x; `up` starts at zero, so that training starts at the backbone.
struct LoraConfig {
  std::vector<std::string>
      targets;  // linear layers by their name within a block ("inner_mha_cls.Wqkv"); empty = no LoRA
  int64_t rank = 8;
  double alpha = 16.0;
  std::vector<int64_t> blocks;  // empty = every frozen block that has a target
  void visit(config::Fields& f);
};

struct AdaptConfig {
  LoraConfig lora;
  int64_t unfreeze_top = 0;  // so many last blocks are trained as a whole
  void visit(config::Fields& f);
  bool active() const { return !lora.targets.empty() || unfreeze_top > 0; }
  /// "LoRA of rank 8 on inner_mha_cls.Wqkv, top 1 block unfrozen"; empty when not active.
  std::string describe() const;
};

struct AdaptedBackbone {
  std::shared_ptr<Backbone> backbone;  // the original itself when nothing is adapted
  AdaptConfig config;
  std::vector<std::pair<std::string, at::Tensor>>
      trained;  // by name, "backbone." in front; leaves that require gradient
};

/// `seed` fixes LoRA's initial values. ConfigError: a setting without effect, a target or block that is not
/// there, a block both unfrozen and under LoRA, a rank beyond a layer's size, unfreezing of weights that are
/// rounded to FP8.
AdaptedBackbone adapt(const std::shared_ptr<Backbone>& original, const AdaptConfig& config, int64_t seed);

}  // namespace focus::model
