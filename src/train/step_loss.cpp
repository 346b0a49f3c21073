#include "step_loss.h"

#include <map>
#include <string>

#include "gradient_sum.h"

namespace focus::train {
namespace {

using at::Tensor;

/// fp64 scalars by name that several batches add to, on one device.
class Figures {
 public:
  explicit Figures(const at::Device& device) : device_(device) {}
  void add(const std::string& name, const Tensor& value) {
    const Tensor own = value.detach().to(device_, at::kDouble);
    Tensor& sum = sums_[name];
    sum = (sum.defined() ? sum : at::zeros_like(own)) + own;
  }
  /// Their sums over the ranks, all of which have the same names.
  std::map<std::string, double> read(distributed::Ranks& ranks) const {
    std::map<std::string, double> out;
    if (sums_.empty()) return out;
    std::vector<Tensor> values;
    for (const auto& [name, sum] : sums_) values.push_back(sum);
    const Tensor all = at::stack(values);
    ranks.all_reduce_sum({all});
    const Tensor here = all.cpu();
    const double* value = here.const_data_ptr<double>();
    for (const auto& [name, sum] : sums_) out.emplace(name, *value++);
    return out;
  }

 private:
  at::Device device_;
  std::map<std::string, Tensor> sums_;
};

}  // namespace

StepLoss backward(Objective& objective, std::vector<Batch>& batches, distributed::Ranks& ranks,
                  const std::vector<Parameter>& parameters) {
  StepLoss out;
  const at::Device device = batches.front().tokens.device();
  Tensor weight = at::zeros({}, at::TensorOptions(device).dtype(at::kDouble));
  for (Batch& batch : batches) weight = weight + objective.weigh(batch);
  out.weight = ranks.sum({weight.item<double>()})[0];
  if (out.weight <= 0) return out;
  Figures parts(device), means(device), weights(device);
  for (const Batch& batch : batches) {
    const LossSum sum = objective.loss(batch);
    (sum.sum / out.weight).backward();
    parts.add("loss", sum.sum.detach().to(at::kDouble) / out.weight);
    for (const auto& [name, value] : sum.parts) parts.add(name, value.to(at::kDouble) / out.weight);
    for (const Mean& mean : sum.means) {
      means.add(mean.name, mean.sum);
      weights.add(mean.name, mean.weight);
    }
  }
  sum_gradients(ranks, parameters);
  auto losses = parts.read(ranks);
  out.loss = losses.extract("loss").mapped();
  out.facts.assign(losses.begin(), losses.end());
  const auto divisors = weights.read(ranks);
  for (const auto& [name, value] : means.read(ranks)) {
    if (divisors.at(name) > 0) out.facts.emplace_back(name, value / divisors.at(name));
  }
  return out;
}

}  // namespace focus::train
