#include "focus/ops/quantised.h"

#include <vector>

#include "focus/core/error.h"

namespace focus::ops {
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

QuantisedTensor QuantisedTensor::narrow(int64_t begin, int64_t count) const {
  QuantisedTensor out = *this;
  out.codes = codes.narrow(2, begin, count);
  if (row_of.defined()) {
    out.row_of = row_of.narrow(0, begin, count);
  } else {
    out.low = low.narrow(2, begin, count);
    out.step = step.narrow(2, begin, count);
  }
  return out;
}

QuantisedTensor quantise(const Tensor& x_BGSE, int64_t bits, int64_t group) {
  FOCUS_CHECK((bits == 8 || bits == 4) && x_BGSE.size(3) % 2 == 0, "codes of ", bits, " bits for ",
              x_BGSE.size(3), " channels");
  const double levels = bits == 8 ? 255 : 15;
  const Tensor x = x_BGSE.to(x_BGSE.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  QuantisedTensor out;
  if (group == 0) {
    out = round_along(x, 3, levels);
  } else {
    std::vector<Tensor> codes, low, step;
    for (const Tensor& rows : x.split(group, 2)) {
      const QuantisedTensor c = round_along(rows, 2, levels);
      codes.push_back(c.codes);
      low.push_back(c.low);
      step.push_back(c.step);
    }
    out = {at::cat(codes, 2), at::cat(low, 2), at::cat(step, 2)};
    out.row_of = at::arange(x.size(2), x.options().dtype(at::kInt)).floor_divide(group);
  }
  out.bits = bits;
  if (bits == 4) {
    const Tensor pairs = out.codes.unflatten(3, {-1, 2});
    out.codes = pairs.select(-1, 0) + pairs.select(-1, 1) * 16;
  }
  return out;
}

Tensor dequantise(const QuantisedTensor& x, at::ScalarType dtype) {
  const auto wide = dtype == at::kDouble ? at::kDouble : at::kFloat;
  Tensor codes = x.codes, low = x.low, step = x.step;
  if (x.bits == 4) codes = at::stack({codes.bitwise_and(15), codes.bitwise_right_shift(4)}, -1).flatten(3);
  if (x.row_of.defined()) {
    low = low.index_select(2, x.row_of);
    step = step.index_select(2, x.row_of);
  }
  return (codes.to(wide) * step.to(wide) + low.to(wide)).to(dtype);
}

}  // namespace focus::ops
