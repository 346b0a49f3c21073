#include "focus/compress/focus/low_rank_map.h"

#include <algorithm>

namespace focus::compress {

using at::Tensor;

LowRankMap::LowRankMap(int64_t in, int64_t out, int64_t rank) {
  if (rank == 0 || rank >= std::min(in, out)) {
    full = register_parameter("full", at::zeros({out, in}));
  } else {
    down = register_parameter("down", at::zeros({rank, in}));
    up = register_parameter("up", at::zeros({out, rank}));
  }
}

Tensor LowRankMap::matrix() const { return full.defined() ? full : at::matmul(up, down); }

Tensor LowRankMap::forward(const Tensor& x) const {
  if (full.defined()) return at::linear(x, full.to(x.scalar_type()));
  return at::linear(at::linear(x, down.to(x.scalar_type())), up.to(x.scalar_type()));
}

}  // namespace focus::compress
