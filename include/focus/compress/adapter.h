// What is trained of compressed memory, and its file.
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
#include "focus/compress/unit.h"
#include "focus/model/adapt.h"
#include "focus/model/backbone.h"

namespace focus::compress {

/// All trainable parts: a Focus unit or tables per compressed block and, where Focus tokens have states, their embedding. Parameters stay
/// fp32 whatever the backbone's dtype.
class FocusAdapter : public torch::nn::Module {
 public:
  /// `seed` fixes the initial values. ConfigError: focus.layers names a block that is no attention block.
  FocusAdapter(const model::Backbone& backbone, const MemoryConfig& config, int64_t seed);
  /// Units made elsewhere, by block, on the devices of their blocks; none of them has Focus states.
  FocusAdapter(const MemoryConfig& config, std::map<int64_t, std::shared_ptr<FocusUnit>> units);
  /// The same parameters, not copies of them, under another window plan, k or storage, or on some of the layers only (`focus.layers`; the
  /// others keep everything). ConfigError: `config` differs in anything else, or names a layer that has no parameters.
  std::shared_ptr<FocusAdapter> with(const MemoryConfig& config) const;

  const MemoryConfig& config() const { return config_; }
  /// Blocks that have parameters, in ascending order.
  std::vector<int64_t> blocks() const;
  /// Null for a block that is not compressed, or by tables.
  std::shared_ptr<const FocusUnit> unit(int64_t block) const;
  /// Null for a block that is not compressed, or by a Focus unit.
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

}  // namespace focus::compress
