#include <algorithm>

#include "hooks.h"

namespace focus::compress {

using at::Tensor;

Tensor stream_letters(const HookContext& context, const LayerRules& rules, const BaseTables& tables, MemoryState& state,
                      const model::AttentionCall& call) {
  const int64_t length = call.u_BLD.size(1), end = context.first_base + length;
  const Tensor positions = positions_of(call);
  const nn::Projection now = call.attention.project(call.u_BLD, positions);
  state.letters.append(context.codes);
  // Raw bases that `base` does not see; their letters stay.
  const auto forget_before = [&](int64_t base) {
    const int64_t raw = base - rules.visible(base).raw_begin;
    if (raw < state.num_open()) state.keep_open(raw, 0);
  };
  std::vector<Tensor> outputs;
  for (int64_t base = context.first_base; base < end;) {
    // Rolling eviction waits for the next base; a window that ends takes its raw bases with it.
    if (rules.rolling()) forget_before(base);
    const int64_t row = base - context.first_base, past = base - state.num_open();
    const int64_t count = std::min(rules.next_change(base) - base, length - row);
    const auto rows = [&](const Tensor& t) { return t.narrow(2, row, count); };
    state.append(rows(now.k), rows(now.v), {}, {}, positions.narrow(0, row, count));
    outputs.push_back(call.attention.output(attend_letters(rows(now.q), call.attention, tables, state.letters, past, state.k, state.v)));
    base += count;
    if (!rules.rolling()) forget_before(base);
  }
  return outputs.size() == 1 ? outputs[0] : at::cat(outputs, 1);
}

}  // namespace focus::compress
