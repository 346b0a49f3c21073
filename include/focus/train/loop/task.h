// What a run trains, what a step minimises, and how held-out sequences judge it. The loop knows no more of
// either kind of run than this.
#pragma once

#include <ATen/ATen.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "focus/data/sampler.h"
#include "focus/distributed/ranks.h"
#include "focus/model/backbone.h"
#include "focus/train/loop/optimizer.h"
#include "focus/train/run/config.h"
#include "focus/train/run/metrics_log.h"

namespace focus::train {

/// Sequences of a micro-batch, right-padded with weight 0 (causality keeps padding from changing anything
/// before it).
struct Batch {
  at::Tensor tokens;       // [B, L] int64, of the model's vocabulary
  at::Tensor weights;      // [B, L] fp32, loss weight of the prediction OF token t; column 0 is 0
  at::Tensor copy_offset;  // [B, L] int32, -1 outside planted copies
};
Batch make_batch(const std::vector<data::Sample>& samples, const model::Vocabulary& vocabulary,
                 const at::Device& device);

/// A figure that several batches add up: sum / weight, left out where the weight is 0. Scalars without
/// gradient, on any device.
struct Mean {
  std::string name;
  at::Tensor sum, weight;
};

/// What a batch adds to its step's loss, and what is reported beside it. Nobody reads a figure before the
/// step's last backward pass, so that a device need not wait for the host between two of them.
struct LossSum {
  at::Tensor sum;  // scalar with gradient
  /// Scalars without gradient that make up `sum`, each before its own factor.
  std::vector<std::pair<std::string, at::Tensor>> parts;
  std::vector<Mean> means;  // figures with divisors of their own
};

/// What one step minimises.
class Objective {
 public:
  virtual ~Objective() = default;
  /// Settles the batch's loss weights, which it may change, and returns their sum, an fp64 scalar: the
  /// divisor of loss(). Asked for all batches of a step before the first loss, so that accumulation over
  /// unequal batches is exact.
  virtual at::Tensor weigh(Batch& batch) = 0;
  /// Hands over what the batch adds to the loss, in one piece or in several whose graphs have nothing in
  /// common: each is gone back over, and its activations freed, before the next is computed.
  virtual void loss(const Batch& batch, const std::function<void(const LossSum&)>& add) = 0;

  MetricFields facts;  // what was drawn for the step, for its line of metrics
};

/// Figures of one held-out sequence.
struct Validation {
  std::vector<Mean> means;      // the same names for every sequence
  std::size_t num_primary = 1;  // the sum of the first so many is what "best" means: lower is better
};

struct TrainedModel {
  std::shared_ptr<model::Backbone> backbone;  // whose vocabulary batches have
  std::vector<Parameter> parameters;
  std::string identity;  // stored with checkpoints and checked on resume, e.g. the backbone's digest
};

class Task {
 public:
  virtual ~Task() = default;
  virtual const TrainedModel& model() const = 0;
  /// Initial values that need data. Called on every rank, before the first step of a run that does not
  /// resume.
  virtual void initialise(const data::SequenceSampler& /*training*/, distributed::Ranks& /*ranks*/) {}
  /// Of step `step` of the run, from 0, which belongs to `stage`.
  virtual std::unique_ptr<Objective> objective(int64_t step, const StageConfig& stage) = 0;
  /// Called without gradient, with one sequence.
  virtual Validation validate(const Batch& sequence) = 0;
  /// Writes the result of the run into its folder. `training`: what is known of its making, see
  /// RunRecord::training().
  virtual void write_result(const std::filesystem::path& folder, const std::string& training) const = 0;
};

/// The task a config asks for.
std::unique_ptr<Task> make_task(const TrainConfig& config, const at::Device& device);

}  // namespace focus::train
