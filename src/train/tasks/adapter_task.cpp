#include "tasks/adapter_task.h"

#include "focus/compress/compressed_model.h"
#include "focus/compress/focus/adapter_file.h"
#include "focus/core/error.h"
#include "focus/core/log.h"
#include "focus/core/units.h"
#include "focus/model/placement.h"
#include "focus/weights/load_model.h"
#include "tasks/fit_tables.h"
#include "tasks/loss_positions.h"
#include "tasks/sequential.h"

namespace focus::train {
namespace {

using at::Tensor;

class AdapterTask final : public Task {
 public:
  explicit AdapterTask(const TrainConfig& config)
      : config_(config),
        loaded_(weights::load_model(config.model_config, config.model_checkpoint, model::parse_dtype(config.dtype),
                                    model::resolve_devices(config.device), config.fp8)),
        adapted_(model::adapt(loaded_.model, config.adapt, config.seed)),
        adapter_(std::make_shared<compress::FocusAdapter>(*adapted_.backbone, config.memory, config.seed)),
        model_(adapted_.backbone, adapter_) {
    for (auto& item : adapter_->named_parameters()) {
      item.value().set_requires_grad(true);
      parameters_.push_back({item.key(), item.value(), item.value().dim() == 2});
    }
    int64_t unit_parameters = 0, total = 0;
    for (const auto& parameter : parameters_) unit_parameters += parameter.tensor.numel();
    for (const auto& [name, tensor] : adapted_.trained) parameters_.push_back({name, tensor, tensor.dim() == 2});
    for (const auto& parameter : parameters_) total += parameter.tensor.numel();
    if (parameters_.empty())
      fail<ConfigError>(
          "focus.fitted.corrections is off and the fit itself has no parameter: there is nothing to train; focus-eval measures it "
          "as 'fitted'");
    if (config.memory.focus.history == compress::History::none && !config.adapt.active())
      fail<ConfigError>("focus.history 'none' reads no entry, so nothing can be trained");
    adapted_.backbone->set_recompute(config.recompute);
    log::info(concat("backbone '", loaded_.model->shape().name, "': ", format_count(loaded_.model->num_parameters()),
                     " parameters, frozen; adapter: ", format_count(unit_parameters)));
    if (config.adapt.active()) log::info(concat(config.adapt.describe(), ": ", format_count(total - unit_parameters), " parameters"));
  }

  std::vector<Parameter> parameters() override { return parameters_; }
  const model::Backbone& backbone() const override { return *loaded_.model; }
  const model::Vocabulary& vocabulary() const override { return loaded_.model->vocabulary(); }

  /// Base tables start from the regression; other units start where their construction left them.
  void initialise() override { fit_tables(config_, *loaded_.model, *adapter_); }

  void begin_step(int64_t step, std::size_t stage) override {
    step_ = step;
    stage_ = &config_.stages.at(stage);
    step_model_ = nullptr;
    // Matching has no loss that would hold a changed backbone near the original: it trains the units alone.
    for (const auto& [name, tensor] : adapted_.trained) tensor.set_requires_grad(!matching());
    if (!config_.random.active()) return;
    step_adapter_ = adapter_->with(draw_memory(config_.random, config_.memory, adapter_->blocks(), config_.seed, step));
    step_model_ = std::make_unique<compress::CompressedModel>(adapted_.backbone, step_adapter_);
  }

  MetricFields step_facts() const override {
    if (!config_.random.active()) return {};
    const auto& memory = model().config();
    std::string layers = "all";
    for (std::size_t i = 0; i < memory.focus.layers.size(); ++i)
      layers = i == 0 ? std::to_string(memory.focus.layers[0]) : concat(layers, ',', memory.focus.layers[i]);
    return {{"k", memory.focus.k}, {"window", memory.window.size}, {"layers", layers}};
  }

  void prepare(Batch& batch) override {
    if (config_.objective.need.weight == 0 || matching()) return;
    const at::NoGradGuard guard;
    compress::MemoryConfig memory = model().config();
    memory.focus.local = compress::Local::window;  // a policy drops whole windows
    const compress::CompressedModel state_only(loaded_.model, memory, std::make_shared<compress::StateOnlyPolicy>());
    compress::CompressedStream stream;
    const Tensor log_none = log_probabilities(state_only.forward(batch.tokens, stream).bases);
    const Tensor factor = need_factor(config_.objective.need, teacher(batch.tokens), log_none, next_bases(batch));
    batch.weights.narrow(1, 1, factor.size(1)).mul_(factor);
  }

  void after_step() override {
    const at::NoGradGuard guard;
    for (const auto& [name, tensor] : adapted_.trained) {
      // As in pretraining: a decay above 1 would let the state grow without bound.
      if (name.ends_with("log_poles")) tensor.clamp_max_(-1e-7);
    }
  }

  double weight_of(const Batch& batch) const override {
    if (matching()) return match_weight(stage_->match, model().plan(), batch.weights, step_);
    double total = loss_weights(batch, model().plan(), config_.objective.skip_first_window).sum(at::kDouble).item<double>();
    if (config_.objective.focus_positions)
      total += focus_weights(batch, focus_next(batch, model().plan()), model().plan(), config_.objective.skip_first_window)
                   .sum(at::kDouble)
                   .item<double>();
    return total;
  }

