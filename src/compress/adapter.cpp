#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>

#include "focus/compress/unit.h"
#include "focus/core/error.h"
#include "focus/weights/checkpoint.h"

namespace focus::compress {
namespace {

using at::Tensor;

constexpr const char* kFormat = "focus-adapter-1";
constexpr const char* kAdapt = "adapt";  // metadata; absent where the backbone is as it was

std::vector<std::pair<std::string, Tensor>> trained_tensors(const FocusAdapter& adapter, const model::AdaptedBackbone& adapted) {
  std::vector<std::pair<std::string, Tensor>> out;
  for (const auto& item : adapter.named_parameters()) out.emplace_back(item.key(), item.value());
  out.insert(out.end(), adapted.trained.begin(), adapted.trained.end());
  return out;
}

std::string metadata_of(const weights::TensorFile& file, const std::string& key, const std::filesystem::path& path) {
  const auto found = file.metadata().find(key);
  if (found == file.metadata().end()) fail<CheckpointError>("'", path.string(), "' is no FOCUS adapter: metadata '", key, "' is missing");
  return found->second;
}

MemoryConfig config_of(const weights::TensorFile& file, const std::filesystem::path& path) {
  if (metadata_of(file, "format", path) != kFormat)
    fail<CheckpointError>("'", path.string(), "': unknown adapter format '", metadata_of(file, "format", path), "'");
  MemoryConfig config;
  config::read_text(metadata_of(file, "memory", path), path.string(), {}, config);
  return config;
}

}  // namespace

FocusAdapter::FocusAdapter(const model::Backbone& backbone, const MemoryConfig& config, int64_t seed) : config_(config) {
  config.validate();
  const auto attention = backbone.attention_blocks();
  if (attention.empty()) fail<ConfigError>("model '", backbone.shape().name, "' has no attention block: there is nothing to compress");
  std::vector<int64_t> compressed = config.focus.layers.empty() ? attention : config.focus.layers;
  layers_ = register_module("layers", std::make_shared<torch::nn::Module>());
  for (const int64_t block : compressed) {
    if (std::find(attention.begin(), attention.end(), block) == attention.end()) {
      std::string known;
      for (const int64_t a : attention) known += (known.empty() ? "" : ", ") + std::to_string(a);
      fail<ConfigError>("focus.layers: block ", block, " is no attention block; attention blocks are ", known);
    }
    if (units_.contains(block) || tables_.contains(block)) fail<ConfigError>("focus.layers names block ", block, " twice");
    if (config.focus.unit == UnitKind::tables) {
      const auto tables = std::make_shared<BaseTables>(config.focus.tables, backbone.shape());
      tables_.emplace(block, layers_->register_module(std::to_string(block), tables));
      continue;
    }
    std::shared_ptr<FocusUnit> unit;
    if (config.focus.share == Share::all && !units_.empty()) {
      if (backbone.block_device(block) != backbone.block_device(units_.begin()->first))
        fail<ConfigError>("focus.share 'all' needs all compressed layers on one device");
      units_.emplace(block, units_.begin()->second);
      continue;
    }
    if (config.focus.unit == UnitKind::fitted) {
      unit = std::make_shared<FittedUnit>(config.focus, backbone.shape());
    } else {
      unit = std::make_shared<PaperUnit>(config.focus, backbone.shape());
    }
    units_.emplace(block, layers_->register_module(config.focus.share == Share::all ? "all" : std::to_string(block), unit));
  }
  auto generator = at::make_generator<at::CPUGeneratorImpl>(static_cast<uint64_t>(seed));
  at::NoGradGuard guard;
  if (config.focus.unit == UnitKind::paper || config.focus.stream == Stream::inline_tokens) {
    // Starts among the bases: the mean of A, C, G and T, plus a little of its own.
    const auto& tokens = backbone.vocabulary().bases;
    const Tensor bases = backbone.embedding_weight()
                             .detach()
                             .to(at::kCPU, at::kFloat)
                             .index_select(0, at::tensor(std::vector<int64_t>(tokens.begin(), tokens.end())));
    embedding = register_parameter("embedding", bases.mean(0) + at::randn({bases.size(1)}, generator) * bases.std().item<double>() * 0.1);
  }
  for (auto& item : named_parameters()) {
    if (item.key().ends_with(".down"))
      item.value().copy_(at::randn(item.value().sizes(), generator) / std::sqrt(static_cast<double>(item.value().size(1))));
  }
  if (embedding.defined()) embedding.set_data(embedding.to(backbone.device()));
  for (const auto& [block, unit] : units_) unit->to(backbone.block_device(block));
  for (const auto& [block, tables] : tables_) tables->to(backbone.block_device(block));
}

FocusAdapter::FocusAdapter(const MemoryConfig& config, std::map<int64_t, std::shared_ptr<FocusUnit>> units)
    : config_(config), units_(std::move(units)), layers_(register_module("layers", std::make_shared<torch::nn::Module>())) {
  config.validate();
  for (const auto& [block, unit] : units_) {
    FOCUS_CHECK(!unit->updates_focus_state(), "the unit of block ", block, " needs Focus states, which have an embedding to start from");
    layers_->register_module(std::to_string(block), unit);
  }
}

void FocusAdapter::check_serves(const MemoryConfig& config) const {
  for (const int64_t block : config.focus.layers) {
    if (!units_.contains(block) && !tables_.contains(block)) fail<ConfigError>("focus.layers: the adapter has no unit for block ", block);
  }
  MemoryConfig other = config;
  other.window = config_.window;
  other.focus.k = config_.focus.k;
  other.focus.layers = config_.focus.layers;
  other.storage = config_.storage;
  if (config::to_json(other) != config::to_json(config_))
    fail<ConfigError>("an adapter serves other window plans, other k and fewer layers, not other Focus units or visibilities");
}

const FocusUnit* FocusAdapter::unit(int64_t block) const {
  const auto found = units_.find(block);
  return found == units_.end() ? nullptr : found->second.get();
}

BaseTables* FocusAdapter::tables(int64_t block) const {
  const auto found = tables_.find(block);
  return found == tables_.end() ? nullptr : found->second.get();
}

void save_adapter(const FocusAdapter& adapter, const model::AdaptedBackbone& adapted, const std::string& backbone_digest,
                  const std::filesystem::path& path) {
  std::vector<Tensor> alive;
  std::vector<weights::TensorView> views;
  for (const auto& [name, tensor] : trained_tensors(adapter, adapted)) {
    alive.push_back(tensor.detach().to(at::kCPU).contiguous());
    views.push_back(weights::as_view(name, alive.back()));
  }
  std::map<std::string, std::string> about = {
      {"format", kFormat}, {"memory", config::to_json(adapter.config())}, {"backbone", backbone_digest}};
  if (adapted.config.active()) about.emplace(kAdapt, config::to_json(adapted.config));
  weights::write_safetensors(path, views, about);
}

std::filesystem::path adapter_file(const std::filesystem::path& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    const auto inside = path / "adapter.safetensors";
    if (!std::filesystem::exists(inside, ignored))
      fail<CheckpointError>("folder '", path.string(), "' holds no adapter.safetensors: is it the folder of a finished adapter training?");
    return inside;
  }
  if (!std::filesystem::exists(path, ignored)) fail<CheckpointError>("adapter '", path.string(), "': no such file or folder");
  return path;
}

