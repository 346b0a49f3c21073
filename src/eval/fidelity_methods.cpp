#include "fidelity_methods.h"

#include "focus/compress/compressed_model.h"
#include "focus/core/error.h"
#include "focus/core/log.h"
#include "oracle.h"

namespace focus::eval {
namespace {

using at::Tensor;
using compress::MemoryConfig;

Tensor to_rows(const Tensor& logits_BLV) { return logits_BLV[0].to(at::kCPU, at::kFloat).contiguous(); }

Method compressed(std::string name, std::string description, std::shared_ptr<compress::CompressedModel> model, int64_t chunk) {
  const auto stream = [model, chunk](const Tensor& tokens_BL, const OnBases& on_bases) {
    return stream_in_chunks(*model, chunk, tokens_BL, on_bases);
  };
  return {std::move(name), std::move(description), stream};
}

/// The backbone without a hook, the whole sequence in one call.
Method plain(std::string name, std::string description, const std::shared_ptr<model::Backbone>& backbone) {
  const auto stream = [backbone](const Tensor& tokens_BL, const OnBases& on_bases) {
    Streamed out;
    cache::StreamState state;
    out.logits_LV = to_rows(backbone->forward(tokens_BL, &state));
    for (const auto& layer : state.layers) {
      if (const auto* cache = dynamic_cast<const cache::KeyValueState*>(layer.get())) {
        out.kept_entries = std::max(out.kept_entries, cache->size());
        out.kept_bytes += static_cast<int64_t>(cache->keys().nbytes() + cache->values().nbytes());
      }
    }
    on_bases(tokens_BL.size(1), "");
    return out;
  };
  return {std::move(name), std::move(description), stream};
}

/// Two passes over each sequence: one with state_only memory for the entropy of each base's prediction, and one whose k-mers share it
/// evenly.
Method adaptive_by_entropy(const std::string& name, const std::shared_ptr<model::Backbone>& backbone, const MemoryConfig& memory,
                           const compress::Budget& budget, int64_t chunk) {
  const auto of = [backbone, memory, chunk](std::shared_ptr<compress::RetentionPolicy> policy) {
    const std::string policy_name = policy->name(), text = policy->describe();
    return compressed(policy_name, text, std::make_shared<compress::CompressedModel>(backbone, memory, std::move(policy)), chunk);
  };
  const Method first = of(compress::make_rival("state_only", budget));
  const auto stream = [first, of, budget](const Tensor& tokens_BL, const OnBases& on_bases) {
    const Tensor log_p = at::log_softmax(first.stream(tokens_BL, [&](int64_t, const std::string&) { on_bases(0, ""); }).logits_LV, -1);
    const Tensor entropy = -(log_p.exp() * log_p).sum(-1);
    // Position p predicts base p + 1; nothing predicts the first.
    const Tensor surprise = at::cat({entropy.narrow(0, 0, 1), entropy.narrow(0, 0, entropy.size(0) - 1)}).clamp_min(0.0).unsqueeze(0);
    return of(compress::make_adaptive_by(budget, surprise)).stream(tokens_BL, on_bases);
  };
  return {name, compress::make_adaptive_by(budget, at::zeros({1, 1}))->describe(), stream};
}

MemoryConfig with_plan(const MemoryConfig& own, const FidelityConfig& config) {
  MemoryConfig memory = config.plan.on(own);
  if (config.memory.storage != compress::StorageConfig{}) memory.storage = config.memory.storage;
  memory.validate();
  return memory;
}

/// The trained adapter of a file under the run's window and k: the shapes of its parameters depend on neither.
compress::LoadedAdapter trained_adapter(const std::string& path, const FidelityConfig& config, const MemoryConfig& run,
                                        const std::shared_ptr<model::Backbone>& backbone, const std::string& backbone_digest) {
  const std::string file = compress::adapter_file(path).string();
  auto trained = compress::load_adapter(file, backbone, backbone_digest);
  const compress::WindowConfig window = trained.adapter->config().window;
  const int64_t k = trained.adapter->config().focus.k;
  const MemoryConfig memory = with_plan(trained.adapter->config(), config);
  if (memory.window.size != run.window.size || memory.window.unit != run.window.unit || memory.window.remainder != run.window.remainder ||
      memory.focus.k != run.focus.k) {
    fail<ConfigError>("adapter '", file, "' was trained with window.size ", window.size, " and k ", k,
                      ", the other methods of this run have ", run.window.size, " and ", run.focus.k,
                      " (or cut windows another way): all methods of a run share one window plan; set window.size and focus.k");
  }
  if (window.size == memory.window.size && k == memory.focus.k) {
    if (trained.adapter->config().storage == memory.storage) return trained;
    trained.adapter = compress::with_plan(*trained.adapter, *trained.adapted.backbone, memory);
    return trained;
  }
  const std::string message = concat("adapter '", file, "' was trained with window.size ", window.size, " and k ", k, " and is used with ",
                                     memory.window.size, " and ", memory.focus.k);
  memory.focus.unit == compress::UnitKind::paper ? log::warn(message + "; the paper's unit learns its k") : log::info(message);
  trained.adapter = compress::with_plan(*trained.adapter, *trained.adapted.backbone, memory);
  return trained;
}

/// The same memory with the closed form alone as its unit, beside the bases.
MemoryConfig closed_form(MemoryConfig memory) {
  memory.focus.unit = compress::UnitKind::fitted;
  memory.focus.tables = {};
  memory.focus.stream = compress::Stream::side;
  memory.focus.bias = true;
  memory.focus.fitted.corrections = false;
  memory.focus.rank = compress::FocusConfig{}.rank;
  memory.focus.share = compress::FocusConfig{}.share;
  memory.focus.anchor = compress::FocusConfig{}.anchor;
  memory.focus.paper = {};
  memory.validate();
  return memory;
}

std::string describe(const MemoryConfig& memory) {
  const compress::FocusConfig& f = memory.focus;
  if (f.unit == compress::UnitKind::tables) {
    return concat("base memory: letters, and tables of ", f.tables.offsets.size(), " words of ", f.tables.word,
                  f.eviction == compress::Eviction::rolling ? ", rolling eviction" : "",
                  f.tail > 0 ? concat(", raw tail of ", f.tail) : std::string(), f.schedule.empty() ? "" : ", settings by layer");
  }
  const bool is_fitted = f.unit == compress::UnitKind::fitted, trained = !is_fitted || f.fitted.corrections;
  std::string text =
      concat(is_fitted ? "fitted" : "the paper's", " unit, k ", f.k,
             f.stream == compress::Stream::side ? ", beside the bases" : ", among the bases", f.bias ? ", with beta" : ", no beta");
  if (trained) text += f.rank > 0 ? concat(", rank ", f.rank) : std::string(", full rank");
  if (f.local == compress::Local::kmer) text += ", bases see their k-mer only";
  if (f.eviction == compress::Eviction::rolling) text += ", rolling eviction";
  if (f.tail > 0) text += concat(", raw tail of ", f.tail);
  if (f.sinks > 0) text += concat(", ", f.sinks, " raw sinks");
  if (f.entries_per_kmer > 1) text += concat(", ", f.entries_per_kmer, " entries per k-mer");
  if (!f.schedule.empty()) text += ", settings by layer";
  if (f.history != compress::History::all) text += f.history == compress::History::window ? ", history of one window" : ", no history";
  return text;
}

}  // namespace

Streamed stream_in_chunks(const compress::CompressedModel& model, int64_t chunk, const Tensor& tokens_BL, const OnBases& on_bases) {
  Streamed out;
  compress::CompressedStream state;
  std::vector<Tensor> parts;
  const int64_t length = tokens_BL.size(1);
  // Calls end one base before a window does, where its open part is largest.
  int64_t count = std::max<int64_t>(chunk - 1, 1);
  for (int64_t begin = 0; begin < length; begin += count, count = chunk) {
    count = std::min(count, length - begin);
    parts.push_back(to_rows(model.backbone().unembed(model.forward(tokens_BL.narrow(1, begin, count), state).bases)));
    out.open_bytes = std::max(out.open_bytes, model.memory_use(state).open_bytes);
    on_bases(count, "");
  }
  const compress::MemoryUse use = model.memory_use(state);
  out.logits_LV = at::cat(parts, 0);
  out.kept_entries = use.entries;
  out.kept_bytes = use.retained_bytes;
  return out;
}

MemoryConfig resolve_memory(const FidelityConfig& config) {
  const MemoryConfig memory =
      with_plan(config.adapter.empty() ? config.memory : compress::read_adapter_config(compress::adapter_file(config.adapter)), config);
  if (memory.storage.dtype == compress::StorageType::int8) {
    for (const std::string& name : config.methods) {
      if (name == "oracle")
        fail<ConfigError>("methods: 'oracle' optimises entries, and storage.dtype 'int8' has no gradient; set 'model', 'bf16' or 'fp32'");
    }
  }
  return memory;
}

std::vector<Method> make_methods(const FidelityConfig& config, const MemoryConfig& memory, const std::shared_ptr<model::Backbone>& backbone,
                                 const std::string& backbone_digest) {
  const compress::WindowPlan plan(memory.window, memory.focus.k);
  const int64_t chunk = config.chunk > 0 ? config.chunk : plan.window_bases();
  const compress::Budget budget = compress::CompressedModel::budget(*backbone, memory);
  // Rivals close whole windows of the same plan.
  MemoryConfig whole_windows;
  whole_windows.window = memory.window;
  whole_windows.focus.k = memory.focus.k;
  whole_windows.focus.bias = memory.focus.bias;
  whole_windows.storage = memory.storage;
  const auto focus = [&](const std::string& name, const char* what, const compress::LoadedAdapter& loaded) {
    std::string text = what + describe(loaded.adapter->config());
    if (loaded.adapted.config.active()) text += "; on a changed backbone: " + loaded.adapted.config.describe();
    return compressed(name, text, std::make_shared<compress::CompressedModel>(loaded.adapted.backbone, loaded.adapter), chunk);
  };
  std::vector<Method> out;
  for (const std::string& name : fidelity_methods(config)) {
    if (name == "noise_floor") {
      out.push_back(plain(name, "every key and value is kept; the whole segment in one call of the plain backbone", backbone));
    } else if (name == "fitted") {
      out.push_back(focus(name, "closed form, untrained: ",
                          {std::make_shared<compress::FocusAdapter>(*backbone, closed_form(memory), 0), {backbone, {}, {}}}));
    } else if (name == "oracle") {
      out.push_back(oracle_method(name, config.oracle, backbone, closed_form(memory), whole_windows, describe(closed_form(memory)), chunk));
    } else if (name == "adaptive_entropy") {
      out.push_back(adaptive_by_entropy(name, backbone, whole_windows, budget, chunk));
    } else if (name == "focus") {
      out.push_back(focus(name, "trained: ", trained_adapter(config.adapter, config, memory, backbone, backbone_digest)));
    } else if (name == "paper") {
      out.push_back(focus(name, "trained: ", trained_adapter(config.paper_adapter, config, memory, backbone, backbone_digest)));
    } else {
      const auto policy = compress::make_rival(name, budget);
      out.push_back(
          compressed(name, policy->describe(), std::make_shared<compress::CompressedModel>(backbone, whole_windows, policy), chunk));
    }
  }
  return out;
}

}  // namespace focus::eval
