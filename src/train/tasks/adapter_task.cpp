#include "fit_tables.h"
#include "focus/compress/compressed_model.h"
#include "focus/compress/focus/adapter_file.h"
#include "focus/compress/memory/memory_factory.h"
#include "focus/core/error.h"
#include "focus/core/log.h"
#include "focus/core/units.h"
#include "focus/model/placement.h"
#include "focus/ops/host_copy.h"
#include "focus/weights/load_model.h"
#include "loss_positions.h"
#include "sequential.h"
#include "task_kinds.h"

namespace focus::train {
namespace {

using at::Tensor;
using Model = std::shared_ptr<const compress::CompressedModel>;

/// [B, n, V] fp32 of the predictions that final hidden states [B, n, D] make.
Tensor log_probabilities(const model::Backbone& backbone, const Tensor& hidden) {
  return at::log_softmax(backbone.unembed(hidden), -1, at::kFloat);
}

/// [B, L, D] without the last position, whose next base is not known.
Tensor with_next(const Tensor& hidden_BLD) { return hidden_BLD.narrow(1, 0, hidden_BLD.size(1) - 1); }

/// [B, L-1, V] of a backbone that remembers everything: the teacher.
Tensor with_full_memory(model::Backbone& backbone, const Tensor& tokens_BL) {
  const at::NoGradGuard guard;
  return log_probabilities(backbone,
                           with_next(backbone.forward_embedded(backbone.embed(tokens_BL), nullptr)));
}

/// Weighted divergences from the teacher, and cross-entropy, of what the compressed model predicts.
class EndToEnd final : public Objective {
 public:
  EndToEnd(const TrainConfig& config, std::shared_ptr<model::Backbone> teacher, Model model)
      : config_(config), teacher_(std::move(teacher)), model_(std::move(model)) {}

  Tensor weigh(Batch& batch) override {
    if (config_.objective.need.weight != 0) weigh_by_need(batch);
    Tensor total = base_weights(batch).sum(at::kDouble);
    if (config_.objective.focus_positions)
      total = total + weights_of_focus(batch, focus_next(batch, model_->plan())).sum(at::kDouble);
    return total;
  }

  void loss(const Batch& batch, const std::function<void(const LossSum&)>& add) override {
    const Tensor log_p =
        config_.objective.needs_teacher() ? with_full_memory(*teacher_, batch.tokens) : Tensor();
    const Tensor weights = base_weights(batch), in_copy = weights * copy_positions(batch);
    const auto piece = [&](int64_t begin, const compress::HiddenStates& hidden) {
      add(loss_of(batch, log_p, weights, in_copy, begin, hidden));
    };
    if (config_.execution == Execution::parallel) {
      piece(0, model_->parallel(batch.tokens));
    } else {
      forward_sequential(*model_, batch.tokens, config_.bptt_windows, piece);
    }
  }

 private:
  /// Of the positions from `begin` on whose hidden states are given. Of the whole batch: log_p, the teacher's
  /// [B, L-1, V], and weights [B, L-1].
  LossSum loss_of(const Batch& batch, const Tensor& log_p, const Tensor& all_weights,
                  const Tensor& all_in_copy, int64_t begin, const compress::HiddenStates& hidden) const {
    const int64_t length = batch.tokens.size(1);
    const int64_t count = std::min(begin + hidden.bases.size(1), length - 1) - begin;
    const auto here = [&](const Tensor& per_position) { return per_position.narrow(1, begin, count); };
    const Tensor weights = here(all_weights), in_copy = here(all_in_copy);
    const Tensor log_q = log_probabilities(*teacher_, hidden.bases.narrow(1, 0, count));
    LossSum out;
    out.sum = at::zeros({}, log_q.options());
    const auto add = [&](const std::string& name, double factor, const Tensor& sum) {
      out.parts.emplace_back(name, sum.detach());
      out.sum = out.sum + factor * sum;
    };
    for (const ObjectiveTerm& term : objective_terms(config_.objective, log_p.defined() ? here(log_p) : log_p,
                                                     log_q, here(next_bases(batch)))) {
      add(term.name, term.weight, (term.per_position * weights).sum());
      out.means.push_back({"copy_" + term.name, (term.per_position.detach() * in_copy).sum(at::kDouble),
                           in_copy.sum(at::kDouble)});
    }
    if (config_.objective.focus_positions && hidden.focus.defined()) {
      // Eq. 6: a Focus token predicts the base after its k-mer.
      const Tensor next = ops::from_host(hidden.next_base, batch.tokens.device());
      const Tensor log_f = log_probabilities(*teacher_, hidden.focus);
      const Tensor target = batch.tokens.index_select(1, next.clamp_max(length - 1));
      add("focus_ce", config_.objective.ce,
          (cross_entropy(log_f, target) * weights_of_focus(batch, next)).sum());
    }
    return out;
  }
  Tensor base_weights(const Batch& batch) const {
    return loss_weights(batch, model_->plan(), config_.objective.skip_first_window);
  }
  Tensor weights_of_focus(const Batch& batch, const Tensor& next) const {
    return focus_weights(batch, next, model_->plan(), config_.objective.skip_first_window);
  }
  void weigh_by_need(Batch& batch) const {
    const at::NoGradGuard guard;
    const auto state_only = compress::make_memory("state_only", teacher_, model_->config());
    compress::CompressedStream stream;
    const Tensor log_none =
        log_probabilities(*teacher_, with_next(state_only->forward(batch.tokens, stream).bases));
    const Tensor factor = need_factor(config_.objective.need, with_full_memory(*teacher_, batch.tokens),
                                      log_none, next_bases(batch));
    batch.weights.narrow(1, 1, factor.size(1)).mul_(factor);
  }

