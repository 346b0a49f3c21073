// A grid of fidelity runs. Each cell is measured once and kept under a name that says what its figures depend
// on, so that a sweep resumes, grows by a value, and shares cells with another in the same folder.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "focus/compress/plan/config.h"
#include "focus/config/fields.h"
#include "focus/eval/fidelity.h"
#include "focus/report/sweep_report.h"

namespace focus::eval {

/// Settings that change together, and the values that they take in turn.
struct SweepAxis {
  std::vector<std::string> keys;                 // "focus.k"
  std::vector<std::vector<std::string>> values;  // [value][key] as JSON
};

/// Each cell trains an adapter of its own, which is the cell's method 'focus'.
struct SweepTrainConfig {
  std::string config;            // of focus-train; empty: nothing is trained
  std::vector<std::string> set;  // overrides of it, as --set
  void visit(config::Fields& f);
};

/// The configuration of focus-eval sweep: that of a fidelity run, and what is changed about it.
struct SweepConfig {
  FidelityConfig evaluation;
  SweepTrainConfig train;
  double scale = 1;                          // of segments and training steps
  int64_t cached_logits = int64_t{2} << 30;  // bytes, FidelityCache
  std::vector<SweepAxis> axes;               // "sweep" in the file; the last one changes fastest
  void visit(config::Fields& f);
};

/// Reads a configuration file as config::read_file. "sweep" is an object of settings and what they take:
///   "focus.k": [25, 50]                                 a list
///   "focus.k": {"from": 25, "to": 400, "factor": 2}     a range, or "step" in place of "factor"
///   "window.size, focus.k": [[512, 25], [1024, 50]]     settings that change together
/// ConfigError.
SweepConfig read_sweep_config(const std::string& path, const std::vector<std::string>& overrides);

/// What trains the adapter of a cell. The room of training stands beside this one, so the program that knows
/// both brings them together.
class CellTrainer {
 public:
  struct Plan {
    std::string config_json;        // resolved
    std::string identity;           // all that the adapter depends on: settings, contents of files, version
    compress::MemoryConfig memory;  // of the adapter
    int64_t bases = 0;              // that the training reads
  };
  virtual ~CellTrainer() = default;
  /// The training of a cell; ConfigError.
  virtual Plan plan(const std::vector<std::string>& overrides, double scale) = 0;
  /// Trains, or continues what was begun in `folder`; leaves adapter.safetensors there.
  virtual void train(const Plan& plan, const std::filesystem::path& folder) = 0;
};

struct SweepOptions {
  std::filesystem::path output;
  std::string command_line;
  CellTrainer* trainer = nullptr;  // used where train.config is set
};

/// One cell: a fidelity run, and the training before it.
struct PlannedCell {
  std::string id;                   // digest of all that the figures depend on
  std::vector<std::string> values;  // of the grid's settings, as text
  FidelityConfig config;
  compress::MemoryConfig memory;  // of the run, or of the adapter that is trained for it
  std::string training;           // digest of the training; empty: none
  CellTrainer::Plan train_plan;
};

class Sweep {
 public:
  /// Resolves and checks every cell, and opens every model; ConfigError naming the cell, and as run_fidelity.
  /// `device`: resolved.
  Sweep(SweepConfig config, std::string device, SweepOptions options);
  ~Sweep();

  const std::vector<PlannedCell>& cells() const { return cells_; }

  /// Measures what is not there yet. A cell's folder, cells/<id>, is a fidelity run's and appears complete or
  /// not at all; trainings/<id> holds a training, which is continued where it was killed. Any number of
  /// processes may work in one folder: each cell and training is held by a lock while it is done, and a lock
  /// ends with its process. The others wait for the last cells, and do them where a process was lost. Each
  /// prefers cells over segments at which no other works, and measures full memory once for all of them.
  ///
  /// A cell that fails is said, left in failed/<id>.txt, and not tried again by this process, nor by others
  /// that were at work then. Interrupted after Ctrl-C: what is done stays.
  void run();

  /// What there is in the folder now.
  report::SweepResult result() const;

  /// The cells, what each method will hold, and what time is left: from the finished cells' times, else from
  /// a probe of one short segment.
  std::string describe();

  int failed_exit_code() const { return failed_exit_code_; }  // of the first cell that failed here; 0: none

 private:
  enum class Outcome { done, busy, failed };
  Outcome attempt(const PlannedCell& cell);
  void measure(const PlannedCell& cell, const std::filesystem::path& folder, double train_seconds);
  std::filesystem::path folder_of(const PlannedCell& cell) const;
  std::filesystem::path failure_of(const PlannedCell& cell) const;
  std::string name_of(const PlannedCell& cell) const;
  bool is_done(const PlannedCell& cell) const;

  SweepConfig config_;
  std::string device_;
  SweepOptions options_;
  std::vector<std::string> keys_;
  std::vector<PlannedCell> cells_;
  std::filesystem::file_time_type started_;
  struct Work;
  std::unique_ptr<Work> work_;
  int failed_exit_code_ = 0;
};

}  // namespace focus::eval
