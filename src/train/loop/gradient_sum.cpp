#include "loop/gradient_sum.h"

#include <bit>
#include <cstdint>

#include "focus/core/error.h"
#include "focus/core/hash.h"
#include "focus/core/interrupt.h"

namespace focus::train {
namespace {

int64_t hash_of(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.detach().cpu().contiguous();
  return std::bit_cast<int64_t>(fnv1a(flat.const_data_ptr(), flat.nbytes()));
}

}  // namespace

void sum_gradients(distributed::Ranks& ranks, const std::vector<Parameter>& parameters) {
  if (ranks.size() == 1) return;
  std::vector<double> defined;
  for (const Parameter& parameter : parameters) defined.push_back(parameter.tensor.grad().defined() ? 1 : 0);
  defined = ranks.sum(defined);
  std::vector<at::Tensor> gradients;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    if (defined[i] == 0) continue;
    at::Tensor& gradient = parameters[i].tensor.mutable_grad();
    if (!gradient.defined()) gradient = at::zeros_like(parameters[i].tensor);
    gradients.push_back(gradient);
  }
  ranks.all_reduce_sum(gradients);
}

bool interrupted_anywhere(distributed::Ranks& ranks) {
  const std::vector<double> seen = ranks.largest({static_cast<double>(interrupt_signal())});
  if (seen[0] > 0) request_interrupt(static_cast<int>(seen[0]));
  return interrupt_requested();
}

void require_same_parameters(distributed::Ranks& ranks, const std::vector<Parameter>& parameters) {
  if (ranks.size() == 1) return;
  const at::NoGradGuard no_grad;
  std::vector<int64_t> own;
  for (const Parameter& parameter : parameters) own.push_back(hash_of(parameter.tensor));
  const std::vector<double> differs = ranks.count_differing(own);
  for (std::size_t i = 0; i < own.size(); ++i)
    FOCUS_CHECK(differs[i] == 0, "parameter '", parameters[i].name, "' differs between ranks (", differs[i],
                " of ", ranks.size(), " disagree)");
}

}  // namespace focus::train
