#include <algorithm>

#include "hooks.h"

namespace focus::compress {

using at::Tensor;

Tensor stream_letters(const HookContext& context, const LayerRules& rules, const BaseTables& tables, MemoryState& state,
                      const model::AttentionCall& call) {
  const int64_t length = call.u_BLD.size(1), end = context.first_base + length;
  const Tensor positions =
      at::arange(call.position, call.position + length, at::TensorOptions().dtype(at::kLong).device(call.u_BLD.device()));
  const nn::Projection now = call.attention.project(call.u_BLD, positions);
  state.letters.append(context.codes);
  const auto keep_raw_from = [&](int64_t oldest, int64_t base) {
    if (base - oldest < state.num_open()) state.keep_open(base - oldest, 0);
  };
  std::vector<Tensor> outputs;
  for (int64_t base = context.first_base; base < end;) {
    const int64_t raw_begin = rules.visible(base).raw_begin, row = base - context.first_base;
    keep_raw_from(raw_begin, base);
    const int64_t count = std::min(rules.next_change(base) - base, length - row);
    const auto rows = [&](const Tensor& t) { return t.narrow(2, row, count); };
    state.append(rows(now.k), rows(now.v), {}, {}, positions.narrow(0, row, count));
    outputs.push_back(
        call.attention.output(attend_letters(rows(now.q), call.attention, tables, state.letters, raw_begin, state.k, state.v)));
    base += count;
    // A window that ends takes its raw bases with it; rolling eviction waits for the next base.
    if (!rules.rolling()) keep_raw_from(rules.visible(base).raw_begin, base);
  }
  return outputs.size() == 1 ? outputs[0] : at::cat(outputs, 1);
}

}  // namespace focus::compress