  LossSum loss(const Batch& batch) override {
    LossSum out;
    out.weight = weight_of(batch);
    if (matching()) {
      const MatchSum match = match_sum(stage_->match, *adapted_.backbone, step_model_ ? *step_adapter_ : *adapter_, batch.tokens, batch.weights, step_);
      out.sum = match.loss;
      out.parts = {{"match_mass", match.mass}, {"match_output", match.output}};
      return out;
    }
    const compress::HiddenStates hidden = config_.execution == Execution::parallel
                                              ? model().parallel(batch.tokens)
                                              : forward_sequential(model(), batch.tokens, config_.bptt_windows);
    const Tensor weights = loss_weights(batch, model().plan(), config_.objective.skip_first_window),
                 in_copy = weights * copy_positions(batch);
    const Tensor log_q = log_probabilities(hidden.bases);
    const Tensor log_p = config_.objective.needs_teacher() ? teacher(batch.tokens) : Tensor();
    out.sum = at::zeros({}, log_q.options());
    for (const ObjectiveTerm& term : objective_terms(config_.objective, log_p, log_q, next_bases(batch))) {
      const Tensor sum = (term.per_position * weights).sum();
      out.parts.emplace_back(term.name, sum.item<double>());
      out.means.push_back({"copy_" + term.name, (term.per_position.detach() * in_copy).sum(at::kDouble).item<double>(),
                           in_copy.sum(at::kDouble).item<double>()});
      out.sum = out.sum + term.weight * sum;
    }
    if (config_.objective.focus_positions && hidden.focus.defined()) {
      // Eq. 6: a Focus token predicts the base after its k-mer.
      const Tensor next = hidden.next_base.to(batch.tokens.device()),
                   weight = focus_weights(batch, next, model().plan(), config_.objective.skip_first_window);
      const Tensor log_f = at::log_softmax(loaded_.model->unembed(hidden.focus), -1, at::kFloat);
      const Tensor target = batch.tokens.index_select(1, next.clamp_max(batch.tokens.size(1) - 1));
      out.sum = out.sum + config_.objective.ce * (cross_entropy(log_f, target) * weight).sum();
    }
    return out;
  }

  Validation validate(const std::vector<Batch>& batches) override {
    at::NoGradGuard guard;
    struct Sums {
      double kl = 0, ce = 0, ce_full = 0, weight = 0;
    } all, copied;
    for (const Batch& batch : batches) {
      const Tensor weights = loss_weights(batch, model_.plan(), config_.objective.skip_first_window).gt(0).to(at::kFloat),
                   target = next_bases(batch);
      const Tensor log_q = log_probabilities(model_.parallel(batch.tokens).bases), log_p = teacher(batch.tokens);
      const Tensor kl = divergence(log_p, log_q), ce = cross_entropy(log_q, target), ce_full = cross_entropy(log_p, target);
      const auto add = [&](Sums& to, const Tensor& w) {
        to.kl += (kl * w).sum(at::kDouble).item<double>();
        to.ce += (ce * w).sum(at::kDouble).item<double>();
        to.ce_full += (ce_full * w).sum(at::kDouble).item<double>();
        to.weight += w.sum(at::kDouble).item<double>();
      };
      add(all, weights);
      add(copied, weights * copy_positions(batch));
    }
    Validation out;
    out.primary = all.kl / std::max(all.weight, 1.0);
    const auto report = [&](const std::string& prefix, const Sums& sums) {
      if (sums.weight == 0) return;
      out.figures.emplace_back(prefix + "kl", sums.kl / sums.weight);
      out.figures.emplace_back(prefix + "ce", sums.ce / sums.weight);
      out.figures.emplace_back(prefix + "ce_full", sums.ce_full / sums.weight);
    };
    report("validation_", all);
    report("validation_copy_", copied);
    return out;
  }

  std::string identity() const override { return loaded_.digest; }

  void write_result(const std::filesystem::path& folder) override {
    compress::save_adapter(*adapter_, adapted_, loaded_.digest, folder / "adapter.safetensors");
    log::info(concat("wrote ", (folder / "adapter.safetensors").string()));
  }

 private:
  bool matching() const { return stage_ != nullptr && stage_->kind == StageKind::match; }
  /// The step's own model, or the nominal one.
  const compress::CompressedModel& model() const { return step_model_ ? *step_model_ : model_; }
  /// [B, L-1, V] fp32.
  Tensor log_probabilities(const Tensor& hidden) const {
    return at::log_softmax(loaded_.model->unembed(hidden.narrow(1, 0, hidden.size(1) - 1)), -1, at::kFloat);
  }
  Tensor teacher(const Tensor& tokens) {
    at::NoGradGuard guard;
    return log_probabilities(loaded_.model->forward_embedded(loaded_.model->embed(tokens), nullptr));
  }
  const TrainConfig config_;
  weights::LoadedModel loaded_;  // the teacher
  model::AdaptedBackbone adapted_;
  std::shared_ptr<compress::FocusAdapter> adapter_;
  compress::CompressedModel model_;  // nominal
  std::shared_ptr<compress::FocusAdapter> step_adapter_;
  std::unique_ptr<compress::CompressedModel> step_model_;
  const StageConfig* stage_ = nullptr;
  int64_t step_ = 0;
  std::vector<Parameter> parameters_;
};

}  // namespace

std::unique_ptr<Task> make_adapter_task(const TrainConfig& config) { return std::make_unique<AdapterTask>(config); }

}  // namespace focus::train
