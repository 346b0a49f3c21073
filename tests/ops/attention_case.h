// Inputs of attention over a memory, and its definition, for the tests of its kernels.
#pragma once

#include <limits>
#include <ostream>
#include <vector>

#include "focus/ops/attention.h"

namespace focus::ops {

using at::Tensor;

struct Case {
  int64_t batch, heads, key_heads, queries, entries, keys, dim;
  bool with_beta, beta_per_query_head;
};

inline void PrintTo(const Case& c, std::ostream* out) {
  *out << "B" << c.batch << " H" << c.heads << " G" << c.key_heads << " Q" << c.queries << " P" << c.entries
       << " S" << c.keys << " E" << c.dim
       << (c.with_beta ? c.beta_per_query_head ? " beta per query head" : " beta" : "");
}

struct Inputs {
  Tensor q, k, v;
  MemoryPart memory;
};

inline Inputs make(const Case& c, at::ScalarType type) {
  Inputs in;
  in.q = at::randn({c.batch, c.heads, c.queries, c.dim}).to(type);
  const auto keys = [&](int64_t count) { return at::randn({c.batch, c.key_heads, count, c.dim}).to(type); };
  if (c.entries > 0) in.memory.k = keys(c.entries), in.memory.v = keys(c.entries);
  if (c.with_beta) {
    // Masses over many orders of magnitude, some entries hidden altogether.
    in.memory.beta = at::randn({c.batch, c.beta_per_query_head ? c.heads : c.key_heads, c.entries}) * 20;
    in.memory.beta.select(-1, c.entries / 2).fill_(-std::numeric_limits<float>::infinity());
  }
  if (c.keys > 0) in.k = keys(c.keys), in.v = keys(c.keys);
  return in;
}

/// Written out in fp64, with every array whole.
inline Tensor by_definition(const Inputs& in) {
  const int64_t heads = in.q.size(1), queries = in.q.size(2);
  const auto all_heads = [&](const Tensor& t) {
    return t.to(at::kDouble).repeat_interleave(heads / t.size(1), 1);
  };
  std::vector<Tensor> k, v, bias;
  if (in.memory.k.defined()) {
    const int64_t entries = in.memory.k.size(2);
    k.push_back(all_heads(in.memory.k)), v.push_back(all_heads(in.memory.v));
    const Tensor beta = in.memory.beta.defined() ? all_heads(in.memory.beta).unsqueeze(2)
                                                 : at::zeros({1, 1, 1, 1}, at::kDouble);
    bias.push_back(beta.expand({in.q.size(0), heads, queries, entries}));
  }
  if (in.k.defined()) {
    k.push_back(all_heads(in.k)), v.push_back(all_heads(in.v));
    bias.push_back(causal_bias(queries, in.k.size(2), at::kCPU)
                       .to(at::kDouble)
                       .expand({in.q.size(0), heads, queries, in.k.size(2)}));
  }
  const Tensor scores = at::matmul(in.q.to(at::kDouble), at::cat(k, 2).transpose(-1, -2)) /
                        std::sqrt(static_cast<double>(in.q.size(-1)));
  return at::matmul(at::softmax(scores + at::cat(bias, -1), -1), at::cat(v, 2));
}

}  // namespace focus::ops