  const TrainConfig& config_;
  std::shared_ptr<model::Backbone> teacher_;
  Model model_;
};

/// Layer by layer against what full attention does.
class Matching final : public Objective {
 public:
  Matching(const MatchConfig& config, int64_t step, Model model,
           std::shared_ptr<const compress::FocusAdapter> adapter)
      : config_(config), step_(step), model_(std::move(model)), adapter_(std::move(adapter)) {}
  Tensor weigh(Batch& batch) override { return match_weight(config_, model_->plan(), batch.weights, step_); }
  void loss(const Batch& batch, const std::function<void(const LossSum&)>& add) override {
    const MatchSum match =
        match_sum(config_, *model_->backbone_ptr(), *adapter_, batch.tokens, batch.weights, step_);
    add({match.loss, {{"match_mass", match.mass}, {"match_output", match.output}}, {}});
  }

 private:
  MatchConfig config_;
  int64_t step_;
  Model model_;
  std::shared_ptr<const compress::FocusAdapter> adapter_;
};

class AdapterTask final : public Task {
 public:
  explicit AdapterTask(const TrainConfig& config)
      : config_(config),
        teacher_(weights::load_model(config.model_config, config.model_checkpoint,
                                     model::parse_dtype(config.dtype), model::resolve_devices(config.device),
                                     config.fp8)),
        adapted_(model::adapt(teacher_.model, config.adapt, config.seed)),
        adapter_(std::make_shared<compress::FocusAdapter>(*adapted_.backbone, config.memory, config.seed)),
        nominal_(std::make_shared<compress::CompressedModel>(adapted_.backbone, adapter_)),
        trained_{teacher_.model, {}, teacher_.digest} {
    // A resumed run's checkpoint then takes their place.
    if (!config.adapter.empty())
      compress::start_from(compress::adapter_file(config.adapter), *adapter_, adapted_, teacher_.digest);
    auto& parameters = trained_.parameters;
    for (auto& item : adapter_->named_parameters()) {
      item.value().set_requires_grad(true);
      parameters.push_back({item.key(), item.value(), item.value().dim() == 2});
    }
    int64_t unit_parameters = 0, total = 0;
    for (const auto& parameter : parameters) unit_parameters += parameter.tensor.numel();
    for (const auto& [name, tensor] : adapted_.trained)
      parameters.push_back(backbone_parameter(name, tensor, tensor.dim() == 2));
    for (const auto& parameter : parameters) total += parameter.tensor.numel();
    if (parameters.empty() && config.memory.kind == compress::MemoryKind::quantised)
      fail<ConfigError>(
          "memory.kind 'quantised' has no parameters: there is nothing to train without adapt; focus-eval "
          "measures it as 'quantised_int8' and 'quantised_int4'");
    if (parameters.empty())
      fail<ConfigError>(
          "focus.fitted.corrections is off and the fit itself has no parameter: there is nothing to train; "
          "focus-eval measures it "
          "as 'fitted'");
    if (config.memory.focus.history == compress::History::none && !config.adapt.active())
      fail<ConfigError>("focus.history 'none' reads no entry, so nothing can be trained");
    adapted_.backbone->set_recompute(config.recompute);
    log::info(concat("backbone '", teacher_.model->shape().name,
                     "': ", format_count(teacher_.model->num_parameters()),
                     " parameters, frozen; adapter: ", format_count(unit_parameters)));
    if (config.adapt.active())
      log::info(concat(config.adapt.describe(), ": ", format_count(total - unit_parameters), " parameters"));
  }

