// The files a run depends on.
#pragma once

#include <vector>

#include "focus/train/run/config.h"
#include "focus/train/run/run_folder.h"

namespace focus::train {

/// Size and SHA-256 of the model's, the training data's and the validation data's files. DataError.
std::vector<InputDigest> digest_inputs(const TrainConfig& config);

}  // namespace focus::train
