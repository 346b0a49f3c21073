// Which files a model is read from.
#pragma once

#include <string>
#include <vector>

#include "focus/core/output_guard.h"

namespace focus::weights {

/// Those of load_model()'s two paths: the files themselves, all parts of a split checkpoint, the shards
/// beside an index, and of a Hugging Face model its folder's configuration, tokenizer and weights. Nothing is
/// opened; an empty path is left out.
std::vector<NamedPath> model_files(const std::string& config_path, const std::string& checkpoint_path);

}  // namespace focus::weights
