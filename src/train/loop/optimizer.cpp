#include "focus/train/loop/optimizer.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "focus/core/error.h"
#include "run/named_tensors.h"

namespace focus::train {
namespace {

constexpr int64_t kBlockElements = 1 << 16;

/// Of a CPU tensor. The blocks are fixed, so the order of additions does not depend on the number of threads.
double sum_of_squares(const at::Tensor& gradient) {
  const at::Tensor flat = gradient.contiguous();
  const int64_t size = flat.numel(), num_blocks = (size + kBlockElements - 1) / kBlockElements;
  std::vector<double> sums(static_cast<std::size_t>(num_blocks));
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, flat.scalar_type(), "sum_of_squares", [&] {
    const scalar_t* values = flat.const_data_ptr<scalar_t>();
    at::parallel_for(0, num_blocks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; ++block) {
        double sum = 0;
        const int64_t stop = std::min(size, (block + 1) * kBlockElements);
        for (int64_t i = block * kBlockElements; i < stop; ++i) {
          const double value = static_cast<double>(values[i]);
          sum += value * value;
        }
        sums[static_cast<std::size_t>(block)] = sum;
      }
    });
  });
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

}  // namespace

AdamW::AdamW(std::vector<Parameter> parameters, AdamWConfig config)
    : parameters_(std::move(parameters)), config_(config) {
  const at::NoGradGuard no_grad;
  std::set<std::string> names;
  for (const Parameter& parameter : parameters_) {
    FOCUS_CHECK(names.insert(parameter.name).second, "parameter '", parameter.name, "' is listed twice");
    FOCUS_CHECK(parameter.tensor.defined() && parameter.tensor.is_floating_point(), "parameter '",
                parameter.name, "' is no floating-point tensor");
    const bool is_double = parameter.tensor.scalar_type() == at::kDouble;
    const bool is_short = !is_double && parameter.tensor.scalar_type() != at::kFloat;
    const auto options =
        parameter.tensor.options().dtype(is_double ? at::kDouble : at::kFloat).requires_grad(false);
    Moments moments;
    moments.exp_avg = at::zeros(parameter.tensor.sizes(), options);
    moments.exp_avg_sq = at::zeros(parameter.tensor.sizes(), options);
    moments.updates = at::zeros({1}, at::kLong);
    if (is_short) moments.master = parameter.tensor.detach().to(at::kFloat).contiguous();
    moments_.push_back(std::move(moments));
  }
}

void AdamW::step(double lr) {
  FOCUS_CHECK(std::isfinite(lr) && lr >= 0, "learning rate ", lr);
  const at::NoGradGuard no_grad;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const at::Tensor& tensor = parameters_[i].tensor;
    if (!tensor.grad().defined()) continue;
    Moments& moments = moments_[i];
    at::Tensor target = moments.master.defined() ? moments.master : tensor.detach();
    const at::Tensor gradient = tensor.grad().to(target.scalar_type());
    const int64_t updates = ++*moments.updates.mutable_data_ptr<int64_t>();
    const double correction1 = 1 - std::pow(config_.beta1, static_cast<double>(updates));
    const double correction2 = 1 - std::pow(config_.beta2, static_cast<double>(updates));

    moments.exp_avg.mul_(config_.beta1).add_(gradient, 1 - config_.beta1);
    moments.exp_avg_sq.mul_(config_.beta2).addcmul_(gradient, gradient, 1 - config_.beta2);
    if (parameters_[i].decay && config_.weight_decay != 0) target.mul_(1 - lr * config_.weight_decay);
    const at::Tensor denominator = moments.exp_avg_sq.sqrt().div_(std::sqrt(correction2)).add_(config_.eps);
    target.addcdiv_(moments.exp_avg, denominator, -lr / correction1);
    if (parameters_[i].at_most) target.clamp_max_(*parameters_[i].at_most);
    if (moments.master.defined()) tensor.detach().copy_(moments.master);
  }
}

void AdamW::zero_grad() {
  for (Parameter& parameter : parameters_) parameter.tensor.mutable_grad().reset();
}

std::vector<at::Tensor> AdamW::gradients() const {
  std::vector<at::Tensor> out;
  for (const Parameter& parameter : parameters_) {
    if (parameter.tensor.grad().defined()) out.push_back(parameter.tensor.grad());
  }
  return out;
}

std::vector<std::pair<std::string, at::Tensor>> AdamW::state_tensors() const {
  NamedTensors out;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const std::string& name = parameters_[i].name;
    out.emplace_back(name + ".exp_avg", moments_[i].exp_avg);
    out.emplace_back(name + ".exp_avg_sq", moments_[i].exp_avg_sq);
    out.emplace_back(name + ".updates", moments_[i].updates);
    if (moments_[i].master.defined()) out.emplace_back(name + ".master", moments_[i].master);
  }
  return out;
}

void AdamW::load_state(const std::map<std::string, at::Tensor>& state) {
  const at::NoGradGuard no_grad;
  const NamedTensors own = state_tensors();
  require_same_tensors(state, own, "optimizer state");
  for (const auto& [name, tensor] : own) tensor.copy_(state.at(name));
  // Parameter and master belong together, whichever of the two was loaded first.
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    if (moments_[i].master.defined()) parameters_[i].tensor.detach().copy_(moments_[i].master);
  }
}

double clip_grad_norm(const std::vector<at::Tensor>& gradients, double max_norm) {
  const at::NoGradGuard no_grad;
  double sum = 0;
  std::vector<at::Tensor> elsewhere;  // sums of squares that other devices still compute
  for (const at::Tensor& gradient : gradients) {
    if (!gradient.defined()) continue;
    if (gradient.is_cpu()) {
      sum += sum_of_squares(gradient);
    } else {
      const at::Tensor square = at::linalg_vector_norm(gradient, 2, {}, false, at::kDouble).square();
      elsewhere.push_back(elsewhere.empty() ? square : square.to(elsewhere[0].device()));
    }
  }
  if (!elsewhere.empty()) {
    const at::Tensor squares = at::stack(elsewhere).cpu();
    for (int64_t i = 0; i < squares.numel(); ++i) sum += squares.const_data_ptr<double>()[i];
  }
  const double norm = std::sqrt(sum);
  if (std::isfinite(norm) && max_norm > 0 && norm > max_norm) {
    for (at::Tensor gradient : gradients) {
      if (gradient.defined()) gradient.mul_(max_norm / norm);
    }
  }
  return norm;
}

}  // namespace focus::train
