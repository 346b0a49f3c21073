#include "tasks/pretrain.h"

#include "focus/core/error.h"
#include "focus/core/log.h"
#include "focus/core/units.h"
#include "focus/model/initialise.h"
#include "focus/weights/load_model.h"

namespace focus::train {
namespace {

using at::Tensor;

/// Cross-entropy of each next base, [B, L-1], from final hidden states.
Tensor next_base_loss(const Tensor& logits_BLV, const Tensor& tokens_BL) {
  const int64_t length = tokens_BL.size(1);
  const Tensor log_p = at::log_softmax(logits_BLV.narrow(1, 0, length - 1), -1, at::kFloat);
  return -log_p.gather(-1, tokens_BL.narrow(1, 1, length - 1).unsqueeze(-1)).squeeze(-1);
}

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
    for (auto& item : model_->named_parameters()) {
      bool frozen = false;
      for (const auto& suffix : config.freeze) frozen = frozen || item.key().ends_with(suffix);
      item.value().set_requires_grad(!frozen);
      // Filters, norms, biases and gains are no matrices: decay would pull them to a meaningless zero.
      if (!frozen)
        parameters_.push_back({item.key(), item.value(),
                               item.key().ends_with(".weight") && item.value().dim() == 2 && !item.key().ends_with("short_filter_weight")});
    }
    model_->set_recompute(config.recompute);
    if (parameters_.empty()) fail<ConfigError>("freeze leaves no parameter to train");
    log::info(concat("backbone '", model_->config().name, "': ", format_count(model_->num_parameters()), " parameters"));
  }

  std::vector<Parameter> parameters() override { return parameters_; }
  const model::Backbone& backbone() const override { return *model_; }
  const model::Vocabulary& vocabulary() const override { return model_->vocabulary(); }

  double weight_of(const Batch& batch) const override { return batch.weights.sum(at::kDouble).item<double>(); }

  LossSum loss(const Batch& batch) override {
    const Tensor losses = next_base_loss(model_->forward(batch.tokens), batch.tokens);
    return {(losses * batch.weights.narrow(1, 1, losses.size(1))).sum(), weight_of(batch), {}};
  }

  void after_step() override {
    at::NoGradGuard guard;
    for (const auto& block : model_->blocks->items) {
      // A decay above 1 would let the state grow without bound.
      if (block->kind() == model::BlockKind::hcl) block->filter->log_poles.clamp_max_(-1e-7);
    }
  }

  Validation validate(const std::vector<Batch>& batches) override {
    at::NoGradGuard guard;
    double natural = 0, natural_count = 0, copies = 0, copies_count = 0;
    for (const Batch& batch : batches) {
      const Tensor losses = next_base_loss(model_->forward(batch.tokens), batch.tokens);
      const int64_t columns = losses.size(1);
      const Tensor valid = batch.weights.narrow(1, 1, columns).gt(0), offset = batch.copy_offset.narrow(1, 1, columns);
      const auto add = [&](const Tensor& mask, double& sum, double& count) {
        sum += (losses * mask).sum(at::kDouble).item<double>();
        count += mask.sum(at::kDouble).item<double>();
      };
      add(valid.logical_and(offset.lt(0)), natural, natural_count);
      add(valid.logical_and(offset.ge(32)), copies, copies_count);
    }
    Validation out;
    out.primary = natural / std::max(natural_count, 1.0);
    out.figures = {{"validation_loss", out.primary}};
    if (copies_count > 0) {
      out.figures.emplace_back("validation_copy_loss", copies / copies_count);
      out.primary += copies / copies_count;
    }
    return out;
  }

  std::string identity() const override { return model_->config().name; }

  void write_result(const std::filesystem::path& folder) override {
    weights::save_weights(*model_, folder / "model.pt");
    log::info(concat("wrote ", (folder / "model.pt").string()));
  }

 private:
  std::shared_ptr<model::StripedHyena> model_;
  std::vector<Parameter> parameters_;
};

}  // namespace

std::unique_ptr<Task> make_pretrain_task(const TrainConfig& config, const at::Device& device) {
  return std::make_unique<PretrainTask>(config, device);
}

}  // namespace focus::train
