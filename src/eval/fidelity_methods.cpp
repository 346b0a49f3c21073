#include "fidelity_methods.h"

#include <cctype>
#include <optional>
#include <utility>

#include "focus/compress/focus/adapter_file.h"
#include "focus/compress/memory/memory_factory.h"
#include "focus/core/error.h"
#include "focus/core/log.h"
#include "oracle.h"

namespace focus::eval {
namespace {

using at::Tensor;
using compress::MemoryConfig;

/// "paper" in "Paper-2025", not in "newspaper".
bool has_word(const std::string& label, const std::string& word) {
  std::string lower;
  for (const char c : label) lower += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  const auto letter = [&](std::size_t i) {
    return i < lower.size() && std::isalpha(static_cast<unsigned char>(lower[i])) != 0;
  };
  for (std::size_t at = 0; (at = lower.find(word, at)) != std::string::npos; ++at) {
    if ((at == 0 || !letter(at - 1)) && !letter(at + word.size())) return true;
  }
  return false;
}

Tensor to_rows(const Tensor& logits_BLV) { return logits_BLV[0].to(at::kCPU, at::kFloat).contiguous(); }

/// call(first base, bases) for each call of a stream. They end one base before a window does, where its open
/// part is largest.
template <class F>
void in_chunks(int64_t length, int64_t chunk, const F& call) {
  int64_t count = std::max<int64_t>(chunk - 1, 1);
  for (int64_t begin = 0; begin < length; begin += count, count = chunk) {
    count = std::min(count, length - begin);
    call(begin, count);
  }
}

/// The blocks before the first attention block give the same whatever the memory: they run once for all
/// methods.
class FirstBlocks {
 public:
  FirstBlocks(std::shared_ptr<model::Backbone> backbone, int64_t chunk)
      : backbone_(std::move(backbone)), chunk_(chunk) {
    const auto attention = backbone_->attention_blocks();
    count_ = attention.empty() ? 0 : attention.front();
  }
  /// What they give for these tokens; that of the last sequence is kept. Null where the model cannot share
  /// it: on a changed backbone, and with Focus tokens among the bases.
  const cache::KnownOutput* output(const compress::CompressedModel& model, const Tensor& tokens_BL) {
    if (!serve(model)) return nullptr;
    if (!known_ || !at::equal(tokens_BL_, tokens_BL)) run(tokens_BL);
    return &*known_;
  }

 private:
  bool serve(const compress::CompressedModel& model) const {
    return count_ > 0 && model.backbone_ptr() == backbone_ &&
           model.config().focus.stream != compress::Stream::inline_tokens;
  }
  void run(const Tensor& tokens_BL) {
    known_.reset();
    const auto states = std::make_shared<cache::KnownOutput::States>();
    for (int64_t i = 0; i < count_; ++i) states->push_back(backbone_->block(i).make_state(nullptr, 0));
    std::vector<Tensor> parts;
    in_chunks(tokens_BL.size(1), chunk_, [&](int64_t begin, int64_t count) {
      Tensor x = backbone_->embed(tokens_BL.narrow(1, begin, count));
      for (int64_t i = 0; i < count_; ++i) {
        x = x.to(backbone_->block_device(i));
        x = backbone_->block(i).forward(x, begin, states->at(static_cast<std::size_t>(i)).get(), nullptr);
      }
      parts.push_back(x);
    });
    tokens_BL_ = tokens_BL;
    known_.emplace(at::cat(parts, 1), states);
  }

