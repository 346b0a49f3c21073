#include "oracle.h"

#include <torch/optim/adam.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <numbers>

#include "focus/compress/focus/stored_entries.h"
#include "focus/compress/memory/memory_factory.h"
#include "focus/core/error.h"

namespace focus::eval {
namespace {

using at::Tensor;

/// Positions whose logits are in memory at a time.
constexpr int64_t kPositions = 2048;
/// Passes over a sequence besides the steps: full memory, the first entries, the last iterate, the stream.
constexpr int64_t kOtherPasses = 4;

std::string short_number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4g", value);
  return text;
}

/// The entries of one sequence and what they cost.
class Oracle {
 public:
  Oracle(const OracleConfig& config, std::shared_ptr<model::Backbone> backbone,
         std::shared_ptr<compress::FocusAdapter> stored, const Tensor& tokens_BL, Tensor full_LV)
      : config_(config),
        backbone_(std::move(backbone)),
        stored_(std::move(stored)),
        model_(std::make_shared<compress::CompressedModel>(backbone_, stored_)),
        tokens_BL_(tokens_BL),
        full_LV_(std::move(full_LV)) {
    const int64_t length = tokens_BL.size(1);
    // Position p predicts base p + 1 with the memory of p: the first window's end is the first that sees an
    // entry.
    first_ = std::min(model_->plan().window(0).end, length - 1);
    const auto& bases = backbone_->vocabulary().bases;
    const Tensor letters =
        at::tensor(std::vector<int64_t>(bases.begin(), bases.end()), at::kLong).to(tokens_BL.device());
    measured_ = at::isin(tokens_BL[0].narrow(0, first_ + 1, length - 1 - first_), letters).to(at::kFloat);
    count_ = measured_.sum().item<double>();
    for (const int64_t block : backbone_->attention_blocks()) {
      const auto unit = std::dynamic_pointer_cast<const compress::StoredUnit>(stored_->unit(block));
      if (unit == nullptr || !unit->key.defined()) continue;
      for (const Tensor& t : {unit->key, unit->value})
        parameters_.push_back({t, t.pow(2).mean().sqrt().item<double>()});
      if (unit->beta.defined()) parameters_.push_back({unit->beta, 1.0});
    }
  }

  void optimise(const OnBases& on_bases) {
    const int64_t length = tokens_BL_.size(1);
    if (count_ == 0) {  // nothing to gain
      on_bases((config_.steps + 1) * length, "");
      return;
    }
    std::vector<torch::optim::OptimizerParamGroup> groups;
    // The sum of divergences is minimised, whose gradients are far above this epsilon.
    for (Parameter& p : parameters_)
      groups.emplace_back(std::vector<Tensor>{p.tensor.requires_grad_()},
                          std::make_unique<torch::optim::AdamOptions>(config_.lr));
    torch::optim::Adam adam(std::move(groups), torch::optim::AdamOptions(config_.lr));
    double start = 0, best = std::numeric_limits<double>::infinity();
    std::vector<Tensor> kept;
    for (int64_t step = 0; step <= config_.steps; ++step) {
      const bool last = step == config_.steps;
      adam.zero_grad();
      const double kl = divergence(!last, step);
      if (step == 0) start = kl;
      if (kl < best) {
        best = kl;
        kept.clear();
        for (const Parameter& p : parameters_) kept.push_back(p.tensor.detach().clone());
      }
      on_bases(length, concat("step ", step, " of ", config_.steps, ", KL ", short_number(kl),
                              ", at the start ", short_number(start)));
      if (last) break;
      const double share = static_cast<double>(step) / static_cast<double>(config_.steps);
      const double rate = config_.lr * (1 + std::cos(std::numbers::pi * share)) / 2;
      for (std::size_t i = 0; i < parameters_.size(); ++i)
        static_cast<torch::optim::AdamOptions&>(adam.param_groups()[i].options())
            .lr(rate * parameters_[i].scale);
      adam.step();
    }
    const at::NoGradGuard guard;
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      parameters_[i].tensor.requires_grad_(false);
      parameters_[i].tensor.copy_(kept[i]);
    }
  }

