#include "adapter_task.h"

#include "focus/compress/compressed_model.h"
#include "focus/core/error.h"
#include "focus/core/log.h"
#include "focus/core/units.h"
#include "focus/model/placement.h"
#include "focus/weights/checkpoint.h"

namespace focus::train {
namespace {

using at::Tensor;

class AdapterTask final : public Task {
 public:
  explicit AdapterTask(const TrainConfig& config)
      : config_(config),
        loaded_(weights::load_model(config.model_config, config.model_checkpoint, pick_dtype(config.dtype),
                                    model::resolve_devices(config.device), config.fp8)),
        adapter_(std::make_shared<compress::FocusAdapter>(*loaded_.model, config.memory, config.seed)),
        model_(loaded_.model, adapter_) {
    for (auto& item : adapter_->named_parameters()) {
      item.value().set_requires_grad(true);
      parameters_.push_back({item.key(), item.value(), item.value().dim() == 2});
    }
    if (parameters_.empty())
      fail<ConfigError>(
          "focus.fitted.corrections is off and the fit itself has no parameter: there is nothing to train; focus-eval measures it "
          "as 'fitted'");
    if (config.memory.focus.history == compress::History::none)
      fail<ConfigError>("focus.history 'none' reads no entry, so nothing can be trained");
    int64_t trainable = 0;
    for (const auto& parameter : parameters_) trainable += parameter.tensor.numel();
    loaded_.model->set_recompute(config.recompute);
    log::info(concat("backbone '", loaded_.model->shape().name, "': ", format_count(loaded_.model->num_parameters()),
                     " parameters, frozen; adapter: ", format_count(trainable)));
  }

  std::vector<Parameter> parameters() override { return parameters_; }
  const model::Backbone& backbone() const override { return *loaded_.model; }
  const model::Vocabulary& vocabulary() const override { return loaded_.model->vocabulary(); }

  double weight_of(const Batch& batch) const override {
    double total = loss_weights(batch).sum(at::kDouble).item<double>();
    if (config_.objective.focus_positions) total += focus_weights(batch, focus_next(batch)).sum(at::kDouble).item<double>();
    return total;
  }

  LossSum loss(const Batch& batch) override {
    const compress::HiddenStates hidden =
        config_.execution == Execution::parallel ? model_.parallel(batch.tokens) : sequential(batch.tokens);
    const Tensor weights = loss_weights(batch);
    const Tensor log_q = log_probabilities(hidden.bases);
    LossSum out;
    out.weight = weight_of(batch);
    out.sum = at::zeros({}, log_q.options());
    if (config_.objective.ce > 0) {
      const Tensor ce = -(log_q.gather(-1, batch.tokens.narrow(1, 1, log_q.size(1)).unsqueeze(-1)).squeeze(-1) * weights).sum();
      out.parts.emplace_back("ce", ce.item<double>());
      out.sum = out.sum + config_.objective.ce * ce;
    }
    if (config_.objective.kl > 0) {
      const Tensor kl = (divergence(teacher(batch.tokens), log_q) * weights).sum();
      out.parts.emplace_back("kl", kl.item<double>());
      out.sum = out.sum + config_.objective.kl * kl;
    }
    if (config_.objective.focus_positions && hidden.focus.defined()) {
      // Eq. 6: a Focus token predicts the base after its k-mer.
      const Tensor next = hidden.next_base.to(batch.tokens.device()), weight = focus_weights(batch, next);
      const Tensor inside = next.clamp_max(batch.tokens.size(1) - 1);
      const Tensor log_f = at::log_softmax(loaded_.model->unembed(hidden.focus), -1, at::kFloat);
      const Tensor target = batch.tokens.index_select(1, inside).unsqueeze(-1);
      out.sum = out.sum - config_.objective.ce * (log_f.gather(-1, target).squeeze(-1) * weight).sum();
    }
    return out;
  }

