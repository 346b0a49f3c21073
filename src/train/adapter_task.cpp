#include "adapter_task.h"

#include "focus/compress/compressed_model.h"
#include "focus/core/error.h"
#include "focus/core/interrupt.h"
#include "focus/core/log.h"
#include "focus/core/progress.h"
#include "focus/core/units.h"
#include "focus/model/placement.h"
#include "focus/weights/checkpoint.h"

namespace focus::train {
namespace {

using at::Tensor;

// Bases into a planted copy after which a model that remembers its source has noticed.
constexpr int32_t kCopyFound = 32;
// The regression's sequences are none of the training's.
constexpr uint64_t kFitSamples = uint64_t{1} << 40;

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
  void initialise() override {
    const compress::TablesConfig& config = config_.memory.focus.tables;
    std::map<int64_t, compress::BaseTables*> tables;
    for (const int64_t block : loaded_.model->attention_blocks()) {
      if (auto* of_block = adapter_->tables(block)) tables.emplace(block, of_block);
    }
    if (tables.empty()) return;
    const data::SequenceSampler sampler(config_.data, static_cast<uint64_t>(config_.seed));
    compress::TablesFit fit(*loaded_.model, std::move(tables), config);
    Progress progress({.label = "tables",
                       .unit = "sequences",
                       .total = config.fit_sequences,
                       .start = 0,
                       .is_terminal = {},
                       .write_terminal = {},
                       .write_line = {},
                       .now_seconds = {}});
    for (int64_t i = 0; i < config.fit_sequences; ++i) {
      fit.add(make_batch({sampler.sample(kFitSamples + static_cast<uint64_t>(i), config.fit_length)}, vocabulary(), loaded_.model->device())
                  .tokens);
      progress.advance(1);
      if (interrupt_requested()) fail<Interrupted>("interrupted while the tables were fitted; nothing was written, start again");
    }
    progress.finish();
    for (const auto& [block, left] : fit.solve())
      log::info(concat("block ", block, ": tables leave ", 100 * left.first, " % of the score variance and ", 100 * left.second,
                       " % of the values unexplained"));
  }

  void begin_step(int64_t step, std::size_t stage) override {
    step_ = step;
    stage_ = &config_.stages.at(stage);
    step_model_ = nullptr;
    // Matching has no loss that would hold a changed backbone near the original: it trains the units alone.
    for (const auto& [name, tensor] : adapted_.trained) tensor.set_requires_grad(!matching());
    if (!config_.random.active()) return;
    std::vector<int64_t> compressed;
    for (const int64_t block : loaded_.model->attention_blocks()) {
      if (adapter_->unit(block) != nullptr || adapter_->tables(block) != nullptr) compressed.push_back(block);
    }
    const auto memory = draw_memory(config_.random, config_.memory, compressed, config_.seed, step);
    step_model_ = std::make_unique<compress::CompressedModel>(adapted_.backbone, adapter_, memory);
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
    const Tensor factor = need_factor(config_.objective.need, teacher(batch.tokens), log_none, targets(batch));
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
    double total = loss_weights(batch, model()).sum(at::kDouble).item<double>();
    if (config_.objective.focus_positions) total += focus_weights(batch, focus_next(batch)).sum(at::kDouble).item<double>();
    return total;
  }