  std::shared_ptr<model::Backbone> backbone_;
  int64_t chunk_, count_ = 0;
  Tensor tokens_BL_;
  std::optional<cache::KnownOutput> known_;
};

Method compressed(std::string name, std::string description,
                  const std::shared_ptr<compress::CompressedModel>& model, int64_t chunk,
                  const std::shared_ptr<FirstBlocks>& first) {
  const auto stream = [=](const Tensor& tokens_BL, const OnLogits& on_logits, const OnBases& on_bases) {
    return stream_in_chunks(model, chunk, tokens_BL, on_logits, on_bases, first->output(*model, tokens_BL));
  };
  Method out{std::move(name), std::move(description), stream};
  out.prepare = [=](const Tensor& tokens_BL) { first->output(*model, tokens_BL); };
  out.planned = [model](int64_t num_bases) { return model->planned_use(num_bases); };
  return out;
}

/// The backbone without a hook, the whole sequence in one call.
Method plain(std::string name, std::string description, const std::shared_ptr<model::Backbone>& backbone) {
  const auto stream = [backbone](const Tensor& tokens_BL, const OnLogits& on_logits,
                                 const OnBases& on_bases) {
    Streamed out;
    std::shared_ptr<infer::Stream> read = infer::plain_stream(*backbone)(tokens_BL.size(1));
    on_logits(0, to_rows(backbone->unembed(read->forward(tokens_BL))));
    const infer::StreamMemory use = read->memory();
    out.kept_entries = use.entries;
    out.kept_bytes = use.kept_bytes;
    out.read = std::move(read);
    out.backbone = backbone;
    on_bases(tokens_BL.size(1), "");
    return out;
  };
  return {std::move(name), std::move(description), stream};
}

/// Two passes over each sequence: one with state_only memory for the entropy of each base's prediction, and
/// one whose k-mers share it evenly.
Method adaptive_by_entropy(const std::string& name, const std::shared_ptr<model::Backbone>& backbone,
                           const MemoryConfig& memory, int64_t chunk,
                           const std::shared_ptr<FirstBlocks>& blocks) {
  const auto by = [backbone, memory](const Tensor& surprise_BL) {
    return compress::make_memory(compress::adaptive_by(surprise_BL), backbone, memory);
  };
  const Method first =
      compressed("state_only", "", compress::make_memory("state_only", backbone, memory), chunk, blocks);
  const auto stream = [first, by, chunk, blocks](const Tensor& tokens_BL, const OnLogits& on_logits,
                                                 const OnBases& on_bases) {
    std::vector<Tensor> entropies;
    const auto take_entropy = [&](int64_t, const Tensor& logits_LV) {
      const Tensor log_p = at::log_softmax(logits_LV, -1);
      entropies.push_back(-(log_p.exp() * log_p).sum(-1));
    };
    first.stream(tokens_BL, take_entropy, [&](int64_t, const std::string&) { on_bases(0, ""); });
    const Tensor entropy = at::cat(entropies);
    // Position p predicts base p + 1; nothing predicts the first.
    const Tensor surprise = at::cat({entropy.narrow(0, 0, 1), entropy.narrow(0, 0, entropy.size(0) - 1)})
                                .clamp_min(0.0)
                                .unsqueeze(0);
    const auto model = by(surprise);
    return stream_in_chunks(model, chunk, tokens_BL, on_logits, on_bases, blocks->output(*model, tokens_BL));
  };
  Method out{name, by(at::zeros({1, 1}))->describe(), stream};
  out.prepare = first.prepare;
  return out;
}

/// A label is the user's own, but one that names a unit names what is measured under it.
void require_unit_of_label(const std::string& label, const std::string& file, const MemoryConfig& memory) {
  const bool focus = memory.uses(compress::MemoryKind::focus),
             paper = memory.focus.unit == compress::UnitKind::paper;
  const std::pair<const char*, bool> units[] = {{"paper", focus && paper},
                                                {"fitted", focus && !paper},
                                                {"tables", memory.uses(compress::MemoryKind::tables)},
                                                {"quantised", memory.uses(compress::MemoryKind::quantised)}};
  for (const auto& [unit, is] : units) {
    if (is || !has_word(label, unit)) continue;
    fail<ConfigError>("adapters.", label, ": '", file, "' is no adapter of the kind '", unit, "' but ",
                      focus ? "has Focus entries of the " : "",
                      focus                                       ? (paper ? "paper's unit" : "fitted unit")
                      : memory.uses(compress::MemoryKind::tables) ? "is base memory (tables)"
                                                                  : "is quantised memory",
                      "; choose a label that does not say '", unit, "'");
  }
}

MemoryConfig with_plan(const MemoryConfig& own, const FidelityConfig& config) {
  MemoryConfig memory = config.plan.on(own);
  if (config.memory.storage != compress::StorageConfig{}) memory.storage = config.memory.storage;
  if (config.memory.far != compress::FarConfig{}) memory.far = config.memory.far;
  memory.validate();
  return memory;
}

/// The trained adapter of a file under the run's window and k: the shapes of its parameters depend on
/// neither.
compress::LoadedAdapter trained_adapter(const std::string& path, const FidelityConfig& config,
                                        const MemoryConfig& run,
                                        const std::shared_ptr<model::Backbone>& backbone,
                                        const std::string& backbone_digest) {
  const std::string file = compress::adapter_file(path).string();
  auto trained = compress::load_adapter(file, backbone, backbone_digest);
  const compress::WindowConfig window = trained.adapter->config().window;
  const int64_t k = trained.adapter->config().focus.k;
  const MemoryConfig memory = with_plan(trained.adapter->config(), config);
  if (memory.window.size != run.window.size || memory.window.unit != run.window.unit ||
      memory.window.remainder != run.window.remainder || memory.focus.k != run.focus.k) {
    fail<ConfigError>("adapter '", file, "' was trained with window.size ", window.size, " and k ", k,
                      ", the other methods of this run have ", run.window.size, " and ", run.focus.k,
                      " (or cut windows another way): all methods of a run share one window plan; set "
                      "window.size and focus.k");
  }
  if (window.size == memory.window.size && k == memory.focus.k) {
    if (trained.adapter->config().storage != memory.storage || trained.adapter->config().far != memory.far)
      trained.adapter = trained.adapter->with(memory);
    return trained;
  }
  const std::string message =
      concat("adapter '", file, "' was trained with window.size ", window.size, " and k ", k,
             " and is used with ", memory.window.size, " and ", memory.focus.k);
  memory.focus.unit == compress::UnitKind::paper ? log::warn(message + "; the paper's unit learns its k")
                                                 : log::info(message);
  trained.adapter = trained.adapter->with(memory);
  return trained;
}

}  // namespace

Streamed stream_in_chunks(const std::shared_ptr<const compress::CompressedModel>& model, int64_t chunk,
                          const Tensor& tokens_BL, const OnLogits& on_logits, const OnBases& on_bases,
                          const cache::KnownOutput* first) {
  Streamed out;
  compress::CompressedStream begun;
  if (first != nullptr) {
    begun.backbone.layers = model->new_layers();
    begun.backbone.layers.at(static_cast<std::size_t>(model->backbone().attention_blocks().front()) - 1) =
        first->snapshot();
  }
  const std::shared_ptr<infer::Stream> stream =
      infer::compressed_stream(model, model->describe(), std::move(begun));
  in_chunks(tokens_BL.size(1), chunk, [&](int64_t begin, int64_t count) {
    on_logits(begin, to_rows(model->backbone().unembed(stream->forward(tokens_BL.narrow(1, begin, count)))));
    out.open_bytes = std::max(out.open_bytes, stream->memory().open_bytes);
    on_bases(count, "");
  });
  const infer::StreamMemory use = stream->memory();
  out.kept_entries = use.entries;
  out.kept_bytes = use.kept_bytes;
  out.far_bytes = use.far_bytes;
  out.read = stream;
  out.backbone = model->backbone_ptr();
  return out;
}

void WholeLogits::add(int64_t begin, const Tensor& logits_LV) {
  if (logits_LV.size(0) == length_) {
    whole_ = logits_LV;
    return;
  }
  if (!whole_.defined()) whole_ = at::empty({length_, logits_LV.size(1)}, logits_LV.options());
  whole_.narrow(0, begin, logits_LV.size(0)).copy_(logits_LV);
}

MemoryConfig resolve_memory(const FidelityConfig& config) {
  const MemoryConfig memory = with_plan(
      config.adapter.empty() ? config.memory
                             : compress::read_adapter_config(compress::adapter_file(config.adapter)),
      config);
  for (const auto& [label, path] : config.adapters) {
    const auto file = compress::adapter_file(path);
    require_unit_of_label(label, file.string(), compress::read_adapter_config(file));
  }
  if (memory.storage.dtype == compress::StorageType::int8) {
    for (const std::string& name : config.methods) {
      if (name == "oracle")
        fail<ConfigError>(
            "methods: 'oracle' optimises entries, and storage.dtype 'int8' has no gradient; set 'model', "
            "'bf16' or 'fp32'");
    }
  }
  return memory;
}

std::vector<Method> make_methods(const FidelityConfig& config, const MemoryConfig& memory,
                                 const std::shared_ptr<model::Backbone>& backbone,
                                 const std::string& backbone_digest) {
  const compress::WindowPlan plan(memory.window, memory.focus.k);
  const int64_t chunk = config.chunk > 0 ? config.chunk : plan.window_bases();
  const auto first = std::make_shared<FirstBlocks>(backbone, chunk);
  const auto trained = [&](const std::string& name, const std::string& path) {
    const auto loaded = trained_adapter(path, config, memory, backbone, backbone_digest);
    const auto model = std::make_shared<compress::CompressedModel>(loaded.adapted.backbone, loaded.adapter);
    std::string text = "trained: " + model->describe();
    if (loaded.adapted.config.active())
      text += "; on a changed backbone: " + loaded.adapted.config.describe();
    return compressed(name, text, model, chunk, first);
  };
  std::vector<Method> out;
  for (const std::string& name : fidelity_methods(config)) {
    if (name == "noise_floor") {
      out.push_back(plain(name,
                          "every key and value is kept; the whole segment in one call of the plain backbone",
                          backbone));
    } else if (name == "oracle") {
      out.push_back(oracle_method(name, config.oracle, backbone, memory, chunk));
    } else if (name == "adaptive_entropy") {
      out.push_back(adaptive_by_entropy(name, backbone, memory, chunk, first));
    } else if (name == "focus") {
      out.push_back(trained(name, config.adapter));
    } else if (const auto labelled = config.adapters.find(name); labelled != config.adapters.end()) {
      out.push_back(trained(name, labelled->second));
    } else {
      const auto model = compress::make_memory(name, backbone, memory);
      out.push_back(compressed(name, model->describe(), model, chunk, first));
    }
  }
  return out;
}

}  // namespace focus::eval
