#include "focus/compress/focus/adapter.h"

#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <cmath>

#include "focus/compress/focus/fitted_unit.h"
#include "focus/compress/focus/paper_unit.h"
#include "focus/core/error.h"

namespace focus::compress {
namespace {

using at::Tensor;

std::shared_ptr<FocusUnit> make_unit(const FocusConfig& layer, const model::BackboneShape& shape) {
  if (layer.unit == UnitKind::fitted) return std::make_shared<FittedUnit>(layer, shape);
  return std::make_shared<PaperUnit>(layer, shape);
}

/// Starts among the bases: the mean of A, C, G and T, plus a little of its own. [D]
Tensor initial_embedding(const model::Backbone& backbone, const at::Generator& generator) {
  const auto& tokens = backbone.vocabulary().bases;
  const Tensor bases = backbone.embedding_weight()
                           .detach()
                           .to(at::kCPU, at::kFloat)
                           .index_select(0, at::tensor(std::vector<int64_t>(tokens.begin(), tokens.end())));
  return bases.mean(0) + at::randn({bases.size(1)}, generator) * bases.std().item<double>() * 0.1;
}

}  // namespace

std::shared_ptr<FocusUnit> FocusUnit::with(const FocusConfig&) const {
  FOCUS_CHECK(false, "this unit belongs to one plan");
  return nullptr;
}

FocusAdapter::FocusAdapter(MemoryConfig config)
    : config_(std::move(config)), layers_(register_module("layers", std::make_shared<torch::nn::Module>())) {
  config_.validate();
}

void FocusAdapter::add(int64_t block, std::shared_ptr<FocusUnit> unit, const std::string& name) {
  // Units that share parameters are registered once.
  if (!layers_->named_children().contains(name)) layers_->register_module(name, unit);
  units_.emplace(block, std::move(unit));
}

void FocusAdapter::add(int64_t block, std::shared_ptr<BaseTables> tables) {
  layers_->register_module(std::to_string(block), tables);
  tables_.emplace(block, std::move(tables));
}

FocusAdapter::FocusAdapter(const model::Backbone& backbone, const MemoryConfig& config, int64_t seed)
    : FocusAdapter(config) {
  const auto attention = backbone.attention_blocks();
  if (attention.empty())
    fail<ConfigError>("model '", backbone.shape().name,
                      "' has no attention block: there is nothing to compress");
  const bool shared = config.focus.share == Share::all;
  for (const int64_t block : config.focus.layers.empty() ? attention : config.focus.layers) {
    if (std::find(attention.begin(), attention.end(), block) == attention.end()) {
      std::string known;
      for (const int64_t a : attention) known += (known.empty() ? "" : ", ") + std::to_string(a);
      fail<ConfigError>("focus.layers: block ", block, " is no attention block; attention blocks are ",
                        known);
    }
    if (units_.contains(block) || tables_.contains(block))
      fail<ConfigError>("focus.layers names block ", block, " twice");
    const FocusConfig layer = config.focus.at(block).value_or(config.focus);
    const MemoryKind scheduled = config.kind_at(block),
                     kind = scheduled == MemoryKind::focus || scheduled == MemoryKind::tables ? scheduled
                                                                                              : config.kind;
    if (kind == MemoryKind::quantised) {
      continue;  // nothing to learn
    } else if (kind == MemoryKind::tables) {
      add(block, std::make_shared<BaseTables>(config.tables, backbone.shape()));
    } else if (shared && !units_.empty()) {
      const auto& [first, unit] = *units_.begin();
      if (backbone.block_device(block) != backbone.block_device(first))
        fail<ConfigError>("focus.share 'all' needs all compressed layers on one device");
      add(block, unit->with(layer), "all");
    } else {
      add(block, make_unit(layer, backbone.shape()), shared ? "all" : std::to_string(block));
    }
  }
  const auto generator = at::make_generator<at::CPUGeneratorImpl>(static_cast<uint64_t>(seed));
  const at::NoGradGuard guard;
  if (!units_.empty() &&
      (config.focus.unit == UnitKind::paper || config.focus.stream == Stream::inline_tokens))
    embedding = register_parameter("embedding", initial_embedding(backbone, generator));
  for (auto& item : named_parameters()) {
    if (item.key().ends_with(".down"))
      item.value().copy_(at::randn(item.value().sizes(), generator) /
                         std::sqrt(static_cast<double>(item.value().size(1))));
  }
  if (embedding.defined()) embedding.set_data(embedding.to(backbone.device()));
  for (const auto& [block, unit] : units_) unit->to(backbone.block_device(block));
  for (const auto& [block, tables] : tables_) tables->to(backbone.block_device(block));
}

FocusAdapter::FocusAdapter(const MemoryConfig& config, std::map<int64_t, std::shared_ptr<FocusUnit>> units)
    : FocusAdapter(config) {
  for (auto& [block, unit] : units) {
    FOCUS_CHECK(!unit->updates_focus_state(), "the unit of block ", block,
                " needs Focus states, which have an embedding to start from");
    add(block, std::move(unit), std::to_string(block));
  }
}

std::shared_ptr<FocusAdapter> FocusAdapter::with(const MemoryConfig& config) const {
  MemoryConfig other = config;
  other.window = config_.window;
  other.focus.k = config_.focus.k;
  other.focus.layers = config_.focus.layers;
  other.storage = config_.storage;
  if (config::to_json(other) != config::to_json(config_))
    fail<ConfigError>(
        "an adapter serves other window plans, other k and fewer layers, not other Focus units or "
        "visibilities");
  const std::shared_ptr<FocusAdapter> out(new FocusAdapter(config));
  const bool shared = config.focus.share == Share::all;
  for (const int64_t block : config.focus.layers.empty() ? blocks() : config.focus.layers) {
    if (const auto unit = units_.find(block); unit != units_.end()) {
      out->add(block, unit->second->with(config.focus.at(block).value_or(config.focus)),
               shared ? "all" : std::to_string(block));
    } else if (const auto tables = tables_.find(block); tables != tables_.end()) {
      out->add(block, tables->second);
    } else if (config.kind_at(block) != MemoryKind::quantised) {
      fail<ConfigError>("focus.layers: the adapter has no unit for block ", block);
    }
  }
  if (embedding.defined())
    out->embedding = out->register_parameter("embedding", embedding, embedding.requires_grad());
  return out;
}

std::vector<int64_t> FocusAdapter::blocks() const {
  std::vector<int64_t> out;
  for (const auto& [block, unit] : units_) out.push_back(block);
  for (const auto& [block, tables] : tables_) out.push_back(block);
  std::sort(out.begin(), out.end());
  return out;
}

std::shared_ptr<const FocusUnit> FocusAdapter::unit(int64_t block) const {
  const auto found = units_.find(block);
  return found == units_.end() ? nullptr : found->second;
}

std::shared_ptr<BaseTables> FocusAdapter::tables(int64_t block) const {
  const auto found = tables_.find(block);
  return found == tables_.end() ? nullptr : found->second;
}

}  // namespace focus::compress
