#include "focus/compress/compressed_model.h"

#include <algorithm>
#include <cmath>

#include "focus/core/error.h"
#include "hooks.h"

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
                      ": entries come in the model's precision, so this holds nothing that 'model' would not; set 'model', ",
                      wide ? "'bf16' or 'int8'" : "or 'int8'");
  }
  if (storage.device == StorageDevice::host && backbone.device().is_cpu())
    fail<ConfigError>("storage.device 'host' with a model on the CPU: entries are in host memory anyway; set 'model'");
}

}  // namespace

CompressedModel::CompressedModel(std::shared_ptr<model::Backbone> backbone, std::shared_ptr<FocusAdapter> adapter)
    : backbone_(std::move(backbone)), adapter_(std::move(adapter)), config_(adapter_->config()), plan_(config_.window, config_.focus.k) {
  make_rules();
  check_storage(*backbone_, config_.storage);
}

CompressedModel::CompressedModel(std::shared_ptr<model::Backbone> backbone, std::shared_ptr<FocusAdapter> adapter,
                                 const MemoryConfig& config)
    : backbone_(std::move(backbone)), adapter_(std::move(adapter)), config_(config), plan_(config.window, config.focus.k) {
  config.validate();
  check_storage(*backbone_, config.storage);
  adapter_->check_serves(config);
  make_rules();
}

CompressedModel::CompressedModel(std::shared_ptr<model::Backbone> backbone, const MemoryConfig& config,
                                 std::shared_ptr<RetentionPolicy> policy)
    : backbone_(std::move(backbone)), config_(config), policy_(std::move(policy)), plan_(config_.window, config_.focus.k) {
  check_storage(*backbone_, config.storage);
  if (config.storage.dtype != StorageType::model && policy_->rounds_itself())
    fail<ConfigError>("storage.dtype has no effect with retention policy '", policy_->name(), "', which is a way of storing itself");
  if (config.focus.local != Local::window)
    fail<ConfigError>("retention policy '", policy_->name(), "' drops whole windows: it needs focus.local 'window'");
}

CompressedModel::~CompressedModel() = default;

void CompressedModel::make_rules() {
  for (const int64_t block : backbone_->attention_blocks()) {
    const auto focus = config_.focus.at(block);
    if (focus && (adapter_->unit(block) != nullptr || adapter_->tables(block) != nullptr))
      rules_.emplace(block, LayerRules(config_.window, *focus));
  }
}