  LossSum loss(const Batch& batch) override {
    LossSum out;
    out.weight = weight_of(batch);
    if (matching()) {
      const MatchSum match = match_sum(stage_->match, model(), *adapter_, batch.tokens, batch.weights, step_);
      out.sum = match.loss;
      out.parts = {{"match_mass", match.mass}, {"match_output", match.output}};
      return out;
    }
    const compress::HiddenStates hidden =
        config_.execution == Execution::parallel ? model().parallel(batch.tokens) : sequential(batch.tokens);
    const Tensor weights = loss_weights(batch, model()), in_copy = weights * copies(batch);
    const Tensor log_q = log_probabilities(hidden.bases);
    const Tensor log_p = config_.objective.needs_teacher() ? teacher(batch.tokens) : Tensor();
    out.sum = at::zeros({}, log_q.options());
    for (const ObjectiveTerm& term : objective_terms(config_.objective, log_p, log_q, targets(batch))) {
      const Tensor sum = (term.per_position * weights).sum();
      out.parts.emplace_back(term.name, sum.item<double>());
      out.means.push_back({"copy_" + term.name, (term.per_position.detach() * in_copy).sum(at::kDouble).item<double>(),
                           in_copy.sum(at::kDouble).item<double>()});
      out.sum = out.sum + term.weight * sum;
    }
    if (config_.objective.focus_positions && hidden.focus.defined()) {
      // Eq. 6: a Focus token predicts the base after its k-mer.
      const Tensor next = hidden.next_base.to(batch.tokens.device()), weight = focus_weights(batch, next);
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
      const Tensor weights = loss_weights(batch, model_).gt(0).to(at::kFloat), target = targets(batch);
      const Tensor log_q = log_probabilities(model_.parallel(batch.tokens).bases), log_p = teacher(batch.tokens);
      const Tensor kl = divergence(log_p, log_q), ce = cross_entropy(log_q, target), ce_full = cross_entropy(log_p, target);
      const auto add = [&](Sums& to, const Tensor& w) {
        to.kl += (kl * w).sum(at::kDouble).item<double>();
        to.ce += (ce * w).sum(at::kDouble).item<double>();
        to.ce_full += (ce_full * w).sum(at::kDouble).item<double>();
        to.weight += w.sum(at::kDouble).item<double>();
      };
      add(all, weights);
      add(copied, weights * copies(batch));
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
  static Tensor targets(const Batch& batch) { return batch.tokens.narrow(1, 1, batch.tokens.size(1) - 1); }
  /// [B, L-1], 1 where the predicted base lies in a planted copy, beyond the bases that tell that it is one.
  static Tensor copies(const Batch& batch) {
    return batch.copy_offset.narrow(1, 1, batch.copy_offset.size(1) - 1).ge(kCopyFound).to(at::kFloat);
  }
  /// [B, L-1] weights of the predictions of bases 1..L-1.
  Tensor loss_weights(const Batch& batch, const compress::CompressedModel& model) const {
    Tensor weights = batch.weights.narrow(1, 1, batch.weights.size(1) - 1);
    if (!config_.objective.skip_first_window) return weights;
    // Position p predicts base p + 1 with the memory of p: the first window's end is the first whose output entries can change.
    const int64_t first = std::min(model.plan().window(0).end, weights.size(1));
    weights = weights.clone();
    weights.narrow(1, 0, first).zero_();
    return weights;
  }
  Tensor focus_next(const Batch& batch) const {
    std::vector<int64_t> next;
    int64_t completed = 0;
    for (int64_t t = 1; t <= batch.tokens.size(1); ++t) {
      if (model().plan().kmers_completed(t) > completed) {
        next.push_back(t);
        ++completed;
      }
    }
    return at::tensor(next, at::kLong).to(batch.tokens.device());
  }
  Tensor focus_weights(const Batch& batch, const Tensor& next) const {
    const int64_t length = batch.tokens.size(1);
    const int64_t first = config_.objective.skip_first_window ? model().plan().window(0).end + 1 : 0;
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
  compress::HiddenStates sequential(const Tensor& tokens) {
    compress::CompressedStream stream;
    std::vector<Tensor> bases, focus, next;
    int64_t windows = 0;
    for (int64_t begin = 0; begin < tokens.size(1);) {
      const int64_t end = std::min(model().plan().next_close(begin, false), tokens.size(1));
      if (config_.bptt_windows > 0 && windows > 0 && windows % config_.bptt_windows == 0) stream.backbone.detach();
      const auto part = model().forward(tokens.narrow(1, begin, end - begin), stream);
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
  weights::LoadedModel loaded_;  // the teacher
  model::AdaptedBackbone adapted_;
  std::shared_ptr<compress::FocusAdapter> adapter_;
  compress::CompressedModel model_;  // nominal
  std::unique_ptr<compress::CompressedModel> step_model_;
  const StageConfig* stage_ = nullptr;
  int64_t step_ = 0;
  std::vector<Parameter> parameters_;
};

}  // namespace

std::unique_ptr<Task> make_adapter_task(const TrainConfig& config) { return std::make_unique<AdapterTask>(config); }

}  // namespace focus::train
