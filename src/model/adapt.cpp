#include "focus/model/adapt.h"

#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "focus/core/error.h"
#include "focus/nn/linear.h"

namespace focus::model {
namespace {

using at::Tensor;

std::string joined(const auto& items) {
  std::string out;
  for (const auto& item : items) out = out.empty() ? concat(item) : concat(out, ", ", item);
  return out;
}

bool contains(const std::vector<int64_t>& items, int64_t item) {
  return std::find(items.begin(), items.end(), item) != items.end();
}

/// The linear layers of a block by their names in it.
std::map<std::string, std::shared_ptr<nn::Linear>> linear_layers(const Block& block) {
  std::map<std::string, std::shared_ptr<nn::Linear>> out;
  for (const auto& item : block.named_modules(std::string(), /*include_self=*/false)) {
    if (auto linear = std::dynamic_pointer_cast<nn::Linear>(item.value()))
      out.emplace(item.key(), std::move(linear));
  }
  return out;
}

void check_targets(const Backbone& backbone, const AdaptConfig& config, int64_t first_unfrozen) {
  const auto& lora = config.lora;
  for (const int64_t block : lora.blocks) {
    if (block >= backbone.num_blocks())
      fail<ConfigError>("adapt.lora.blocks: block ", block, " does not exist; model '", backbone.shape().name,
                        "' has blocks 0 to ", backbone.num_blocks() - 1);
    if (block >= first_unfrozen)
      fail<ConfigError>(
          "adapt: block ", block,
          " is unfrozen as a whole and under LoRA; take it out of adapt.lora.blocks or lower unfreeze_top");
  }
  std::set<std::string> known, seen;
  for (int64_t i = 0; i < first_unfrozen; ++i) {
    if (!lora.blocks.empty() && !contains(lora.blocks, i)) continue;
    bool any = false;
    for (const auto& [name, linear] : linear_layers(backbone.block(i))) {
      known.insert(name);
      any = any || std::find(lora.targets.begin(), lora.targets.end(), name) != lora.targets.end();
    }
    if (!lora.blocks.empty() && !any)
      fail<ConfigError>("adapt.lora: block ", i, " has none of the targets ", joined(lora.targets));
  }
  for (const std::string& target : lora.targets) {
    if (!seen.insert(target).second) fail<ConfigError>("adapt.lora.targets names '", target, "' twice");
    if (!known.contains(target))
      fail<ConfigError>("adapt.lora.targets: no block that may be adapted has a linear layer '", target,
                        "'; there are ", joined(known));
  }
}

}  // namespace

void LoraConfig::visit(config::Fields& f) {
  f.texts("targets", targets,
          "linear layers that get a low-rank change, by their names within a block; empty = none");
  const auto any = f.when(!targets.empty(), "targets", "is not empty");
  f.only(any).integer("rank", rank, {1, 1 << 16}, "rank of the change");
  f.only(any).number("alpha", alpha, {1e-6, 1e6}, "the change is scaled by alpha / rank");
  f.only(any).integers("blocks", blocks, {0, 1 << 16}, "only in these blocks; empty = wherever a target is");
}

void AdaptConfig::visit(config::Fields& f) {
  f.group("lora", lora, "low-rank changes of the backbone's linear layers");
  f.integer("unfreeze_top", unfreeze_top, {0, 1 << 16}, "so many of the last blocks are trained as a whole");
}

std::string AdaptConfig::describe() const {
  std::string out;
  if (!lora.targets.empty()) out = concat("LoRA of rank ", lora.rank, " on ", joined(lora.targets));
  if (!lora.blocks.empty()) out = concat(out, " of blocks ", joined(lora.blocks));
  if (unfreeze_top > 0)
    out = concat(out, out.empty() ? "" : ", ", "top ", unfreeze_top, unfreeze_top == 1 ? " block" : " blocks",
                 " unfrozen");
  return out;
}

AdaptedBackbone adapt(const std::shared_ptr<Backbone>& original, const AdaptConfig& config, int64_t seed) {
  config::refuse_idle(config, "adapt.");
  if (!config.active()) return {original, config, {}};
  const int64_t blocks = original->num_blocks(), first_unfrozen = blocks - config.unfreeze_top;
  if (first_unfrozen < 0)
    fail<ConfigError>("adapt.unfreeze_top = ", config.unfreeze_top, ", but model '", original->shape().name,
                      "' has ", blocks, " blocks");
  check_targets(*original, config, first_unfrozen);
  AdaptedBackbone out{original->twin(), config, {}};
  auto generator = at::make_generator<at::CPUGeneratorImpl>(static_cast<uint64_t>(seed));
  std::set<const at::TensorImpl*> trained;
  for (int64_t i = 0; i < blocks; ++i) {
    const Block& block = out.backbone->block(i);
    if (i >= first_unfrozen) {
      for (const auto& [name, linear] : linear_layers(block)) {
        if (linear->fp8())
          fail<ConfigError>(
              "adapt.unfreeze_top: block ", i, "'s ", name,
              " is rounded to FP8 once and cannot be trained; load the model with FP8 off, or use LoRA");
      }
      for (Tensor parameter : block.parameters()) {
        parameter.set_data(parameter.detach().clone());
        trained.insert(parameter.unsafeGetTensorImpl());
      }
      continue;
    }
    if (!config.lora.blocks.empty() && !contains(config.lora.blocks, i)) continue;
    const auto linear = linear_layers(block);
    for (const std::string& target : config.lora.targets) {
      const auto found = linear.find(target);
      if (found == linear.end()) continue;
      found->second->add_low_rank(config.lora.rank, config.lora.alpha / static_cast<double>(config.lora.rank),
                                  generator);
      trained.insert(
          {found->second->lora_down.unsafeGetTensorImpl(), found->second->lora_up.unsafeGetTensorImpl()});
    }
  }
  for (const auto& item : out.backbone->named_parameters()) {
    if (!trained.contains(item.value().unsafeGetTensorImpl())) continue;
    out.trained.emplace_back("backbone." + item.key(), item.value().set_requires_grad(true));
  }
  return out;
}

}  // namespace focus::model
