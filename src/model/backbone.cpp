#include "focus/model/backbone.h"

#include <array>
#include <utility>

#include "focus/cache/known_output.h"
#include "focus/core/error.h"
#include "focus/ops/attention.h"
#include "focus/ops/recompute.h"

namespace focus::model {

using at::Tensor;

namespace {

/// What Hyena blocks carry, tensor by tensor.
std::vector<Tensor*> carried_tensors(const cache::StreamState& state) {
  std::vector<Tensor*> out;
  for (const auto& layer : state.layers) {
    if (auto* hyena = dynamic_cast<cache::HyenaLayerState*>(layer.get()))
      out.insert(out.end(), {&hyena->tensors.fir, &hyena->tensors.inner});
  }
  return out;
}

}  // namespace

Tensor chunk_positions(const Tensor& u_BLD, int64_t position, const cache::LayerState* state) {
  if (state != nullptr && state->stretch != nullptr)
    return state->stretch->counted(position, at::kLong, u_BLD.device());
  return at::arange(position, position + u_BLD.size(1),
                    at::TensorOptions().dtype(at::kLong).device(u_BLD.device()));
}

Tensor attend(const nn::Attention& attention, const Tensor& u_BLD, int64_t position,
              cache::LayerState* state) {
  nn::Projection now = attention.project(u_BLD, chunk_positions(u_BLD, position, state));
  Tensor num_keys;
  if (state != nullptr) {
    auto* past = dynamic_cast<cache::KeyValueState*>(state);
    FOCUS_CHECK(past != nullptr,
                "an attention layer was handed a state of another kind; a stream belongs to one hook");
    past->append(now.k, now.v);
    now.k = past->keys();
    now.v = past->values();
    if (state->stretch != nullptr) {
      num_keys = state->stretch->counted(past->size(), at::kInt, u_BLD.device());
      now.k = past->keys_and_room();
      now.v = past->values_and_room();
    }
  }
  return attention.output(ops::memory_attention(now.q, {}, now.k, now.v, num_keys));
}

Tensor Backbone::forward_embedded(const Tensor& x_BLD, cache::StreamState* state, AttentionHook* hook) {
  if (x_BLD.dim() != 3 || x_BLD.size(1) < 1)
    fail<ShapeError>("a chunk must be [batch, length >= 1, width], got ", x_BLD.sizes());
  if (state != nullptr && state->layers.empty()) {
    for (const auto& block : blocks_)
      state->layers.push_back(block->make_state(hook, state->expected_length));
  }
  const int64_t position = state != nullptr ? state->position : 0;
  cache::Stretch* stretch = state != nullptr ? state->stretch.get() : nullptr;
  FOCUS_CHECK(stretch == nullptr || (x_BLD.size(1) == 1 && !at::GradMode::is_enabled()),
              "a stretch goes on base by base, without gradients");
  // From its second base on a stretch reads and writes the same tensors.
  std::vector<Tensor> kept;
  if (state != nullptr) {
    for (const auto& layer : state->layers) layer->stretch = stretch;
    if (stretch != nullptr && stretch->read > 0) {
      for (const Tensor* tensor : carried_tensors(*state)) kept.push_back(*tensor);
    }
  }
  Tensor x = x_BLD;
  std::size_t first = 0;
  for (std::size_t i = state != nullptr ? blocks_.size() : 0; i-- > 0;) {
    const auto* known = dynamic_cast<const cache::KnownOutput*>(state->layers[i].get());
    if (known == nullptr) continue;
    if (position < known->length()) {
      FOCUS_CHECK(stretch == nullptr, "a stretch runs every block");
      x = known->rows(position, x_BLD.size(1));
      first = i + 1;
    } else {
      cache::KnownOutput::States own = known->after();
      std::move(own.begin(), own.end(), state->layers.begin());
    }
    break;
  }
  for (std::size_t i = first; i < blocks_.size(); ++i) {
    if (!devices_.empty()) x = x.to(devices_[i]);
    x = run_block(i, x, position, state != nullptr ? state->layers[i].get() : nullptr, hook);
  }
  if (stretch != nullptr) {
    if (!kept.empty()) {
      const std::vector<Tensor*> carried = carried_tensors(*state);
      // Those of one type are copied by one kernel.
      std::map<at::ScalarType, std::array<std::vector<Tensor>, 2>> copies;
      for (std::size_t i = 0; i < kept.size(); ++i) {
        auto& [to, from] = copies[kept[i].scalar_type()];
        to.push_back(kept[i]);
        from.push_back(std::exchange(*carried[i], kept[i]));
      }
      for (const auto& [type, tensors] : copies) at::_foreach_copy_(tensors[0], tensors[1]);
    }
    for (const auto& layer : state->layers) layer->stretch = nullptr;
    stretch->index.add_(1);
    ++stretch->read;
  }
  if (state != nullptr) state->position += x_BLD.size(1);
  return final_norm(devices_.empty() ? x : x.to(devices_.front()));
}

Tensor Backbone::run_block(std::size_t index, const Tensor& x_BLD, int64_t position, cache::LayerState* state,
                           AttentionHook* hook) {
  Block& block = *blocks_[index];
  const bool attends = block.attention() != nullptr;
  const bool repeatable = !attends || (state == nullptr && (hook == nullptr || hook->repeatable()));
  if (!recompute_ || !at::GradMode::is_enabled() || !repeatable)
    return block.forward(x_BLD, position, state, hook);
  if (attends && hook != nullptr) {
    // What the hook carries enters and leaves as tensors, so that gradients pass through it and a second run
    // starts where the first did.
    const auto run = [&block, position, held = hook->shared_from_this()](const std::vector<Tensor>& in) {
      held->carry({in.begin() + 1, in.end()});
      std::vector<Tensor> out = {block.forward(in[0], position, nullptr, held.get())};
      for (const Tensor& tensor : held->carried()) out.push_back(tensor);
      held->carry({});  // a carried tensor's graph holds this function, which holds the hook
      return out;
    };
    std::vector<Tensor> inputs = {x_BLD};
    for (const Tensor& tensor : hook->carried()) inputs.push_back(tensor);
    const auto outputs = ops::recomputed(run, inputs, /*has_parameters=*/true);
    hook->carry({outputs.begin() + 1, outputs.end()});
    return outputs[0];
  }
  const auto parameters = block.parameters();
  const bool trains =
      std::any_of(parameters.begin(), parameters.end(), [](const Tensor& p) { return p.requires_grad(); });
  if (state == nullptr) {
    const auto run = [&block, position](const std::vector<Tensor>& in) -> std::vector<Tensor> {
      return {block.forward(in[0], position, nullptr, nullptr)};
    };
    return ops::recomputed(run, {x_BLD}, trains)[0];
  }
  // What a Hyena block carries enters and leaves as tensors, so that gradients pass through it too.
  auto* carried = dynamic_cast<cache::HyenaLayerState*>(state);
  FOCUS_CHECK(carried != nullptr, "block ", index, " was handed a state of another kind");
  const bool begun = carried->tensors.fir.defined();
  const auto run = [&block, position, begun](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    cache::HyenaLayerState own;
    if (begun) own.tensors = {in[1], in[2]};
    const Tensor y = block.forward(in[0], position, &own, nullptr);
    return {y, own.tensors.fir, own.tensors.inner};
  };
  std::vector<Tensor> inputs = {x_BLD};
  if (begun) inputs.insert(inputs.end(), {carried->tensors.fir, carried->tensors.inner});
  const auto outputs = ops::recomputed(run, inputs, trains);
  carried->tensors = {outputs[1], outputs[2]};
  return outputs[0];
}

void Backbone::place(const std::vector<at::Device>& devices) {
  const auto places_of = places(devices);
  // One by one: no card need hold what belongs to another.
  const auto move = [&](const auto& tensors) {
    for (Tensor tensor : tensors) {
      const at::Device& device = places_of.at(tensor.unsafeGetTensorImpl());
      if (tensor.device() != device) tensor.set_data(tensor.to(device));
    }
  };
  const at::NoGradGuard guard;
  move(parameters());
  move(buffers());
  devices_ = devices;
}

std::map<const c10::TensorImpl*, at::Device> Backbone::places(const std::vector<at::Device>& devices) const {
  FOCUS_CHECK(devices.size() == blocks_.size(), "one device per block");
  std::map<const c10::TensorImpl*, at::Device> out;
  const auto note = [&](const torch::nn::Module& module, const at::Device& device) {
    for (const Tensor& t : module.parameters()) out.emplace(t.unsafeGetTensorImpl(), device);
    for (const Tensor& t : module.buffers()) out.emplace(t.unsafeGetTensorImpl(), device);
  };
  for (std::size_t i = 0; i < blocks_.size(); ++i) note(*blocks_[i], devices[i]);
  note(*this, devices.front());  // all that is in no block
  return out;
}

at::Device Backbone::block_device(int64_t block) const {
  return devices_.empty() ? device() : devices_.at(static_cast<std::size_t>(block));
}

Tensor Backbone::forward(const Tensor& tokens_BL, cache::StreamState* state, AttentionHook* hook) {
  return unembed(forward_embedded(embed(tokens_BL), state, hook));
}

std::vector<int64_t> Backbone::attention_blocks() const {
  std::vector<int64_t> out;
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    if (blocks_[i]->attention() != nullptr) out.push_back(static_cast<int64_t>(i));
  }
  return out;
}

