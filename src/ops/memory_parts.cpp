#include "memory_parts.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "focus/ops/shared_heads.h"
#include "focus/ops/tracked.h"

namespace focus::ops {

using at::Tensor;
namespace {

QuantisedTensor of_sequence(QuantisedTensor x, int64_t b) {
  for (Tensor* t : {&x.codes, &x.low, &x.step}) {
    if (t->defined()) *t = t->narrow(0, b, 1);
  }
  return x;
}

/// Masses of parts that lie beside each other; those that have none weigh nothing more. Undefined: none has.
Tensor joined_masses(const std::vector<MemoryPart>& parts, int64_t query_heads) {
  const auto first = std::find_if(parts.begin(), parts.end(), [](const auto& p) { return p.beta.defined(); });
  if (first == parts.end()) return {};
  const bool per_query_head = std::any_of(parts.begin(), parts.end(), [](const MemoryPart& p) {
    return p.beta.defined() && p.beta.size(1) != p.k.size(1);
  });
  std::vector<Tensor> masses;
  for (const MemoryPart& p : parts) {
    const Tensor beta = p.beta.defined() ? p.beta.to(first->beta.scalar_type())
                                         : at::zeros({p.k.size(0), p.k.size(1), p.size()},
                                                     first->beta.options().requires_grad(false));
    masses.push_back(per_query_head ? shared_heads(beta, query_heads) : beta);
  }
  return at::cat(masses, 2);
}

}  // namespace

MemoryPart MemoryPart::narrow(int64_t begin, int64_t count) const {
  if (count == 0) return {};
  const auto rows = [&](const Tensor& t) { return t.defined() ? t.narrow(2, begin, count) : t; };
  MemoryPart out{rows(k), rows(v), rows(beta)};
  if (in_codes()) out.k_codes = k_codes.narrow(begin, count), out.v_codes = v_codes.narrow(begin, count);
  return out;
}

MemoryPart MemoryPart::decoded(at::ScalarType type) const {
  if (!in_codes()) return *this;
  return {dequantise(k_codes, type), dequantise(v_codes, type), beta};
}

int64_t Memory::size() const {
  int64_t total = 0;
  for (const MemoryPart& part : parts) total += part.size();
  return total;
}

Memory Memory::narrow(int64_t begin, int64_t count) const {
  Memory out;
  int64_t first = 0;
  for (const MemoryPart& part : parts) {
    const int64_t from = std::max(begin - first, int64_t{0}),
                  to = std::min(begin + count - first, part.size());
    if (from < to) out.parts.push_back(part.narrow(from, to - from));
    first += part.size();
  }
  return out;
}

Memory Memory::of_sequence(int64_t b) const {
  Memory out = *this;
  for (MemoryPart& part : out.parts) {
    for (Tensor* t : {&part.k, &part.v, &part.beta}) {
      if (t->defined()) *t = t->narrow(0, b, 1);
    }
    part.k_codes = ops::of_sequence(part.k_codes, b);
    part.v_codes = ops::of_sequence(part.v_codes, b);
  }
  return out;
}

MemoryPart joined(const Memory& memory, at::ScalarType type, int64_t query_heads) {
  if (memory.parts.size() == 1) return memory.parts[0].decoded(type);
  std::vector<MemoryPart> parts;
  for (const MemoryPart& part : memory.parts) {
    if (part.size() > 0) parts.push_back(part.decoded(type));
  }
  if (parts.empty()) return {};
  if (parts.size() == 1) return parts[0];
  std::vector<Tensor> k, v;
  for (const MemoryPart& part : parts) k.push_back(part.k), v.push_back(part.v);
  return {at::cat(k, 2), at::cat(v, 2), joined_masses(parts, query_heads)};
}

Memory in_parts(const Memory& memory, int64_t most, at::ScalarType type, int64_t query_heads) {
  Memory out = memory, rest;
  std::erase_if(out.parts, [](const MemoryPart& part) { return part.size() == 0; });
  if (static_cast<int64_t>(out.parts.size()) <= most) return out;
  std::stable_sort(out.parts.begin(), out.parts.end(),
                   [](const MemoryPart& a, const MemoryPart& b) { return a.size() > b.size(); });
  rest.parts.assign(out.parts.begin() + (most - 1), out.parts.end());
  out.parts.erase(out.parts.begin() + (most - 1), out.parts.end());
  out.parts.push_back(joined(rest, type, query_heads));
  return out;
}

bool tracked(const Tensor& q, const Memory& memory, const Tensor& k, const Tensor& v) {
  return tracked({q, k, v}) ||
         std::any_of(memory.parts.begin(), memory.parts.end(),
                     [](const MemoryPart& part) { return tracked({part.k, part.v, part.beta}); });
}

}  // namespace focus::ops
