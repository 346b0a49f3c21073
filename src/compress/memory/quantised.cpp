#include "quantised.h"

#include <vector>

#include "focus/core/error.h"

namespace focus::compress {
namespace {

using at::Tensor;

QuantisedTensor round_along(const Tensor& x, int64_t dim, double levels) {
  const Tensor low = x.amin(dim, true).to(at::kHalf);
  // fp16's smallest normal number: constant rows need some step, and smaller ones would lose their digits.
  const Tensor step =
      ((x.amax(dim, true) - low.to(x.scalar_type())) / levels).clamp_min(6.2e-5).to(at::kHalf);
  const Tensor codes =
      ((x - low.to(x.scalar_type())) / step.to(x.scalar_type())).round().clamp(0, levels).to(at::kByte);
  return {codes, low, step};
}

}  // namespace

QuantisedTensor quantise(const Tensor& x_BGSE, int64_t bits, int64_t key_group) {
  FOCUS_CHECK((bits == 8 || bits == 4) && x_BGSE.size(3) % 2 == 0, "codes of ", bits, " bits for ",
              x_BGSE.size(3), " channels");
  const double levels = bits == 8 ? 255 : 15;
  const Tensor x = x_BGSE.to(x_BGSE.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  QuantisedTensor out;
  if (key_group == 0) {
    out = round_along(x, 3, levels);
  } else {
    std::vector<Tensor> codes, low, step;
    for (const Tensor& group : x.split(key_group, 2)) {
      const QuantisedTensor c = round_along(group, 2, levels);
      codes.push_back(c.codes);
      low.push_back(c.low);
      step.push_back(c.step);
    }
    out = {at::cat(codes, 2), at::cat(low, 2), at::cat(step, 2)};
  }
  if (bits == 4) {
    const Tensor pairs = out.codes.unflatten(3, {-1, 2});
    out.codes = pairs.select(-1, 0) + pairs.select(-1, 1) * 16;
  }
  return out;
}

Tensor dequantise(const QuantisedTensor& q, int64_t bits, const Tensor& row_of, at::ScalarType dtype) {
  const auto wide = dtype == at::kDouble ? at::kDouble : at::kFloat;
  Tensor codes = q.codes, low = q.low, step = q.step;
  if (bits == 4) codes = at::stack({codes.bitwise_and(15), codes.bitwise_right_shift(4)}, -1).flatten(3);
  if (row_of.defined()) {
    low = low.index_select(2, row_of);
    step = step.index_select(2, row_of);
  }
  return (codes.to(wide) * step.to(wide) + low.to(wide)).to(dtype);
}

}  // namespace focus::compress