std::shared_ptr<FocusAdapter> with_plan(const FocusAdapter& trained, const model::Backbone& backbone, const MemoryConfig& config) {
  auto adapter = std::make_shared<FocusAdapter>(backbone, config, 0);
  const at::NoGradGuard guard;
  const auto source = trained.named_parameters();
  for (auto& item : adapter->named_parameters()) item.value().copy_(source[item.key()]);
  return adapter;
}

MemoryConfig read_adapter_config(const std::filesystem::path& path) { return config_of(*weights::TensorFile::open(path), path); }

LoadedAdapter load_adapter(const std::filesystem::path& path, const std::shared_ptr<model::Backbone>& backbone,
                           const std::string& backbone_digest) {
  const auto file = weights::TensorFile::open(path);
  const MemoryConfig config = config_of(*file, path);
  const std::string trained_on = metadata_of(*file, "backbone", path);
  if (trained_on != backbone_digest) {
    fail<CheckpointError>("'", path.string(), "' was trained on another backbone: digest ", trained_on.substr(0, 16), "..., this one is ",
                          backbone_digest.substr(0, 16), "...");
  }
  model::AdaptConfig adapt;
  if (file->metadata().contains(kAdapt))
    config::read_text(metadata_of(*file, kAdapt, path), path.string(), {}, adapt);
  LoadedAdapter out{nullptr, model::adapt(backbone, adapt, 0)};
  out.adapter = std::make_shared<FocusAdapter>(*out.adapted.backbone, config, 0);
  at::NoGradGuard guard;
  const auto wanted = trained_tensors(*out.adapter, out.adapted);
  for (const auto& [name, tensor] : wanted) {
    const auto* view = file->find(name);
    if (view == nullptr) fail<CheckpointError>("'", path.string(), "': tensor '", name, "' is missing");
    const Tensor source = weights::as_tensor(*view);
    if (source.sizes() != tensor.sizes())
      fail<CheckpointError>("'", path.string(), "': tensor '", name, "' has shape ", source.sizes(), ", expected ", tensor.sizes());
    tensor.detach().copy_(source);
  }
  if (wanted.size() != file->tensors().size())
    fail<CheckpointError>("'", path.string(), "' holds ", file->tensors().size(), " tensors, its configuration has ", wanted.size());
  out.adapted.backbone->set_trainable(false);
  return out;
}

}  // namespace focus::compress
