// How good the trained model is on sequences that it does not train on.
#pragma once

#include <vector>

#include "focus/data/sampler.h"
#include "focus/distributed/ranks.h"
#include "focus/train/loop/task.h"

namespace focus::train {

/// The held-out sequences of a run, shared out among its ranks: rank r of N holds r, r + N, ...
class Validator {
 public:
  /// DataError.
  Validator(const ValidationConfig& config, const data::SequenceSampler& held_out,
            const model::Vocabulary& vocabulary, const at::Device& device, distributed::Ranks& ranks);

  struct Result {
    MetricFields figures;  // on rank 0: means over all sequences, "validation_" before their names
    double primary = 0;    // what "best" means: lower is better
  };
  /// Every rank calls it. The figures are added in the order of the sequences: the same bits for any number
  /// of ranks, where a sequence has the same figures on all of them.
  Result validate(Task& task) const;

 private:
  int64_t num_sequences_;
  distributed::Ranks& ranks_;
  std::vector<Batch> own_;
};

}  // namespace focus::train
