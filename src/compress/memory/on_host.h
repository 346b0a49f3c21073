// Where a model lies.
#pragma once

#include "focus/model/backbone.h"

namespace focus::compress {

/// Whether a model lies in host memory. One for sizes alone, whose weights are single numbers broadcast to
/// their shapes (nn::DeferAllocation), lies nowhere: it may be planned for any machine.
inline bool on_host(const model::Backbone& backbone) {
  const at::Tensor& weight = backbone.embedding_weight();
  return weight.is_cpu() && weight.storage().nbytes() >= weight.nbytes();
}

}  // namespace focus::compress
