#include "focus/compress/memory/memory.h"

#include "focus/core/error.h"

namespace focus::compress {

at::Tensor LayerMemory::parallel(const model::AttentionCall& layer, ModelCall&) const {
  fail<ConfigError>("block ", layer.block, ": this memory (", describe(),
                    ") can only stream, not run a whole sequence in parallel");
}

}  // namespace focus::compress
