#include "focus/ops/sample.h"

#include "device_kernels.h"
#include "focus/core/error.h"

namespace focus::ops {
namespace {

using at::Tensor;

void check(const Tensor& logits, const Tensor& uniform, const TokenChoice& choice) {
  if (logits.dim() < 1 || logits.size(-1) < 1 ||
      uniform.sizes() != logits.sizes().slice(0, logits.dim() - 1) || uniform.scalar_type() != at::kFloat)
    fail<ShapeError>("choose_tokens: need logits [.., tokens] and fp32 numbers [..], got ", logits.sizes(),
                     " and ", uniform.dtype(), " ", uniform.sizes());
  if (!(choice.temperature >= 0.0) || choice.top_k < 0 || !(choice.top_p > 0.0 && choice.top_p <= 1.0))
    fail<ConfigError>("choose_tokens: need a temperature >= 0, top_k >= 0 and top_p in (0, 1], got ",
                      choice.temperature, ", ", choice.top_k, " and ", choice.top_p);
}

int64_t kept(const Tensor& logits, const TokenChoice& choice) {
  const int64_t tokens = logits.size(-1);
  return choice.top_k == 0 ? tokens : std::min(choice.top_k, tokens);
}

}  // namespace

Tensor choose_tokens(const Tensor& logits, const Tensor& uniform, const TokenChoice& choice) {
  check(logits, uniform, choice);
  if (const DeviceKernels* kernels = float_kernels({logits});
      kernels != nullptr && uniform.device() == logits.device()) {
    TokenChoice resolved = choice;
    resolved.top_k = kept(logits, choice);
    const Tensor rows = logits.detach().reshape({-1, logits.size(-1)});
    if (const Tensor chosen = kernels->choose_tokens(rows, uniform.reshape({-1}), resolved); chosen.defined())
      return chosen.view(uniform.sizes());
  }
  return choose_tokens_reference(logits, uniform, choice);
}

Tensor choose_tokens_reference(const Tensor& logits, const Tensor& uniform, const TokenChoice& choice) {
  check(logits, uniform, choice);
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const Tensor wide = at::nan_to_num(logits.detach().to(at::kDouble), -kInfinity, kInfinity, -kInfinity);
  const auto [sorted, order] = at::sort(wide, /*stable=*/true, -1, /*descending=*/true);
  if (choice.temperature == 0.0) return order.select(-1, 0).clone();
  const Tensor kept_logits = sorted.narrow(-1, 0, kept(logits, choice)), largest = sorted.narrow(-1, 0, 1);
  const Tensor mass =
      at::where(kept_logits == largest, 1.0, ((kept_logits - largest) / choice.temperature).exp());
  const Tensor upto = mass.cumsum(-1), all = upto.narrow(-1, upto.size(-1) - 1, 1);
  const Tensor last = (upto < all * choice.top_p).sum(-1, true).clamp_max_(upto.size(-1) - 1);
  const Tensor target = uniform.to(at::kDouble).unsqueeze(-1) * upto.gather(-1, last);
  const Tensor rank = at::minimum((upto <= target).sum(-1, true), last);
  return order.gather(-1, rank).squeeze(-1);
}

}  // namespace focus::ops