  Validation validate(const std::vector<Batch>& batches) override {
    at::NoGradGuard guard;
    double kl = 0, ce = 0, ce_full = 0, total = 0;
    for (const Batch& batch : batches) {
      const Tensor weights = loss_weights(batch).gt(0).to(at::kFloat);
      const Tensor log_q = log_probabilities(model_.parallel(batch.tokens).bases), log_p = teacher(batch.tokens);
      const Tensor target = batch.tokens.narrow(1, 1, log_q.size(1)).unsqueeze(-1);
      kl += (divergence(log_p, log_q) * weights).sum(at::kDouble).item<double>();
      ce -= (log_q.gather(-1, target).squeeze(-1) * weights).sum(at::kDouble).item<double>();
      ce_full -= (log_p.gather(-1, target).squeeze(-1) * weights).sum(at::kDouble).item<double>();
      total += weights.sum(at::kDouble).item<double>();
    }
    total = std::max(total, 1.0);
    return {{{"validation_kl", kl / total}, {"validation_ce", ce / total}, {"validation_ce_full", ce_full / total}}, kl / total};
  }

  std::string identity() const override { return loaded_.digest; }

  void write_result(const std::filesystem::path& folder) override {
    compress::save_adapter(*adapter_, loaded_.digest, folder / "adapter.safetensors");
    log::info(concat("wrote ", (folder / "adapter.safetensors").string()));
  }

 private:
  /// [B, L-1] weights of the predictions of bases 1..L-1.
  Tensor loss_weights(const Batch& batch) const {
    Tensor weights = batch.weights.narrow(1, 1, batch.weights.size(1) - 1);
    if (!config_.objective.skip_first_window) return weights;
    // Position p predicts base p + 1 with the memory of p: the first window's end is the first whose output entries can change.
    const int64_t first = std::min(model_.plan().window(0).end, weights.size(1));
    weights = weights.clone();
    weights.narrow(1, 0, first).zero_();
    return weights;
  }
  Tensor focus_next(const Batch& batch) const {
    std::vector<int64_t> next;
    int64_t completed = 0;
    for (int64_t t = 1; t <= batch.tokens.size(1); ++t) {
      if (model_.plan().kmers_completed(t) > completed) {
        next.push_back(t);
        ++completed;
      }
    }
    return at::tensor(next, at::kLong).to(batch.tokens.device());
  }
  Tensor focus_weights(const Batch& batch, const Tensor& next) const {
    const int64_t length = batch.tokens.size(1);
    const int64_t first = config_.objective.skip_first_window ? model_.plan().window(0).end + 1 : 0;
    return batch.weights.index_select(1, next.clamp_max(length - 1)) * next.lt(length).logical_and(next.ge(first)).to(at::kFloat);
  }

  /// [B, L-1, V] fp32.
  Tensor log_probabilities(const Tensor& hidden) const {
    return at::log_softmax(loaded_.model->unembed(hidden.narrow(1, 0, hidden.size(1) - 1)), -1, at::kFloat);
  }
  Tensor teacher(const Tensor& tokens) {
    at::NoGradGuard guard;
    return log_probabilities(loaded_.model->forward_embedded(loaded_.model->embed(tokens), nullptr));
  }
  /// KL(p || q) per position.
  static Tensor divergence(const Tensor& log_p, const Tensor& log_q) { return (log_p.exp() * (log_p - log_q)).sum(-1); }

  compress::HiddenStates sequential(const Tensor& tokens) {
    compress::CompressedStream stream;
    std::vector<Tensor> bases, focus, next;
    int64_t windows = 0;
    for (int64_t begin = 0; begin < tokens.size(1);) {
      const int64_t end = std::min(model_.plan().next_close(begin, false), tokens.size(1));
      if (config_.bptt_windows > 0 && windows > 0 && windows % config_.bptt_windows == 0) stream.backbone.detach();
      const auto part = model_.forward(tokens.narrow(1, begin, end - begin), stream);
      bases.push_back(part.bases);
      if (part.focus.defined()) {
        focus.push_back(part.focus);
        next.push_back(part.next_base + begin);
      }
      begin = end;
      ++windows;
    }
    compress::HiddenStates out{at::cat(bases, 1), {}, {}};
    if (!focus.empty()) {
      out.focus = at::cat(focus, 1);
      out.next_base = at::cat(next);
    }
    return out;
  }

  const TrainConfig& config_;
  weights::LoadedModel loaded_;
  std::shared_ptr<compress::FocusAdapter> adapter_;
  compress::CompressedModel model_;
  std::vector<Parameter> parameters_;
};

}  // namespace

std::unique_ptr<Task> make_adapter_task(const TrainConfig& config) { return std::make_unique<AdapterTask>(config); }

}  // namespace focus::train
