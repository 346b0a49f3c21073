#include "window_recompute.h"

#include <memory>
#include <utility>
#include <vector>

#include "focus/ops/attention.h"
#include "focus/ops/recompute.h"

namespace focus::compress {
namespace {

using at::Tensor;
using Tensors = std::vector<Tensor>;

/// ops::recomputed() for lists with gaps: undefined tensors stay undefined on both sides.
Tensors recomputed_with_gaps(const ops::TensorFunction& f, const Tensors& inputs, bool has_parameters) {
  const auto defined_of = [](const Tensors& all) {
    Tensors out;
    for (const Tensor& t : all) {
      if (t.defined()) out.push_back(t);
    }
    return out;
  };
  const auto spread = [](const std::vector<bool>& is_there, const Tensors& dense) {
    Tensors out(is_there.size());
    std::size_t next = 0;
    for (std::size_t i = 0; i < out.size(); ++i) {
      if (is_there[i]) out[i] = dense[next++];
    }
    return out;
  };
  std::vector<bool> has_input;
  for (const Tensor& t : inputs) has_input.push_back(t.defined());
  const auto has_output = std::make_shared<std::vector<bool>>();
  const auto run = [=](const Tensors& dense) {
    const Tensors outputs = f(spread(has_input, dense));
    has_output->clear();
    for (const Tensor& t : outputs) has_output->push_back(t.defined());
    return defined_of(outputs);
  };
  const Tensors dense = ops::recomputed(run, defined_of(inputs), has_parameters);
  return spread(*has_output, dense);
}

}  // namespace

Tensor attend(const Tensor& q, const ops::Memory& memory, const Tensor& k, const Tensor& v, bool recompute) {
  if (!recompute) return ops::memory_attention(q, memory, k, v);
  Tensors inputs = {q, k, v};
  ops::Memory shape = memory;  // without the tensors that come as inputs
  for (ops::MemoryPart& part : shape.parts) {
    for (Tensor* t : {&part.k, &part.v, &part.beta}) inputs.push_back(std::exchange(*t, Tensor()));
  }
  const auto run = [shape](const Tensors& in) -> Tensors {
    ops::Memory own = shape;
    std::size_t next = 3;
    for (ops::MemoryPart& part : own.parts) {
      for (Tensor* t : {&part.k, &part.v, &part.beta}) *t = in[next++];
    }
    return {ops::memory_attention(in[0], own, in[1], in[2])};
  };
  return recomputed_with_gaps(run, inputs, /*has_parameters=*/false)[0];
}

Tensor attend(const Tensor& q, const ops::Memory& memory, const OpenBases::Shown& open) {
  return ops::memory_attention(q, memory, open.k, open.v, open.num_keys);
}

Summary summarise(const std::shared_ptr<const FocusUnit>& unit, const ClosedSpan& span,
                  const Entries& history, bool recompute) {
  if (!recompute) return unit->summarise(span, history);
  const auto origin = std::make_shared<std::vector<EntryOrigin>>();
  ClosedSpan shape = span;  // without the tensors that come as inputs
  shape.q = shape.k = shape.v = shape.u_BND = shape.focus_x = Tensor();
  const auto run = [unit, shape, origin, past = history.origin](const Tensors& in) -> Tensors {
    ClosedSpan own = shape;
    own.q = in[0], own.k = in[1], own.v = in[2], own.u_BND = in[3], own.focus_x = in[4];
    const Summary made = unit->summarise(own, {.k = in[5], .v = in[6], .beta = in[7], .origin = past});
    *origin = made.entries.origin;
    return {made.entries.k, made.entries.v, made.entries.beta, made.focus_x};
  };
  const Tensors out = recomputed_with_gaps(
      run, {span.q, span.k, span.v, span.u_BND, span.focus_x, history.k, history.v, history.beta},
      /*has_parameters=*/true);
  return {.entries = {.k = out[0], .v = out[1], .beta = out[2], .origin = *origin}, .focus_x = out[3]};
}

}  // namespace focus::compress
