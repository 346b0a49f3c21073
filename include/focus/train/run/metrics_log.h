// metrics.jsonl: one JSON object per line, in the order of the run.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "focus/train/run/record_value.h"

namespace focus::train {

using MetricFields = std::vector<std::pair<std::string, RecordValue>>;

class RecordFile;

class MetricsLog {
 public:
  /// Without `resumed_step` starts an empty file. With it, keeps the lines whose step is at most that, drops
  /// later ones and a torn last line, and appends, so that the file ends up as the uninterrupted run's.
  /// DataError: cannot be written, or a line before the last is malformed.
  explicit MetricsLog(const std::filesystem::path& path, std::optional<int64_t> resumed_step = std::nullopt);
  ~MetricsLog();

  /// Appends {"step": step, fields...} in the given order; NaN and infinities are written as null. The line
  /// has left the process on return, so a killed run keeps it. InternalError for a name twice or "step" among
  /// the fields; DataError.
  void write(int64_t step, const MetricFields& fields);
  /// Waits for the disk. Call before a checkpoint is saved: no checkpoint may be newer than its metrics.
  void sync();

 private:
  std::unique_ptr<RecordFile> file_;
};

}  // namespace focus::train
