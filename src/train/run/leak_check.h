// Whether held-out data are held out.
#pragma once

#include <vector>

#include "focus/train/run/run_folder.h"
#include "run_data.h"

namespace focus::train {

/// DataError when training may draw what validation is measured on, unless validation.allow_overlap (then a
/// warning):
///   - a validation region overlaps a training region of the same record of the same file, or of a file with
///   the same digest;
///   - most of a held-out sequence's 32-mers, taken every 32 bases, occur in the training data, on either
///   strand, whatever the files are called.
///     Compared only while the training data are held in memory (data.memory_mb): a genome on disk would take
///     minutes to read.
void require_held_out(const RunData& data, const std::vector<InputDigest>& inputs);

}  // namespace focus::train
