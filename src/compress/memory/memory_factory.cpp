#include "focus/compress/memory/memory_factory.h"

#include <algorithm>

#include "far_memory.h"
#include "focus/compress/focus/fitted_unit.h"
#include "focus/compress/memory/named_settings.h"
#include "focus/compress/plan/layer_rules.h"
#include "focus/core/error.h"
#include "focus_memory.h"
#include "policy_memory.h"

namespace focus::compress {
namespace {

// Of a mixture's entries: so many times Focus's k, and at least so many bases. Finer ones take bytes from the
// codes (R on chr22 in the bytes of k = 100: 46.4 % with 100 bases each, 48.6 % with 400).
constexpr int64_t kCoarser = 4, kCoarse = 400;
// A model may rest attention on the first bases of a sequence that finds nothing elsewhere.
constexpr int64_t kMixtureSinks = 4;

const std::string kFarPrefix = "far_";
const std::string kFarMixture = kFarPrefix + "mixture";
// Where a far memory is asked for by name and far.kmers is not set. The mixture's k-mers are longer.
constexpr int64_t kDefaultFarKmers = 8, kDefaultCoarseFarKmers = 2;

struct Kind {
  std::string name;
  MakeLayerMemory make;
  bool stores_itself = false;
};

std::shared_ptr<const LayerMemory> rival_layer(const RetentionPolicy& policy, const LayerContext& c) {
  return std::make_shared<PolicyMemory>(c.backbone, c.config, c.budget, policy);
}

std::shared_ptr<const LayerMemory> quantised_layer(const LayerContext& c, int64_t bits) {
  QuantisedConfig config = c.config.quantised;
  config.bits = bits;
  return rival_layer(quantised(config), c);
}

std::shared_ptr<const LayerMemory> fitted_memory(const LayerContext& c, const MemoryConfig& config,
                                                 const FocusConfig& layer) {
  FocusLayer focus{LayerRules(config.window, layer),
                   std::make_shared<FittedUnit>(layer, c.backbone.shape()),
                   {},
                   config.storage,
                   c.kmers};
  return std::make_shared<FocusMemory>(std::move(focus), c.backbone);
}

std::shared_ptr<const LayerMemory> fitted_layer(const LayerContext& c) {
  const MemoryConfig config = closed_form(c.config);
  const auto layer = config.focus.at(c.block);
  if (!layer) return rival_layer(rival("full"), c);
  return fitted_memory(c, config, *layer);
}

/// What the budget buys when it is spent on the newest bases as codes, and on coarse entries for what is
/// older.
FocusConfig mixture_within(const Budget& budget, const model::Backbone& backbone,
                           const StorageConfig& storage, FocusConfig layer) {
  const WindowPlan& own = budget.plan;
  const FocusConfig fresh;
  layer.k = std::min(std::max(kCoarser * own.k(), kCoarse), own.window_bases());
  layer.stream = fresh.stream;
  layer.local = fresh.local;
  layer.history = fresh.history;
  layer.eviction = fresh.eviction;
  layer.tail = 0;
  layer.entries_per_kmer = 1;
  const int64_t heads = backbone.shape().num_kv_heads, dim = backbone.shape().head_dim;
  const auto type = backbone.dtype();
  layer.recent.bits = 4;
  const StorageFormat codes = StorageFormat::codes(layer.recent.bits), entries = storage;
  const int64_t window = own.window_bases(), code = codes.entry_bytes(heads, dim, type, /*with_beta=*/false),
                scales = codes.group_bytes(heads, dim),
                entry = entries.entry_bytes(heads, dim, type, layer.bias);
  const int64_t room =
      own.num_kmers(1) * budget.kmer_bytes - WindowPlan({.size = window}, layer.k).num_kmers(1) * entry;
  // Codes with their share of the scales.
  const auto codes_in = [&](int64_t bytes) {
    const int64_t per_window = code * window + scales * ((window + kKeyGroup - 1) / kKeyGroup);
    return std::max<int64_t>(bytes, 0) * window / per_window;
  };
  // What is paid once, sinks and the scales of two blocks that are not full, the first window has to hold
  // too. For more than one sink half of its codes are given at most.
  for (layer.sinks = std::min(kMixtureSinks, layer.k);; --layer.sinks) {
    const int64_t given = LayerRules::kCodesPerSink * layer.sinks;
    layer.recent.bases = std::min(codes_in(room), given + codes_in(room - layer.sinks * entry - 2 * scales));
    if (std::min<int64_t>(layer.sinks, 2) * given <= layer.recent.bases) break;
  }
  if (codes_in(room) >= window) {
    layer.recent.bases = window;
    layer.sinks = 0;
  }
  return layer;
}

/// A mixture's entries are in 8 bits where nothing else is asked for: the bytes go further as codes of bases.
StorageConfig mixture_storage(StorageConfig storage) {
  if (storage.dtype == StorageType::model) storage.dtype = StorageType::int8;
  return storage;
}

std::shared_ptr<const LayerMemory> mixture_layer(const LayerContext& c) {
  MemoryConfig config = closed_form(c.config);
  config.storage = mixture_storage(config.storage);
  const auto layer = config.focus.at(c.block);
  if (!layer) return rival_layer(rival("full"), c);
  config.window = {.size = c.budget.plan.window_bases()};
  return fitted_memory(c, config, mixture_within(c.budget, c.backbone, config.storage, *layer));
}

/// `config` with the mixture in every layer that has entries: its k is that of far memory too.
MemoryConfig mixture_everywhere(const model::Backbone& backbone, MemoryConfig config) {
  const Budget budget = budget_of(backbone, config);
  config = closed_form(std::move(config));
  config.storage = mixture_storage(config.storage);
  config.window = {.size = budget.plan.window_bases()};
  config.focus = mixture_within(budget, backbone, config.storage, config.focus);
  std::erase_if(config.focus.schedule, [](const LayerSchedule& part) { return !part.memory; });
  for (LayerSchedule& part : config.focus.schedule)
    part = {.from = part.from, .to = part.to, .memory = part.memory};
  if (config.focus.schedule.size() == 1 && config.focus.schedule[0].memory == MemoryKind::focus)
    config.focus.schedule.clear();
  config.validate();
  return config;
}

/// The memory `near` with far memory on top, as far_`near`. Layers that keep everything stay as they are.
Kind on_far(const Kind& near) {
  const auto with_far = [make = near.make](const LayerContext& c) -> std::shared_ptr<const LayerMemory> {
    auto memory = make(c);
    if (!memory->first_raw(0)) return memory;
    return std::make_shared<FarMemory>(std::move(memory), c.config.far,
                                       WindowPlan(c.config.window, c.config.focus.k), c.backbone);
  };
  return {kFarPrefix + near.name, with_far, near.stores_itself};
}

/// The one list: names on command lines, in configurations and in reports all come from here.
std::vector<Kind>& kinds() {
  static std::vector<Kind> all = [] {
    std::vector<Kind> out;
    for (const RetentionPolicy& policy : rivals()) {
      const auto make = [&policy](const LayerContext& context) { return rival_layer(policy, context); };
      out.push_back({policy.name, make, policy.bits > 0});
    }
    for (const int64_t bits : {8, 4}) {
      const auto make = [bits](const LayerContext& context) { return quantised_layer(context, bits); };
      out.push_back({quantised({.bits = bits}).name, make, /*stores_itself=*/true});
    }
    out.push_back({"mixture", mixture_layer});
    out.push_back({"fitted", fitted_layer});
    for (const char* name : {"state_only", "kv_quant_int4"}) {
      const Kind near = *std::find_if(out.begin(), out.end(), [&](const Kind& k) { return k.name == name; });
      out.push_back(on_far(near));
    }
    out.push_back(on_far({"fitted", fitted_layer}));
    out.push_back(on_far({"mixture", fitted_layer}));  // of mixture_everywhere()
    return out;
  }();
  return all;
}

const Kind* find_kind(const std::string& name) {
  const auto found =
      std::find_if(kinds().begin(), kinds().end(), [&](const Kind& kind) { return kind.name == name; });
  return found == kinds().end() ? nullptr : &*found;
}

std::shared_ptr<CompressedModel> on_every_layer(const MakeLayerMemory& make,
                                                const std::shared_ptr<model::Backbone>& backbone,
                                                const MemoryConfig& config) {
  const Budget budget = budget_of(*backbone, config);
  const auto kmers = std::make_shared<KmersCache>();
  Memories memories;
  for (const int64_t block : backbone->attention_blocks())
    memories.emplace(
        block,
        make({.backbone = *backbone, .block = block, .config = config, .budget = budget, .kmers = kmers}));
  return std::make_shared<CompressedModel>(backbone, config, std::move(memories));
}

}  // namespace

bool register_memory(const std::string& name, MakeLayerMemory make) {
  if (find_kind(name) != nullptr)
    fail<ConfigError>("a memory '", name, "' is registered already; choose another name");
  kinds().push_back({name, std::move(make)});
  return true;
}

std::vector<std::string> memory_names() {
  std::vector<std::string> out;
  for (const Kind& kind : kinds()) out.push_back(kind.name);
  return out;
}

bool stands_on_far(const std::string& name) { return name.starts_with(kFarPrefix); }

bool stores_itself(const std::string& name) {
  const Kind* kind = find_kind(name);
  return kind != nullptr && kind->stores_itself;
}

std::shared_ptr<CompressedModel> make_memory(const std::string& name,
                                             const std::shared_ptr<model::Backbone>& backbone,
                                             const MemoryConfig& config) {
  const Kind* kind = find_kind(name);
  if (kind == nullptr) {
    std::string known;
    for (const Kind& k : kinds()) known += concat(known.empty() ? "" : ", ", k.name);
    fail<ConfigError>("unknown memory '", name, "'; known: ", known);
  }
  MemoryConfig used = config;
  if (stands_on_far(name)) used.far = far_by_name(name, used.far);
  if (name == kFarMixture) used = mixture_everywhere(*backbone, used);
  return on_every_layer(kind->make, backbone, used);
}

std::shared_ptr<CompressedModel> make_memory(const RetentionPolicy& policy,
                                             const std::shared_ptr<model::Backbone>& backbone,
                                             const MemoryConfig& config) {
  return on_every_layer([&](const LayerContext& c) { return rival_layer(policy, c); }, backbone, config);
}

FocusConfig mixture(const model::Backbone& backbone, const MemoryConfig& config, FocusConfig layer) {
  return mixture_within(budget_of(backbone, config), backbone, config.storage, std::move(layer));
}

FarConfig far_by_name(const std::string& name, FarConfig far) {
  if (!far.active()) far.kmers = name == kFarMixture ? kDefaultCoarseFarKmers : kDefaultFarKmers;
  return far;
}

MemoryConfig closed_form(MemoryConfig config) {
  const FocusConfig fresh;
  config.kind = MemoryKind::focus;
  config.focus.unit = UnitKind::fitted;
  config.tables = {};
  config.quantised = {};
  for (LayerSchedule& part : config.focus.schedule) {
    if (part.memory == MemoryKind::tables || part.memory == MemoryKind::quantised)
      part.memory = MemoryKind::focus;
    part.bits = std::nullopt;
  }
  config.focus.stream = Stream::side;
  config.focus.bias = true;
  config.focus.fitted.corrections = false;
  config.focus.rank = fresh.rank;
  config.focus.share = fresh.share;
  config.focus.anchor = fresh.anchor;
  config.focus.paper = {};
  config.validate();
  return config;
}

}  // namespace focus::compress