CompressedModel::Expanded CompressedModel::expand(const Tensor& tokens_BL, int64_t first_base) const {
  Expanded out;
  const Tensor x = backbone_->embed(tokens_BL);
  if (!adapter_ || config_.focus.stream != Stream::inline_tokens) {
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
  const Tensor focus = adapter_->embedding.to(x.scalar_type()).expand({x.size(0), 1, x.size(2)});
  out.x_BTD = at::cat({x, focus}, 1).index_select(1, at::tensor(source, at::kLong).to(x.device()));
  return out;
}

HiddenStates CompressedModel::collect(const Tensor& hidden, const Expanded& e) const {
  if (e.is_focus.empty()) return {hidden, {}, {}};
  const auto rows = [&](const std::vector<int64_t>& index) {
    return hidden.index_select(1, at::tensor(index, at::kLong).to(hidden.device()));
  };
  return {rows(e.base_rows), e.focus_rows.empty() ? Tensor() : rows(e.focus_rows), at::tensor(e.next_base, at::kLong)};
}

Tensor CompressedModel::letters_of(const Tensor& tokens_BL) const {
  return adapter_ != nullptr && config_.focus.unit == UnitKind::tables ? base_codes(tokens_BL, backbone_->vocabulary()) : Tensor();
}

HiddenStates CompressedModel::forward(const Tensor& tokens_BL, CompressedStream& stream) const {
  const Expanded expanded = expand(tokens_BL, stream.bases);
  StreamHook hook({.plan = plan_,
                   .config = config_,
                   .rules = rules_,
                   .adapter = adapter_.get(),
                   .policy = policy_.get(),
                   .first_base = stream.bases,
                   .is_focus = expanded.is_focus,
                   .codes = letters_of(tokens_BL),
                   .recompute = false});
  const Tensor hidden = backbone_->forward_embedded(expanded.x_BTD, &stream.backbone, &hook);
  stream.bases += tokens_BL.size(1);
  return collect(hidden, expanded);
}

HiddenStates CompressedModel::parallel(const Tensor& tokens_BL) const {
  FOCUS_CHECK(adapter_ != nullptr, "the parallel execution is for Focus; rivals stream");
  const Expanded expanded = expand(tokens_BL, 0);
  const auto side = std::make_shared<SideStates>();
  const auto hook = std::make_shared<MaskedHook>(HookContext{.plan = plan_,
                                                             .config = config_,
                                                             .rules = rules_,
                                                             .adapter = adapter_.get(),
                                                             .policy = nullptr,
                                                             .first_base = 0,
                                                             .is_focus = expanded.is_focus,
                                                             .codes = letters_of(tokens_BL),
                                                             .recompute = backbone_->recomputes()},
                                                 side);
  return collect(backbone_->forward_embedded(expanded.x_BTD, nullptr, hook.get()), expanded);
}

MemoryUse CompressedModel::memory_use(const CompressedStream& stream) const {
  MemoryUse use;
  for (const auto& layer : stream.backbone.layers) {
    if (const auto* memory = dynamic_cast<const MemoryState*>(layer.get())) {
      use.entries = std::max(use.entries, memory->retained.size());
      use.retained_bytes += memory->retained.num_bytes() + memory->letters.num_bytes();
      if (memory->letters.size() > 0) use.entries = std::max(use.entries, memory->letters.size() - memory->num_open());
      use.open_bytes += memory->open_bytes();
    }
  }
  return use;
}

MemoryUse CompressedModel::planned_use(int64_t length) const {
  const auto& shape = backbone_->shape();
  const int64_t raw_bytes = bytes_per_entry(1, shape.num_kv_heads, shape.head_dim, backbone_->dtype(), /*with_beta=*/false);
  const StorageFormat format = policy_ != nullptr ? policy_->storage(config_.storage) : StorageFormat(config_.storage);
  const int64_t kept_bytes = format.entry_bytes(shape.num_kv_heads, shape.head_dim, backbone_->dtype(), /*with_beta=*/false);
  const int64_t window = length > 0 ? plan_.window_of(length - 1) : 0;
  const int64_t closed = length == plan_.window(window).end ? window + 1 : window,
                open = length - (closed > 0 ? plan_.window(closed - 1).end : 0);
  // Positions, keys, values; some policies also keep the open window's queries, a Focus unit its queries and normed inputs until they are
  // summarised.
  const auto element = static_cast<int64_t>(at::elementSize(backbone_->dtype()));
  const int64_t query_bytes = shape.num_heads * shape.head_dim * element;
  const int64_t open_bytes =
      raw_bytes + static_cast<int64_t>(sizeof(int64_t)) + (policy_ != nullptr && policy_->needs_queries() ? query_bytes : 0);
  MemoryUse use;
  for (const int64_t block : backbone_->attention_blocks()) {
    const auto rules = rules_.find(block);
    int64_t entries = 0, bytes = 0;
    if (rules != rules_.end()) {
      const LayerRules::Held held = rules->second.held(length);
      entries = held.entries;
      bytes = rules->second.focus().unit == UnitKind::tables ? PackedBases::bytes_of(1, length)
                                                             : entries * focus_entry_bytes(*backbone_, config_);
      use.open_bytes += held.open_bases * open_bytes + held.unread * (query_bytes + shape.width * element);
    } else {
      const bool everything = policy_ == nullptr || policy_->keeps_every_base();
      entries = plan_.kmers_before(closed);
      bytes = entries * focus_entry_bytes(*backbone_, config_);
      // Where Focus tokens are inline, a layer that is not compressed keeps them like bases.
      const bool focus_tokens = adapter_ != nullptr && config_.focus.stream == Stream::inline_tokens;
      if (everything) {
        entries += length - open - (focus_tokens ? 0 : entries);
        const int64_t groups = format.key_group > 0 ? closed * ((plan_.window_bases() + format.key_group - 1) / format.key_group) : 0;
        bytes = entries * kept_bytes + groups * shape.num_kv_heads * shape.head_dim * 4;  // low and step of each channel
      }
      if (policy_ != nullptr && policy_->name() == "state_only") entries = bytes = 0;
      use.open_bytes += (open + (focus_tokens ? plan_.kmers_completed(length) - plan_.kmers_before(closed) : 0)) * open_bytes;
    }
    use.entries = std::max(use.entries, entries);
    use.retained_bytes += bytes;
  }
  return use;
}

std::vector<std::unique_ptr<cache::LayerState>> CompressedModel::new_layers() const {
  StreamHook hook({.plan = plan_,
                   .config = config_,
                   .rules = rules_,
                   .adapter = adapter_.get(),
                   .policy = policy_.get(),
                   .first_base = 0,
                   .is_focus = {},
                   .codes = {}});
  std::vector<std::unique_ptr<cache::LayerState>> out;
  for (int64_t i = 0; i < backbone_->num_blocks(); ++i) out.push_back(backbone_->block(i).make_state(&hook, 0));
  return out;
}

int64_t CompressedModel::focus_entry_bytes(const model::Backbone& backbone, const MemoryConfig& config) {
  const auto& shape = backbone.shape();
  return StorageFormat(config.storage).entry_bytes(shape.num_kv_heads, shape.head_dim, backbone.dtype(), config.focus.bias);
}

Budget CompressedModel::budget(const model::Backbone& backbone, const MemoryConfig& config) {
  const auto& shape = backbone.shape();
  const int64_t entry_bytes = focus_entry_bytes(backbone, config);
  const int64_t raw_bytes = bytes_per_entry(1, shape.num_kv_heads, shape.head_dim, backbone.dtype(), /*with_beta=*/false);
  double kmer = 0, raw = 0;
  int64_t layers = 0;
  for (const int64_t block : backbone.attention_blocks()) {
    const auto focus = config.focus.at(block);
    if (!focus) continue;
    ++layers;
    const LayerRules rules(config.window, *focus);
    kmer += static_cast<double>(focus->entries_per_kmer * entry_bytes * config.focus.k) / static_cast<double>(focus->k);
    const int64_t tail = rules.plan().window(1).begin - rules.tail_begin(1);
    raw += static_cast<double>(tail * raw_bytes + rules.sink_bases() * entry_bytes -
                               rules.sink_kmers() * focus->entries_per_kmer * entry_bytes);
  }
  const double count = static_cast<double>(std::max<int64_t>(layers, 1));
  return {WindowPlan(config.window, config.focus.k), static_cast<int64_t>(std::floor(kmer / count)),
          static_cast<int64_t>(std::floor(raw / count))};
}

}  // namespace focus::compress
