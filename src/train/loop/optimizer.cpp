#include "focus/train/loop/optimizer.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "focus/core/error.h"
#include "focus/ops/host_copy.h"
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
  // One kernel for many tensors on a card, which takes those of one place and type.
  struct Group {
    std::vector<at::Tensor> targets, gradients, exp_avg, exp_avg_sq, decayed, parameters, masters;
    std::vector<at::Scalar> roots, factors;
  };
  std::map<std::pair<std::string, at::ScalarType>, Group> groups;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const at::Tensor& tensor = parameters_[i].tensor;
    if (!tensor.grad().defined()) continue;
    Moments& moments = moments_[i];
    const at::Tensor target = moments.master.defined() ? moments.master : tensor.detach();
    const int64_t updates = ++*moments.updates.mutable_data_ptr<int64_t>();
    const double correction1 = 1 - std::pow(config_.beta1, static_cast<double>(updates));
    const double correction2 = 1 - std::pow(config_.beta2, static_cast<double>(updates));

    Group& group = groups[{target.device().str(), target.scalar_type()}];
    group.targets.push_back(target);
    group.gradients.push_back(tensor.grad().to(target.scalar_type()));
    group.exp_avg.push_back(moments.exp_avg);
    group.exp_avg_sq.push_back(moments.exp_avg_sq);
    group.roots.emplace_back(std::sqrt(correction2));
    group.factors.emplace_back(-lr / correction1);
    if (parameters_[i].decay && config_.weight_decay != 0) group.decayed.push_back(target);
    if (!moments.master.defined()) continue;
    group.parameters.push_back(tensor.detach());
    group.masters.push_back(moments.master);
  }
  for (auto& [place, group] : groups) {
    at::_foreach_mul_(group.exp_avg, config_.beta1);
    at::_foreach_add_(group.exp_avg, group.gradients, 1 - config_.beta1);
    at::_foreach_mul_(group.exp_avg_sq, config_.beta2);
    at::_foreach_addcmul_(group.exp_avg_sq, group.gradients, group.gradients, 1 - config_.beta2);
    if (!group.decayed.empty()) at::_foreach_mul_(group.decayed, 1 - lr * config_.weight_decay);
    const std::vector<at::Tensor> denominators = at::_foreach_sqrt(group.exp_avg_sq);
    at::_foreach_div_(denominators, group.roots);
    at::_foreach_add_(denominators, config_.eps);
    at::_foreach_addcdiv_(group.targets, group.exp_avg, denominators, group.factors);
  }
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const Parameter& parameter = parameters_[i];
    if (!parameter.at_most || !parameter.tensor.grad().defined()) continue;
    (moments_[i].master.defined() ? moments_[i].master : parameter.tensor.detach())
        .clamp_max_(*parameter.at_most);
  }
  for (auto& [place, group] : groups) {
    if (!group.parameters.empty()) at::_foreach_copy_(group.parameters, group.masters);
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
  std::vector<at::Tensor> all;
  std::map<std::string, std::vector<at::Tensor>> elsewhere;  // by device
  for (const at::Tensor& gradient : gradients) {
    if (!gradient.defined()) continue;
    all.push_back(gradient);
    if (gradient.is_cpu()) {
      sum += sum_of_squares(gradient);
    } else {
      elsewhere[gradient.device().str()].push_back(gradient);
    }
  }
  std::vector<at::Tensor> squares;
  for (const auto& [device, there] : elsewhere)
    squares.push_back(at::stack(at::_foreach_norm(there, 2, at::kDouble)).square().sum());
  for (const at::Tensor& square : squares) sum += *ops::to_host(square).const_data_ptr<double>();
  const double norm = std::sqrt(sum);
  if (std::isfinite(norm) && max_norm > 0 && norm > max_norm) at::_foreach_mul_(all, max_norm / norm);
  return norm;
}

}  // namespace focus::train