int64_t Backbone::num_parameters() const {
  int64_t total = 0;
  for (const auto& parameter : parameters()) total += parameter.numel();
  return total;
}

void Backbone::set_trainable(bool trainable) {
  for (auto& parameter : parameters()) parameter.set_requires_grad(trainable);
}

void Backbone::alias(const Backbone& original) {
  const auto share = [](const auto& own, const auto& others) {
    FOCUS_CHECK(own.size() == others.size(),
                "a twin needs a model as it was loaded, without changes of its layers");
    for (const auto& item : own) {
      Tensor tensor = item.value();
      tensor.set_data(others[item.key()].detach());
    }
  };
  share(named_parameters(), original.named_parameters());
  share(named_buffers(), original.named_buffers());
  const auto own = modules(/*include_self=*/false), others = original.modules(/*include_self=*/false);
  for (std::size_t i = 0; i < own.size(); ++i) {
    if (auto* linear = dynamic_cast<nn::Linear*>(own[i].get()))
      linear->share_fp8(dynamic_cast<const nn::Linear&>(*others[i]));
  }
  devices_ = original.devices_;
  recompute_ = original.recompute_;
  set_trainable(false);
  eval();
}

at::ScalarType Backbone::dtype_of_parameter(const std::string&, at::ScalarType compute) const {
  return compute;
}

void Backbone::cast(at::ScalarType compute) {
  at::NoGradGuard guard;
  for (const auto& item : named_parameters()) {
    Tensor parameter = item.value();
    parameter.set_data(parameter.to(dtype_of_parameter(item.key(), compute)));
  }
}

}  // namespace focus::model