  std::shared_ptr<const compress::CompressedModel> model() const { return model_; }

 private:
  struct Parameter {
    Tensor tensor;
    double scale;  // of a step
  };

  /// Mean KL(full || compressed); adds the gradient of the sum to the entries' when asked to.
  double divergence(bool backward, int64_t step) const {
    const at::AutoGradMode with_gradient(backward);
    const Tensor hidden = model_->parallel(tokens_BL_).bases;
    // The logits of a few positions at a time: they are far wider than the hidden states they come from.
    Tensor states = hidden.detach();
    if (backward) states.requires_grad_();
    double total = 0;
    for (int64_t begin = 0; begin < measured_.size(0); begin += kPositions) {
      const int64_t count = std::min(kPositions, measured_.size(0) - begin);
      const Tensor log_p = at::log_softmax(full_LV_.narrow(0, first_ + begin, count).to(states.device()), -1);
      const Tensor log_q =
          at::log_softmax(backbone_->unembed(states.narrow(1, first_ + begin, count)), -1, at::kFloat)[0];
      const Tensor sum = ((log_p.exp() * (log_p - log_q)).sum(-1) * measured_.narrow(0, begin, count)).sum();
      total += sum.item<double>();
      if (backward) sum.backward();
    }
    if (!std::isfinite(total))
      fail<CheckFailed>("oracle, step ", step, ": the divergence is ", total, "; set a smaller oracle.lr");
    if (backward) {
      if (hidden.requires_grad()) hidden.backward(states.grad());
      if (std::none_of(parameters_.begin(), parameters_.end(),
                       [](const Parameter& p) { return p.tensor.grad().defined(); }))
        fail<ConfigError>(
            "methods: 'oracle' finds no entry that a base sees: focus.history, focus.layers or "
            "focus.schedule leave none");
    }
    return total / count_;
  }

  const OracleConfig& config_;
  std::shared_ptr<model::Backbone> backbone_;
  std::shared_ptr<compress::FocusAdapter> stored_;
  std::shared_ptr<const compress::CompressedModel> model_;
  Tensor tokens_BL_, full_LV_;
  int64_t first_ = 0;
  Tensor measured_;  // [positions from first_ on] 1 where the next base is A, C, G or T
  double count_ = 0;
  std::vector<Parameter> parameters_;
};

}  // namespace

Method oracle_method(const std::string& name, const OracleConfig& config,
                     const std::shared_ptr<model::Backbone>& backbone, const compress::MemoryConfig& memory,
                     int64_t chunk) {
  const std::shared_ptr<model::Backbone> twin = backbone->twin();
  twin->set_recompute(true);
  const auto closed_form = std::make_shared<compress::FocusAdapter>(*twin, compress::closed_form(memory), 0);
  const auto everything = compress::make_memory("full", twin, memory);
  const std::string memory_text = compress::CompressedModel(twin, closed_form).describe();
  const auto stream = [=](const Tensor& tokens_BL, const OnLogits& on_logits, const OnBases& on_bases) {
    WholeLogits full(tokens_BL.size(1));
    stream_in_chunks(
        everything, chunk, tokens_BL,
        [&](int64_t begin, const Tensor& logits_LV) { full.add(begin, logits_LV); }, on_bases);
    auto stored = compress::store_entries(twin, *closed_form, tokens_BL);
    on_bases(tokens_BL.size(1), "");
    Oracle oracle(config, twin, std::move(stored), tokens_BL, full.logits());
    oracle.optimise(on_bases);
    return stream_in_chunks(oracle.model(), chunk, tokens_BL, on_logits, on_bases);
  };
  const std::string text = concat(
      "NO METHOD, an upper bound: it looks at the sequence that is measured and moves the entries of the ",
      memory_text, " by ", config.steps, " steps of Adam (lr ", short_number(config.lr),
      ") towards the full memory's predictions");
  return {name, text, stream, config.steps + kOtherPasses};
}

}  // namespace focus::eval
