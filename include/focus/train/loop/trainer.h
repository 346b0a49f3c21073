// The training loop: fetch all micro-batches of a step, forward and backward each, clip, check, step, log, validate, save. What is trained
// and with which loss is a Task's business.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "focus/data/sampler.h"
#include "focus/distributed/ranks.h"
#include "focus/model/backbone.h"
#include "focus/model/vocabulary.h"
#include "focus/train/loop/optimizer.h"
#include "focus/train/run/checkpoint.h"
#include "focus/train/run/config.h"
#include "focus/train/run/metrics_log.h"

namespace focus::train {

/// Sequences of a micro-batch, right-padded with weight 0 (causality keeps padding from changing anything before it).
struct Batch {
  at::Tensor tokens;       // [B, L] int64, of the model's vocabulary
  at::Tensor weights;      // [B, L] fp32, loss weight of the prediction OF token t; column 0 is 0
  at::Tensor copy_offset;  // [B, L] int32, -1 outside planted copies
};
Batch make_batch(const std::vector<data::Sample>& samples, const model::Vocabulary& vocabulary, const at::Device& device);

/// A weighted sum of losses and the weight it is to be divided by.
struct LossSum {
  at::Tensor sum;  // scalar with gradient
  double weight = 0;
  std::vector<std::pair<std::string, double>> parts;  // further sums to report, divided by the same weight
  struct Mean {
    std::string name;
    double sum = 0, weight = 0;
  };
  std::vector<Mean> means;  // figures with divisors of their own, which the step's batches add up; left out where the weight is 0
};

class Task {
 public:
  virtual ~Task() = default;
  virtual std::vector<Parameter> parameters() = 0;
  virtual const model::Backbone& backbone() const = 0;
  /// What the model reads its batches in.
  virtual const model::Vocabulary& vocabulary() const = 0;
  /// Called once, before the first step of a run that does not resume: initial values that need data.
  virtual void initialise() {}
  /// Called before a step fetches its batches: its number, from 0, and the stage it belongs to.
  virtual void begin_step(int64_t /*step*/, std::size_t /*stage*/) {}
  /// May change a batch's weights, before weight_of() is asked.
  virtual void prepare(Batch& /*batch*/) {}
  /// What the step was run with, for its line of metrics.
  virtual MetricFields step_facts() const { return {}; }
  /// The divisor of this batch's loss, known before the forward pass, so that accumulation over unequal batches is exact.
  virtual double weight_of(const Batch& batch) const = 0;
  virtual LossSum loss(const Batch& batch) = 0;
  /// Called after each optimizer step.
  virtual void after_step() {}
  /// Named figures on held-out data; `primary` is what "best" means (lower is better).
  struct Validation {
    std::vector<std::pair<std::string, double>> figures;
    double primary = 0;
  };
  virtual Validation validate(const std::vector<Batch>& batches) = 0;
  /// Extra identity stored with checkpoints and checked on resume (e.g. the backbone's digest).
  virtual std::string identity() const = 0;
  /// Writes the result of the run into its folder.
  virtual void write_result(const std::filesystem::path& folder) = 0;
};

struct TrainerOptions {
  std::filesystem::path output;
  bool resume = false, force = false;
  std::vector<std::string> command_line;
  distributed::Ranks* ranks = nullptr;  // null: one process
};

struct TrainResult {
  int64_t steps = 0, skipped = 0;
  double last_loss = 0;  // of the last step done here; 0 when none was
  double seconds = 0;
};

/// Runs the whole schedule. Throws Interrupted after a signal to any rank was honoured (checkpoint written), CheckFailed on a non-finite
/// loss or gradient that may not be skipped, naming step and samples.
///
/// With N ranks a step's micro-batches are split into N runs of consecutive ones, and gradients and losses are summed: the samples, their
/// weights and the divisor are those of one process, so that only the order of additions differs. Rank 0 alone reads checkpoints and writes
/// files; a run may be resumed with another number of ranks.
TrainResult train(const TrainConfig& config, Task& task, const TrainerOptions& options);

/// The task a config asks for.
std::unique_ptr<Task> make_task(const TrainConfig& config, const at::Device& device);

}  // namespace focus::train
