#include "tasks/sequential.h"

#include <algorithm>
#include <vector>

namespace focus::train {

using at::Tensor;

compress::HiddenStates forward_sequential(const compress::CompressedModel& model, const Tensor& tokens_BL,
                                          int64_t bptt_windows) {
  compress::CompressedStream stream;
  std::vector<Tensor> bases, focus, next;
  int64_t windows = 0;
  for (int64_t begin = 0; begin < tokens_BL.size(1);) {
    const int64_t end = std::min(model.plan().next_close(begin, false), tokens_BL.size(1));
    if (bptt_windows > 0 && windows > 0 && windows % bptt_windows == 0) stream.backbone.detach();
    const auto part = model.forward(tokens_BL.narrow(1, begin, end - begin), stream);
    bases.push_back(part.bases);
    if (part.focus.defined()) {
      focus.push_back(part.focus);
      next.push_back(part.next_base + begin);
    }
    begin = end;
    ++windows;
  }
  compress::HiddenStates out{at::cat(bases, 1), {}, {}};
  if (!focus.empty()) {
    out.focus = at::cat(focus, 1);
    out.next_base = at::cat(next);
  }
  return out;
}

}  // namespace focus::train
