// What is trained of compressed memory.
#pragma once

#include <ATen/ATen.h>
#include <torch/nn/module.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "focus/compress/focus/unit.h"
#include "focus/compress/plan/config.h"
#include "focus/compress/tables/base_tables.h"
#include "focus/model/backbone.h"

namespace focus::compress {

/// All trainable parts: a Focus unit or tables per compressed block and, where Focus tokens have states,
/// their embedding. Parameters stay fp32 whatever the backbone's dtype.
class FocusAdapter : public torch::nn::Module {
 public:
  /// `seed` fixes the initial values. ConfigError: focus.layers names a block that is no attention block.
  FocusAdapter(const model::Backbone& backbone, const MemoryConfig& config, int64_t seed);
  /// Units made elsewhere, by block, on the devices of their blocks; none of them has Focus states.
  FocusAdapter(const MemoryConfig& config, std::map<int64_t, std::shared_ptr<FocusUnit>> units);
  /// The same parameters, not copies of them, under another window plan, k or storage, or on some of the
  /// layers only (`focus.layers`; the others keep everything). ConfigError: `config` differs in anything
  /// else, or names a layer that has no parameters.
  std::shared_ptr<FocusAdapter> with(const MemoryConfig& config) const;

  const MemoryConfig& config() const { return config_; }
  /// Blocks that have parameters, in ascending order.
  std::vector<int64_t> blocks() const;
  /// Null for a block that has no Focus entries.
  std::shared_ptr<const FocusUnit> unit(int64_t block) const;
  /// Null for a block that has no base tables.
  std::shared_ptr<BaseTables> tables(int64_t block) const;

  at::Tensor embedding;  // [D] of Focus tokens; undefined without Focus states

 private:
  explicit FocusAdapter(MemoryConfig config);
  void add(int64_t block, std::shared_ptr<FocusUnit> unit, const std::string& name);
  void add(int64_t block, std::shared_ptr<BaseTables> tables);
  MemoryConfig config_;
  std::map<int64_t, std::shared_ptr<FocusUnit>> units_;
  std::map<int64_t, std::shared_ptr<BaseTables>> tables_;
  std::shared_ptr<torch::nn::Module> layers_;
};

}  // namespace focus::compress
