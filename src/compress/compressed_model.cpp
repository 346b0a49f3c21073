#include "focus/compress/compressed_model.h"

#include <algorithm>
#include <limits>

#include "far_memory.h"
#include "focus/core/error.h"
#include "focus/ops/host_copy.h"
#include "focus_memory.h"
#include "memory_hook.h"
#include "on_host.h"
#include "policy_memory.h"
#include "tables_memory.h"

namespace focus::compress {

using at::Tensor;

/// Bases of a call with the Focus tokens of an inline stream among them.
struct CompressedModel::Expanded {
  Tensor x_BTD;
  std::vector<bool> is_focus;      // empty: bases only
  std::vector<int64_t> base_rows;  // rows of the bases
  std::vector<int64_t> focus_rows;
  std::vector<int64_t> next_base;  // per Focus token: index in the call of the base after it
};

namespace {

void check_storage(const model::Backbone& backbone, const StorageConfig& storage) {
  const bool wide = storage.dtype == StorageType::fp32 && backbone.dtype() != at::kDouble,
             same = storage.dtype == StorageType::bf16 && backbone.dtype() == at::kBFloat16;
  if (wide || same) {
    fail<ConfigError>("storage.dtype '", wide ? "fp32" : "bf16", "' with a model in ", backbone.dtype(),
                      ": entries come in the model's precision, so this holds nothing that 'model' would "
                      "not; set 'model', ",
                      wide ? "'bf16' or 'int8'" : "or 'int8'");
  }
  if (storage.device == StorageDevice::host && on_host(backbone))
    fail<ConfigError>(
        "storage.device 'host' with a model on the CPU: entries are in host memory anyway; set 'model'");
}

Memories memories_of(const model::Backbone& backbone, const FocusAdapter& adapter) {
  const MemoryConfig& config = adapter.config();
  const auto kmers = std::make_shared<KmersCache>();
  const Budget budget = budget_of(backbone, config);
  Memories out;
  for (const int64_t block : backbone.attention_blocks()) {
    const auto layer = config.focus.at(block);
    const auto add = [&](std::shared_ptr<const LayerMemory> memory) {
      if (config.far_at(block))
        memory = std::make_shared<FarMemory>(std::move(memory), config.far,
                                             WindowPlan(config.window, config.focus.k), backbone);
      out.emplace(block, std::move(memory));
    };
    if (auto focus = focus_layer(adapter, block, kmers)) {
      add(std::make_shared<FocusMemory>(std::move(*focus), backbone));
    } else if (const auto tables = adapter.tables(block); layer && tables != nullptr) {
      add(std::make_shared<TablesMemory>(LayerRules(config.window, *layer), tables, backbone));
    } else {
      const bool inline_stream = config.focus.stream == Stream::inline_tokens,
                 codes = config.kind_at(block) == MemoryKind::quantised;
      MemoryConfig own = config;
      if (codes) own.storage.dtype = StorageType::model;  // which is of the entries of other layers
      out.emplace(block, std::make_shared<PolicyMemory>(
                             backbone, own, budget,
                             codes ? quantised(config.quantised_at(block)) : rival("full"), inline_stream));
    }
  }
  return out;
}

}  // namespace

CompressedModel::CompressedModel(std::shared_ptr<model::Backbone> backbone, const MemoryConfig& config,
                                 Memories memories, Tensor focus_embedding)
    : backbone_(std::move(backbone)),
      config_(config),
      plan_(config.window, config.focus.k),
      memories_(std::make_shared<const Memories>(std::move(memories))),
      focus_embedding_(std::move(focus_embedding)) {
  check_storage(*backbone_, config.storage);
  for (const int64_t block : backbone_->attention_blocks()) {
    FOCUS_CHECK(memories_->contains(block), "attention block ", block, " has no memory");
    fetches_ = fetches_ || memories_->at(block)->fetches();
    reads_codes_ = reads_codes_ || fetches_ || memories_->at(block)->reads_codes();
  }
}

CompressedModel::CompressedModel(std::shared_ptr<model::Backbone> backbone,
                                 const std::shared_ptr<const FocusAdapter>& adapter)
    : CompressedModel(
          backbone, adapter->config(), memories_of(*backbone, *adapter),
          adapter->config().focus.stream == Stream::inline_tokens ? adapter->embedding : Tensor()) {}

CompressedModel::Expanded CompressedModel::expand(const Tensor& tokens_BL, int64_t first_base) const {
  Expanded out;
  const Tensor x = backbone_->embed(tokens_BL);
  if (!focus_embedding_.defined()) {
    out.x_BTD = x;
    return out;
  }
  const int64_t length = tokens_BL.size(1);
  std::vector<int64_t> source;  // row of [bases, Focus embedding] behind each token
  int64_t completed = plan_.kmers_completed(first_base);
  for (int64_t i = 0; i < length; ++i) {
    out.base_rows.push_back(static_cast<int64_t>(source.size()));
    source.push_back(i);
    out.is_focus.push_back(false);
    const int64_t now = plan_.kmers_completed(first_base + i + 1);
    if (now > completed) {
      out.focus_rows.push_back(static_cast<int64_t>(source.size()));
      out.next_base.push_back(i + 1);
      source.push_back(length);
      out.is_focus.push_back(true);
      completed = now;
    }
  }
  if (out.focus_rows.empty()) {
    out.x_BTD = x;
    return out;
  }
  const Tensor focus = focus_embedding_.to(x.scalar_type()).expand({x.size(0), 1, x.size(2)});
  out.x_BTD = at::cat({x, focus}, 1).index_select(1, ops::from_host(source, x.device()));
  return out;
}

HiddenStates CompressedModel::collect(const Tensor& hidden, const Expanded& e) const {
  if (e.is_focus.empty()) return {hidden, {}, {}};
  if (e.focus_rows.empty()) return {hidden, {}, at::empty({0}, at::kLong)};
  const auto rows = [&](const std::vector<int64_t>& index) {
    return hidden.index_select(1, ops::from_host(index, hidden.device()));
  };
  return {rows(e.base_rows), rows(e.focus_rows), at::tensor(e.next_base, at::kLong)};
}

ModelCall CompressedModel::call_of(const Tensor& tokens_BL, const Expanded& expanded,
                                   int64_t first_base) const {
  return {.first_base = first_base,
          .is_focus = expanded.is_focus,
          .codes = reads_codes_ ? base_codes(tokens_BL, backbone_->vocabulary()) : Tensor(),
          .recompute = false,
          .side = {}};
}

HiddenStates CompressedModel::forward(const Tensor& tokens_BL, CompressedStream& stream) const {
  const Expanded expanded = expand(tokens_BL, stream.bases);
  ModelCall call = call_of(tokens_BL, expanded, stream.bases);
  if (fetches_) {
    if (stream.far == nullptr) stream.far = new_chooser();
    call.far = std::make_shared<const FarPlan>(stream.far->advance(call.codes));
  }
  MemoryHook hook(memories_, std::move(call));
  const Tensor hidden = backbone_->forward_embedded(expanded.x_BTD, &stream.backbone, &hook);
  stream.bases += tokens_BL.size(1);
  return collect(hidden, expanded);
}

int64_t CompressedModel::steady_bases(const CompressedStream& stream) const {
  int64_t least = std::numeric_limits<int64_t>::max();
  for (const auto& [block, memory] : *memories_) least = std::min(least, memory->steady_bases(stream.bases));
  return least;
}

HiddenStates CompressedModel::parallel(const Tensor& tokens_BL) const {
  const Expanded expanded = expand(tokens_BL, 0);
  ModelCall call = call_of(tokens_BL, expanded, 0);
  call.recompute = backbone_->recomputes();
  if (fetches_) call.far = std::make_shared<const FarPlan>(new_chooser()->advance(call.codes));
  const auto hook = std::make_shared<MemoryHook>(memories_, std::move(call));
  const Tensor hidden = backbone_->forward_embedded(expanded.x_BTD, nullptr, hook.get());
  hook->carry({});  // blocks that run again hold the hook, which must not hold their graph
  return collect(hidden, expanded);
}

MemoryUse CompressedModel::memory_use(const CompressedStream& stream) const {
  MemoryUse use;
  for (const auto& layer : stream.backbone.layers) {
    if (const auto* memory = dynamic_cast<const MemoryState*>(layer.get())) use += memory->use();
  }
  if (stream.far != nullptr) use.far_bytes += stream.far->num_bytes();
  return use;
}

MemoryUse CompressedModel::planned_use(int64_t num_bases) const {
  MemoryUse use;
  for (const auto& [block, memory] : *memories_) use += memory->planned(num_bases);
  if (fetches_) use.far_bytes += FarChooser::planned_bytes(config_.far, plan_, num_bases);
  return use;
}

std::unique_ptr<FarChooser> CompressedModel::new_chooser() const {
  return fetches_ ? std::make_unique<FarChooser>(config_.far, plan_) : nullptr;
}

std::vector<std::unique_ptr<cache::LayerState>> CompressedModel::new_layers() const {
  MemoryHook hook(memories_, {});
  std::vector<std::unique_ptr<cache::LayerState>> out;
  for (int64_t i = 0; i < backbone_->num_blocks(); ++i)
    out.push_back(backbone_->block(i).make_state(&hook, 0));
  return out;
}

std::string CompressedModel::describe() const {
  std::vector<std::string> said;
  for (const auto& [block, memory] : *memories_) {
    std::string text = memory->describe();
    if (std::find(said.begin(), said.end(), text) == said.end()) said.push_back(std::move(text));
  }
  std::string out;
  for (const std::string& text : said) out += concat(out.empty() ? "" : "; in other layers: ", text);
  return out;
}

}  // namespace focus::compress
