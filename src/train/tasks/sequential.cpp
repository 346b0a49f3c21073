#include "tasks/sequential.h"

#include <algorithm>
#include <vector>

namespace focus::train {

using at::Tensor;

void forward_sequential(const compress::CompressedModel& model, const Tensor& tokens_BL, int64_t bptt_windows,
                        const std::function<void(int64_t begin, const compress::HiddenStates&)>& piece) {
  const int64_t length = tokens_BL.size(1);
  compress::CompressedStream stream;
  for (int64_t begin = 0; begin < length;) {
    std::vector<Tensor> bases, focus, next;
    int64_t end = begin;
    for (int64_t windows = 0; end < length && (bptt_windows == 0 || windows < bptt_windows); ++windows) {
      const int64_t at = end;
      end = std::min(model.plan().next_close(at, false), length);
      const auto part = model.forward(tokens_BL.narrow(1, at, end - at), stream);
      bases.push_back(part.bases);
      if (part.focus.defined()) {
        focus.push_back(part.focus);
        next.push_back(part.next_base + at);
      }
    }
    compress::HiddenStates out{at::cat(bases, 1), {}, {}};
    if (!focus.empty()) {
      out.focus = at::cat(focus, 1);
      out.next_base = at::cat(next);
    }
    bases.clear();
    focus.clear();
    piece(begin, out);
    stream.backbone.detach();
    begin = end;
  }
}

}  // namespace focus::train