  const TrainedModel& model() const override { return trained_; }

  /// Base tables start from the regression, or from a trained adapter; other units start where their
  /// construction left them.
  void initialise(const data::SequenceSampler& training, distributed::Ranks& ranks) override {
    if (!config_.adapter.empty()) return;
    fit_tables(config_.memory.tables, training, *teacher_.model, *adapter_, ranks);
  }

  std::unique_ptr<Objective> objective(int64_t step, const StageConfig& stage) override {
    const bool matching = stage.kind == StageKind::match;
    // Matching has no loss that would hold a changed backbone near the original: it trains the units alone.
    for (const auto& [name, tensor] : adapted_.trained) tensor.set_requires_grad(!matching);
    const std::shared_ptr<const compress::FocusAdapter> adapter =
        config_.random.active() ? drawn(step) : adapter_;
    const Model model = config_.random.active()
                            ? std::make_shared<compress::CompressedModel>(adapted_.backbone, adapter)
                            : nominal_;
    std::unique_ptr<Objective> out;
    if (matching) {
      out = std::make_unique<Matching>(stage.match, step, model, adapter);
    } else {
      out = std::make_unique<EndToEnd>(config_, teacher_.model, model);
    }
    if (config_.random.active()) {
      const auto& memory = model->config();
      std::string layers;
      for (const int64_t layer : memory.focus.layers) layers += concat(layers.empty() ? "" : ",", layer);
      out->facts = {
          {"k", memory.focus.k}, {"window", memory.window.size}, {"layers", layers.empty() ? "all" : layers}};
    }
    return out;
  }

  Validation validate(const Batch& sequence) override {
    const Tensor weights = loss_weights(sequence, nominal_->plan(), config_.objective.skip_first_window)
                               .gt(0)
                               .to(at::kFloat),
                 target = next_bases(sequence), in_copy = weights * copy_positions(sequence);
    const Tensor log_q =
                     log_probabilities(*teacher_.model, with_next(nominal_->parallel(sequence.tokens).bases)),
                 log_p = with_full_memory(*teacher_.model, sequence.tokens);
    const Tensor kl = divergence(log_p, log_q), ce = cross_entropy(log_q, target),
                 ce_full = cross_entropy(log_p, target);
    const auto mean = [](const std::string& name, const Tensor& values, const Tensor& w) -> Mean {
      return {name, (values * w).sum(at::kDouble), w.sum(at::kDouble)};
    };
    return {{mean("kl", kl, weights), mean("ce", ce, weights), mean("ce_full", ce_full, weights),
             mean("copy_kl", kl, in_copy), mean("copy_ce", ce, in_copy),
             mean("copy_ce_full", ce_full, in_copy)}};
  }

  void write_result(const std::filesystem::path& folder, const std::string& training) const override {
    compress::save_adapter(*adapter_, adapted_, teacher_.digest, folder / "adapter.safetensors", training);
    log::info(concat("wrote ", (folder / "adapter.safetensors").string()));
  }

 private:
  /// The adapter as a step of a random schedule has it.
  std::shared_ptr<const compress::FocusAdapter> drawn(int64_t step) const {
    return adapter_->with(
        draw_memory(config_.random, config_.memory, adapter_->blocks(), config_.seed, step));
  }

  const TrainConfig config_;
  weights::LoadedModel teacher_;
  model::AdaptedBackbone adapted_;
  std::shared_ptr<compress::FocusAdapter> adapter_;
  Model nominal_;
  TrainedModel trained_;
};

}  // namespace

std::unique_ptr<Task> make_adapter_task(const TrainConfig& config) {
  return std::make_unique<AdapterTask>(config);
}

}  // namespace focus::train
