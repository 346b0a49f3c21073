// AdamW (Loshchilov and Hutter 2019) with exactly restorable state, and the gradient checks that go before a
// step.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "focus/config/fields.h"

namespace focus::train {

/// Defaults of the paper's Table 1 (lr, weight_decay, clip_norm) and of AdamW.
struct AdamWConfig {
  double lr = 1e-4;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0.01;
  double clip_norm = 1.0;
  void visit(config::Fields& f) {
    constexpr double kBelowOne = 1 - 1e-9;
    f.number("lr", lr, {0, 1}, "peak learning rate");
    f.number("beta1", beta1, {0, kBelowOne}, "decay of the gradient's running mean");
    f.number("beta2", beta2, {0, kBelowOne}, "decay of the squared gradient's running mean");
    f.number("eps", eps, {1e-30, 1}, "added to the root of the second moment");
    f.number("weight_decay", weight_decay, {0, 10},
             "decoupled: each step shrinks a decayed parameter by lr * weight_decay");
    f.number("clip_norm", clip_norm, {0, 1e30}, "largest global gradient norm; 0 = no clipping");
  }
};

/// A trainable tensor (leaf, floating point, any shape and device). Biases, norms and scalars usually set
/// decay = false.
struct Parameter {
  std::string name;
  at::Tensor tensor;
  bool decay = true;
  std::optional<double> at_most = std::nullopt;  // each update ends with this bound on all elements
};

/// Per parameter: m <- b1 m + (1 - b1) g, v <- b2 v + (1 - b2) g^2, p <- p (1 - lr wd) - lr (m / (1 - b1^t))
/// / (sqrt(v / (1 - b2^t)) + eps). Moments and arithmetic are fp32 (fp64 for fp64 parameters). A bf16 or fp16
/// parameter has an fp32 master copy, because most updates at usual learning rates are smaller than bf16's
/// spacing and would be rounded away; the parameter is the rounded master. t counts a parameter's own
/// updates: one that got no gradient in a step (grad undefined) is left alone, decay included.
class AdamW {
 public:
  /// Master copies are taken here: load a checkpoint's parameters before, or load_state afterwards.
  /// InternalError: a name twice, or a tensor that is undefined or not floating point.
  AdamW(std::vector<Parameter> parameters, AdamWConfig config);

  /// One update with the parameters' .grad() and this learning rate (see lr_at).
  void step(double lr);
  /// Drops all gradients.
  void zero_grad();
  /// The defined gradients, in parameter order, for clip_grad_norm.
  std::vector<at::Tensor> gradients() const;

  const std::vector<Parameter>& parameters() const { return parameters_; }
  const AdamWConfig& config() const { return config_; }

  /// "<name>.exp_avg", "<name>.exp_avg_sq", "<name>.updates" (int64 [1]) and, with a master copy,
  /// "<name>.master". Tensors share the optimizer's memory: write them before the next step.
  std::vector<std::pair<std::string, at::Tensor>> state_tensors() const;
  /// Takes over what state_tensors() gave: the next step is then bit-equal to the one an uninterrupted run
  /// would have made, given equal parameters and gradients. CheckpointError listing every missing, unexpected
  /// or ill-shaped tensor; nothing is changed then.
  void load_state(const std::map<std::string, at::Tensor>& state);

 private:
  struct Moments {
    at::Tensor exp_avg, exp_avg_sq, updates,
        master;  // updates: int64 [1] on the CPU; master: undefined for fp32 and fp64 parameters
  };
  std::vector<Parameter> parameters_;
  std::vector<Moments> moments_;
  AdamWConfig config_;
};

/// Global 2-norm of all gradients, summed in double over fixed blocks: the same for any number of threads. If
/// it exceeds max_norm (> 0), the gradients are scaled in place by max_norm / norm. A non-finite norm is
/// returned and changes nothing. Undefined gradients are skipped. Gradients on a device are waited for once.
double clip_grad_norm(const std::vector<at::Tensor>& gradients, double max_norm);

}  // namespace focus::train
