#include "loop/step_loss.h"

#include <map>
#include <string>

#include "focus/core/error.h"
#include "focus/ops/host_copy.h"
#include "loop/gradient_sum.h"

namespace focus::train {
namespace {

using at::Tensor;

/// fp64 scalars by name, which batches and then ranks add to.
class Figures {
 public:
  void add(const std::string& name, const Tensor& value) {
    Tensor& sum = sums_[name];
    sum = sum.defined() ? sum + value.to(at::kDouble) : value.to(at::kDouble);
  }
  std::map<std::string, double> read(distributed::Ranks& ranks) const {
    std::map<std::string, double> out;
    std::vector<Tensor> sums;
    for (const auto& [name, sum] : sums_) sums.push_back(sum);
    if (sums.empty()) return out;
    const Tensor all = at::stack(sums);
    ranks.all_reduce_sum({all});
    const Tensor here = ops::to_host(all);
    const double* value = here.const_data_ptr<double>();
    for (const auto& [name, sum] : sums_) out.emplace(name, *value++);
    return out;
  }

 private:
  std::map<std::string, Tensor> sums_;
};

}  // namespace

StepLoss backward(Objective& objective, std::vector<Batch>& batches, distributed::Ranks& ranks,
                  const std::vector<Parameter>& parameters) {
  StepLoss out;
  Figures divisor;
  for (Batch& batch : batches) divisor.add("", objective.weigh(batch));
  out.weight = divisor.read(ranks).at("");
  if (out.weight <= 0) return out;
  Figures parts, means, weights;
  for (const Batch& batch : batches) {
    bool reached = false;
    objective.loss(batch, [&](const LossSum& sum) {
      // Nothing trained reaches a piece whose windows read only entries from before its cut.
      if (sum.sum.requires_grad()) (sum.sum / out.weight).backward();
      reached = reached || sum.sum.requires_grad();
      parts.add("loss", sum.sum.detach().to(at::kDouble) / out.weight);
      for (const auto& [name, value] : sum.parts) parts.add(name, value.to(at::kDouble) / out.weight);
      for (const Mean& mean : sum.means) {
        means.add(mean.name, mean.sum);
        weights.add(mean.name, mean.weight);
      }
    });
    FOCUS_CHECK(reached, "no trained parameter reaches the loss of a batch of ", batch.tokens.size(1),
                " bases");
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
