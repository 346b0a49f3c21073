#include "call_walk.h"

namespace focus::compress {

using at::Tensor;

Tensor positions_of(const model::AttentionCall& layer) {
  return model::chunk_positions(layer.u_BLD, layer.position, layer.state);
}

CallWalk::CallWalk(const model::AttentionCall& layer, const ModelCall& call, const WindowPlan& plan,
                   bool inline_stream)
    : layer_(layer),
      call_(call),
      plan_(plan),
      inline_stream_(inline_stream),
      positions_(positions_of(layer)) {
  now_ = layer.attention.project(layer.u_BLD, positions_);
}

Tensor CallWalk::run() {
  const int64_t length = layer_.u_BLD.size(1);
  std::vector<Tensor> outputs;
  int64_t row = 0, base = call_.first_base;
  while (row < length) {
    if (!call_.is_focus.empty() && call_.is_focus[static_cast<std::size_t>(row)]) {
      outputs.push_back(focus_token(row, base));
      ++row;
      end(base);
      continue;
    }
    begin(base);
    int64_t stop = next_change(base);
    if (inline_stream_) stop = std::min(stop, plan_.next_close(base, /*by_kmer=*/true));
    const int64_t count = std::min(stop - base, length - row);
    outputs.push_back(bases(row, base, count));
    row += count;
    base += count;
    const bool focus_follows = inline_stream_ && plan_.ends_kmer(base);
    if (!focus_follows) end(base);
  }
  return outputs.size() == 1 ? outputs[0] : at::cat(outputs, 1);
}

}  // namespace focus::compress
