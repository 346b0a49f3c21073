// The configuration of focus-train: one JSON file, every key also settable with --set path=value.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "focus/compress/plan/config.h"
#include "focus/config/fields.h"
#include "focus/data/sampler.h"
#include "focus/model/adapt.h"
#include "focus/model/initialise.h"
#include "focus/train/loop/optimizer.h"
#include "focus/train/loop/schedule.h"
#include "focus/train/tasks/match.h"
#include "focus/train/tasks/objective.h"
#include "focus/train/tasks/random_schedule.h"
#include "focus/weights/load_model.h"

namespace focus::train {

enum class TaskKind { adapter, pretrain };
enum class MatmulPrecision { exact, bf16 };
enum class Execution { parallel, sequential };
enum class NonFinite { stop, skip };
/// Which parameters the run's result has; automatic: the best where there is validation, else the last.
enum class ResultKind { automatic, last, best };
enum class StageKind { end_to_end, match };

/// Makes a backbone need the far memory of each of its attention layers. In a small one they idle, or stand
/// in for one another. Each step therefore runs a second time with one attention block, in turn, that sees
/// its open window alone, and adds weight * max(0, margin - gain) for each predicted base of a copy; gain: by
/// how many nats, in the mean over those bases, the other pass predicts them better.
struct ForgettingConfig {
  double weight = 0;    // 0 = off
  double margin = 0.5;  // nats
  int64_t window = 256;
  void visit(config::Fields& f);
};

/// A part of the run with sequences of one length.
struct StageConfig {
  StageKind kind = StageKind::end_to_end;
  int64_t length = 8192;  // bases per sequence
  int64_t steps = 100;    // optimizer steps
  int64_t epochs = 0;     // passes over the training data in place of `steps`; 0: steps
  int64_t batch = 1;      // sequences per micro-batch
  double lr = 0;          // peak learning rate; 0 = optimizer.lr
  double natural_weight = 1.0;
  data::CopyConfig copies;
  MatchConfig match;
  ForgettingConfig forgetting;
  /// `adapter`, `pretrain`: whether, and when, an adapter or a backbone is trained.
  void visit(config::Fields& f, const config::Condition& adapter = {},
             const config::Condition& pretrain = {});
};

struct ValidationConfig {
  int64_t every = 0;  // steps between validations; 0 = none
  int64_t sequences = 8;
  int64_t length = 8192;
  data::SamplerConfig data;
  bool allow_overlap = false;
  void visit(config::Fields& f);
};

struct TrainConfig {
  TaskKind task = TaskKind::adapter;
  std::string model_config;       // as weights::load_model
  std::string model_checkpoint;   // adapter: the frozen backbone; pretrain: where to start from, or empty
  model::InitConfig init;         // pretrain
  compress::MemoryConfig memory;  // adapter
  std::string adapter;       // adapter: trained one to start from, its file or its run's folder; empty = none
  model::AdaptConfig adapt;  // adapter: what of the backbone is trained too
  data::SamplerConfig data;
  std::vector<StageConfig> stages = {StageConfig{}};
  int64_t accumulation = 4;  // micro-batches per optimizer step
  ObjectiveConfig objective;
  RandomConfig random;
  Execution execution = Execution::parallel;
  int64_t bptt_windows = 0;  // sequential: windows the gradient goes back; 0 = all
  AdamWConfig optimizer;
  ScheduleConfig schedule;
  std::vector<std::string> freeze;  // pretrain: parameters whose names end with one of these stay as they are
  ValidationConfig validation;
  int64_t checkpoint_every = 100;
  int64_t keep_last = 3;
  int64_t seed = 42;
  std::string dtype = "fp32";
  weights::Fp8 fp8 = weights::Fp8::emulate;
  bool recompute = false;
  MatmulPrecision matmul = MatmulPrecision::exact;  // bf16: fp32 matrix products round their inputs to bf16,
                                                    // where the CPU or GPU is faster so
  std::string device = "auto";
  int64_t threads = 0;  // 0 = all cores, shared out among the ranks of a machine
  ResultKind result = ResultKind::automatic;
  NonFinite non_finite = NonFinite::stop;
  int64_t max_skips = 10;  // non_finite skip: in the whole run
  int64_t rank_timeout_seconds =
      600;  // several ranks: also covers the time that rank 0 needs to write a checkpoint alone
  void visit(config::Fields& f);
  /// Settings that contradict each other, are missing or have no effect; ConfigError.
  void validate() const;
};

/// The peak learning rate of a stage's steps; the schedule over the whole run then scales it.
inline double peak_lr(const TrainConfig& config, const StageConfig& stage) {
  return stage.lr > 0 ? stage.lr : config.optimizer.lr;
}

}  // namespace focus::train
