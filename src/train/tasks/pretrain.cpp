#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "focus/core/error.h"
#include "focus/core/log.h"
#include "focus/core/units.h"
#include "focus/model/initialise.h"
#include "focus/nn/attention.h"
#include "focus/ops/attention.h"
#include "focus/weights/load_model.h"
#include "loss_positions.h"
#include "task_kinds.h"

namespace focus::train {
namespace {

using at::Tensor;

/// Cross-entropy of each next base, [B, L-1].
Tensor next_base_loss(model::Backbone& model, const Batch& batch, model::AttentionHook* hook = nullptr) {
  const Tensor logits_BLV = model.forward(batch.tokens, nullptr, hook);
  const Tensor log_p = at::log_softmax(logits_BLV.narrow(1, 0, logits_BLV.size(1) - 1), -1, at::kFloat);
  return cross_entropy(log_p, next_bases(batch));
}

/// One attention block sees its open window alone, the others everything. For whole sequences.
class OneForgets final : public model::AttentionHook {
 public:
  OneForgets(int64_t block, int64_t window) : block_(block), window_(window) {}
  Tensor mix(const model::AttentionCall& call) override {
    const int64_t length = call.u_BLD.size(1), window = call.block == block_ ? window_ : length;
    const nn::Projection all =
        call.attention.project(call.u_BLD, at::arange(length, call.u_BLD.options().dtype(at::kLong)));
    std::vector<Tensor> outputs;
    for (int64_t begin = 0; begin < length; begin += window) {
      const auto rows = [&](const Tensor& t) { return t.narrow(2, begin, std::min(window, length - begin)); };
      outputs.push_back(ops::causal_attention(rows(all.q), rows(all.k), rows(all.v)));
    }
    return call.attention.output(at::cat(outputs, 2));
  }
  bool repeatable() const override { return true; }
  std::unique_ptr<cache::LayerState> make_state(int64_t) override {
    fail<InternalError>("a pass in which one block forgets is no stream");
  }

 private:
  const int64_t block_, window_;
};

class NextBase final : public Objective {
 public:
  /// `forgets`: the attention block that does, where `forgetting` has a weight.
  NextBase(std::shared_ptr<model::Backbone> model, const ForgettingConfig& forgetting, int64_t forgets)
      : model_(std::move(model)), forgetting_(forgetting), forgets_(forgets) {
    if (forgetting_.weight > 0) facts = {{"forgets", forgets_}};
  }
  Tensor weigh(Batch& batch) override { return batch.weights.sum(at::kDouble); }
  void loss(const Batch& batch, const std::function<void(const LossSum&)>& add) override {
    add(loss_of(batch));
  }

 private:
  LossSum loss_of(const Batch& batch) const {
    const Tensor losses = next_base_loss(*model_, batch);
    const Tensor weights = batch.weights.narrow(1, 1, losses.size(1));
    LossSum out{(losses * weights).sum(), {}, {}};
    if (forgetting_.weight == 0) return out;
    const auto hook = std::make_shared<OneForgets>(forgets_, forgetting_.window);
    const Tensor in_copy = copy_positions(batch) * weights.gt(0);
    const Tensor count = in_copy.sum(), known = (losses.detach() * in_copy).sum(),
                 forgotten = (next_base_loss(*model_, batch, hook.get()) * in_copy).sum();
    const Tensor missing = (forgetting_.margin * count - (forgotten - known)).clamp_min(0);
    out.parts.emplace_back("forgetting", missing.detach());
    out.means.push_back({"copy_loss", known.to(at::kDouble), count.to(at::kDouble)});
    out.means.push_back({"forgetting_copy_loss", forgotten.detach().to(at::kDouble), count.to(at::kDouble)});
    out.sum = out.sum + forgetting_.weight * missing;
    return out;
  }

  std::shared_ptr<model::Backbone> model_;
  ForgettingConfig forgetting_;
  int64_t forgets_;
};

class PretrainTask final : public Task {
 public:
  PretrainTask(const TrainConfig& config, const at::Device& device)
      : model_(std::make_shared<model::StripedHyena>(model::read_model_config(config.model_config))) {
    if (config.model_checkpoint.empty()) {
      model::InitConfig init = config.init;
      init.seed += config.seed;
      model::initialise(*model_, init);
    } else {
      weights::load_weights_file(*model_, config.model_checkpoint, {});
    }
    model_->to(device);
    trained_.backbone = model_;
    trained_.identity = model_->config().name;
    for (auto& item : model_->named_parameters()) {
      bool frozen = false;
      for (const auto& suffix : config.freeze) frozen = frozen || item.key().ends_with(suffix);
      item.value().set_requires_grad(!frozen);
      // Filters, norms, biases and gains are no matrices: decay would pull them to a meaningless zero.
      if (!frozen)
        trained_.parameters.push_back(backbone_parameter(item.key(), item.value(),
                                                         item.key().ends_with(".weight") &&
                                                             item.value().dim() == 2 &&
                                                             !item.key().ends_with("short_filter_weight")));
    }
    model_->set_recompute(config.recompute);
    if (trained_.parameters.empty()) fail<ConfigError>("freeze leaves no parameter to train");
    log::info(concat("backbone '", model_->config().name, "': ", format_count(model_->num_parameters()),
                     " parameters"));
  }

  const TrainedModel& model() const override { return trained_; }

  std::unique_ptr<Objective> objective(int64_t step, const StageConfig& stage) override {
    const std::vector<int64_t> blocks = model_->attention_blocks();
    const int64_t forgets = blocks.empty() ? -1 : blocks[static_cast<std::size_t>(step) % blocks.size()];
    return std::make_unique<NextBase>(model_, stage.forgetting, forgets);
  }

  Validation validate(const Batch& sequence) override {
    const Tensor losses = next_base_loss(*model_, sequence);
    const Tensor valid = sequence.weights.narrow(1, 1, losses.size(1)).gt(0);
    const auto mean = [&](const std::string& name, const Tensor& mask) -> Mean {
      return {name, (losses * mask).sum(at::kDouble), mask.sum(at::kDouble)};
    };
    const Tensor natural = sequence.copy_offset.narrow(1, 1, losses.size(1)).lt(0);
    return {{mean("loss", valid.logical_and(natural)), mean("copy_loss", valid * copy_positions(sequence))},
            2};
  }

  // A .pt has no place for how it was made; config.json and provenance.json beside it say it.
  void write_result(const std::filesystem::path& folder, const std::string&) const override {
    weights::save_weights(*model_, folder / "model.pt");
    log::info(concat("wrote ", (folder / "model.pt").string()));
  }

 private:
  std::shared_ptr<model::StripedHyena> model_;
  TrainedModel trained_;
};

}  // namespace

std::unique_ptr<Task> make_pretrain_task(const TrainConfig& config, const at::Device& device) {
  return std::make_unique<PretrainTask>(config, device);
}

}  // namespace focus::train
