// Memories that are known by a name, as settings: for what mixes them with others.
#pragma once

#include <string>

#include "focus/compress/plan/config.h"
#include "focus/model/backbone.h"

namespace focus::compress {

/// The memory 'mixture' in place of `layer`, settings of one block: the bytes that Focus takes under `config`
/// are spent on the newest bases as 4-bit codes, and on coarse entries for what is older, held as
/// `config.storage` has them.
FocusConfig mixture(const model::Backbone& backbone, const MemoryConfig& config, FocusConfig layer);

/// `far` as the memory of that name, far_..., has it: with a default number of k-mers where it says none.
FarConfig far_by_name(const std::string& name, FarConfig far);

}  // namespace focus::compress
