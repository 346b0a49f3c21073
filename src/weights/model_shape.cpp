#include "focus/weights/model_shape.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <map>
#include <optional>
#include <string_view>

#include "focus/core/error.h"
#include "focus/model/parameter_list.h"

namespace focus::weights {

using formats::DType;
using formats::shape_text;
using formats::TensorFile;
using formats::TensorView;

namespace {

using Shape = std::vector<int64_t>;

int64_t size_at(const TensorView* tensor, std::size_t dimension) {
  return tensor != nullptr && dimension < tensor->shape.size() ? tensor->shape[dimension] : 0;
}

/// "blocks.12.filter.h" with prefix "blocks." -> 12.
std::optional<int64_t> layer_of(std::string_view name, std::string_view prefix) {
  if (!name.starts_with(prefix)) return std::nullopt;
  int64_t layer = 0;
  const char* const end = name.data() + name.size();
  const auto [stop, error] = std::from_chars(name.data() + prefix.size(), end, layer);
  if (error != std::errc() || stop == end || *stop != '.' || layer < 0) return std::nullopt;
  return layer;
}

int64_t count_layers(const TensorFile& file, std::string_view prefix) {
  int64_t count = 0;
  for (const TensorView& tensor : file.tensors()) {
    // A number out of all proportion is no layer; it would only make this slow.
    if (const auto layer = layer_of(tensor.name, prefix); layer && *layer < 100000)
      count = std::max(count, *layer + 1);
  }
  return count;
}

/// inv_freq[i] = base^(-2i/dim), so the second one gives the base. Zero where there is none.
double base_of(const TensorView& inv_freq) {
  if (inv_freq.shape.size() != 1 || inv_freq.shape[0] < 2) return 0;
  float second = 0;
  if (inv_freq.dtype == DType::float32) {
    std::memcpy(&second, inv_freq.data + sizeof(float), sizeof second);
  } else if (inv_freq.dtype == DType::bfloat16) {
    std::memcpy(reinterpret_cast<std::byte*>(&second) + 2, inv_freq.data + 2, 2);
  }
  return second > 0 ? std::pow(static_cast<double>(second), -static_cast<double>(inv_freq.shape[0])) : 0;
}

std::string block_kind(const TensorFile& file, const std::string& prefix) {
  const auto has = [&](const char* name) { return file.find(prefix + name) != nullptr; };
  if (has("inner_mha_cls.Wqkv.weight")) return name_of(model::BlockKind::attention);
  if (has("filter.log_poles") || has("filter.residues")) return name_of(model::BlockKind::hcl);
  if (!has("filter.h")) return "?";
  return name_of(has("filter.D") ? model::BlockKind::hcm : model::BlockKind::hcs);
}

void read_evo2(const TensorFile& file, ModelShape& out) {
  const TensorView* embedding = file.find("embedding_layer.weight");
  out.vocab_size = size_at(embedding, 0);
  out.hidden_size = size_at(embedding, 1);
  out.num_layers = count_layers(file, "blocks.");
  out.own_unembedding = file.find("unembed.weight") != nullptr;
  for (int64_t layer = 0; layer < out.num_layers; ++layer) {
    const std::string prefix = concat("blocks.", layer, ".");
    const auto find = [&](const char* name) { return file.find(prefix + name); };
    const std::string& kind = out.blocks.emplace_back(block_kind(file, prefix));
    const auto keep = [](int64_t& target, int64_t value) { target = value > 0 ? value : target; };
    keep(out.inner_mlp_size, size_at(find("mlp.l1.weight"), 0));
    keep(out.input_taps, size_at(find("filter.short_filter_weight"), 2));
    if (const TensorView* h = find("filter.h"); h != nullptr) {
      keep(kind == "hcs" ? out.hcs_groups : out.hcm_groups, size_at(h, 0));
      keep(kind == "hcs" ? out.hcs_taps : out.hcm_taps, size_at(h, 2));
    }
    keep(out.state_size, size_at(find("filter.residues"), 1));
    if (const TensorView* inv_freq = find("inner_mha_cls.rotary_emb.inv_freq"); inv_freq != nullptr) {
      out.head_dim = 2 * size_at(inv_freq, 0);
      out.rotary_base = base_of(*inv_freq);
    }
  }
  if (out.head_dim > 0 && out.hidden_size % out.head_dim == 0)
    out.num_heads = out.num_key_value_heads = out.hidden_size / out.head_dim;
}

void read_llama(const TensorFile& file, ModelShape& out) {
  const TensorView* embedding = file.find("model.embed_tokens.weight");
  out.vocab_size = size_at(embedding, 0);
  out.hidden_size = size_at(embedding, 1);
  out.num_layers = count_layers(file, "model.layers.");
  out.own_unembedding = file.find("lm_head.weight") != nullptr;
  out.inner_mlp_size = size_at(file.find("model.layers.0.mlp.gate_proj.weight"), 0);
  // How wide a head is stands in config.json; the tensors tell it only where heads have a norm of their own
  // or frequencies are stored.
  out.head_dim = size_at(file.find("model.layers.0.self_attn.q_norm.weight"), 0);
  for (const char* name : {"model.layers.0.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq"}) {
    if (const TensorView* inv_freq = file.find(name); inv_freq != nullptr) {
      out.head_dim = 2 * size_at(inv_freq, 0);
      out.rotary_base = base_of(*inv_freq);
    }
  }
  if (out.head_dim > 0) {
    out.num_heads = size_at(file.find("model.layers.0.self_attn.q_proj.weight"), 0) / out.head_dim;
    out.num_key_value_heads = size_at(file.find("model.layers.0.self_attn.k_proj.weight"), 0) / out.head_dim;
  }
}

}  // namespace

const char* name_of(ModelKind kind) {
  switch (kind) {
    case ModelKind::evo2:
      return "evo2";
    case ModelKind::llama:
      return "llama";
    case ModelKind::focus_adapter:
      return "focus_adapter";
    case ModelKind::unknown:
      return "unknown";
  }
  return "?";
}

ModelShape guess_shape(const TensorFile& file) {
  ModelShape out;
  for (const TensorView& tensor : file.tensors()) {
    if (!computes_nothing(tensor.name) && !tensor.name.ends_with("inv_freq"))
      out.num_parameters += tensor.num_elements();
  }
  const auto format = file.metadata().find("format");
  if (format != file.metadata().end() && format->second.starts_with("focus-adapter")) {
    out.kind = ModelKind::focus_adapter;
  } else if (file.find("embedding_layer.weight") != nullptr && count_layers(file, "blocks.") > 0) {
    out.kind = ModelKind::evo2;
    read_evo2(file, out);
  } else if (file.find("model.embed_tokens.weight") != nullptr &&
             file.find("model.layers.0.self_attn.q_proj.weight") != nullptr) {
    out.kind = ModelKind::llama;
    read_llama(file, out);
  }
  return out;
}

std::vector<std::string> mismatches(const TensorFile& file, const model::ModelConfig& config) {
  std::vector<std::string> out;
  std::map<std::string, Shape> wanted;
  for (auto& spec : model::parameter_list(config))
    wanted.emplace(std::move(spec.name), std::move(spec.shape));
  for (const TensorView& tensor : file.tensors()) {
    const auto found = wanted.find(tensor.name);
    if (found == wanted.end()) {
      if (!computes_nothing(tensor.name)) out.push_back(tensor.name + ": not in the configuration");
      continue;
    }
    if (found->second != tensor.shape) {
      out.push_back(concat(tensor.name, ": ", shape_text(tensor.shape), " in the file, ",
                           shape_text(found->second), " by the configuration"));
    } else if (tensor.name.ends_with("inv_freq")) {
      // Stored frequencies are used as they are, so another base is another model. bf16 keeps 8 bits of a
      // frequency near base^(-2/dim).
      const double base = base_of(tensor);
      if (base > 0 && std::abs(std::log(base / config.rotary_base)) > 0.3)
        out.push_back(concat(tensor.name, ": rotary base ", std::round(base), " in the file, ",
                             config.rotary_base, " by the configuration"));
    }
    wanted.erase(found);
  }
  for (const auto& item : wanted)
    out.push_back(
        concat(item.first, ": ", shape_text(item.second), " by the configuration, missing in the file"));
  return out;
}

bool keeps_fp32(const std::string& name) {
  return name.ends_with("log_poles") || name.ends_with("residues") || name.ends_with("inv_freq");
}

bool computes_nothing(const std::string& name) {
  return name == "unembed.weight" || name.ends_with("mixer.mixer.filter.t") || name.ends_with("_extra_state");
}

}  // namespace focus::weights
