#include "focus/core/error.h"
#include "focus/core/log.h"
#include "focus/core/units.h"
#include "focus/model/initialise.h"
#include "focus/weights/load_model.h"
#include "loss_positions.h"
#include "task_kinds.h"

namespace focus::train {
namespace {

using at::Tensor;

/// Cross-entropy of each next base, [B, L-1].
Tensor next_base_loss(model::Backbone& model, const Batch& batch) {
  const Tensor logits_BLV = model.forward(batch.tokens);
  const Tensor log_p = at::log_softmax(logits_BLV.narrow(1, 0, logits_BLV.size(1) - 1), -1, at::kFloat);
  return cross_entropy(log_p, next_bases(batch));
}

class NextBase final : public Objective {
 public:
  explicit NextBase(std::shared_ptr<model::Backbone> model) : model_(std::move(model)) {}
  Tensor weigh(Batch& batch) override { return batch.weights.sum(at::kDouble); }
  LossSum loss(const Batch& batch) override {
    const Tensor losses = next_base_loss(*model_, batch);
    return {(losses * batch.weights.narrow(1, 1, losses.size(1))).sum(), {}, {}};
  }

 private:
  std::shared_ptr<model::Backbone> model_;
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

  std::unique_ptr<Objective> objective(int64_t, const StageConfig&) override {
    return std::make_unique<NextBase>(model_);
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
