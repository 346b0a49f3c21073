#include "loop/step_loss.h"

#include <map>
#include <string>
#include <utility>

#include "loop/gradient_sum.h"

namespace focus::train {

StepLoss backward(Task& task, const std::vector<Batch>& batches, distributed::Ranks& ranks, const std::vector<Parameter>& parameters) {
  StepLoss out;
  for (const Batch& batch : batches) out.weight += task.weight_of(batch);
  out.weight = ranks.sum({out.weight})[0];
  if (out.weight <= 0) return out;
  std::map<std::string, double> parts;
  std::map<std::string, std::pair<double, double>> means;  // sum, weight
  for (const Batch& batch : batches) {
    LossSum sum = task.loss(batch);
    (sum.sum / out.weight).backward();
    out.loss += sum.sum.item<double>() / out.weight;
    for (const auto& [name, value] : sum.parts) parts[name] += value / out.weight;
    for (const auto& mean : sum.means) {
      means[mean.name].first += mean.sum;
      means[mean.name].second += mean.weight;
    }
  }
  sum_losses(ranks, out.loss, parts);
  sum_gradients(ranks, parameters);
  out.facts.assign(parts.begin(), parts.end());
  for (const auto& [name, mean] : means) {
    const std::vector<double> all = ranks.sum({mean.first, mean.second});
    if (all[1] > 0) out.facts.emplace_back(name, all[0] / all[1]);
  }
  return out;
}

}  // namespace focus::train
