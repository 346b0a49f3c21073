// TensorBoard's event file, beside metrics.jsonl: TFRecord frames of Event messages, written by hand.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string_view>

#include "focus/train/run/metrics_log.h"
#include "run/record_file.h"

namespace focus::train {

class EventLog {
 public:
  /// One file <folder>/events.out.tfevents.* for the whole run. Without `resumed_step` starts a new one; with
  /// it, goes on with the one that is there, without what is torn or later than that step, so that
  /// TensorBoard never sees a step twice. DataError.
  explicit EventLog(const std::filesystem::path& folder, std::optional<int64_t> resumed_step = std::nullopt);

  /// One scalar for each finite number among the fields. The record has left the process on return.
  void write(int64_t step, const MetricFields& fields);
  /// Waits for the disk.
  void sync() { file_->sync(); }

  static constexpr std::string_view kPrefix = "events.out.tfevents.";

 private:
  std::unique_ptr<RecordFile> file_;
};

/// CRC-32C (Castagnoli), as TFRecord frames use it before masking.
uint32_t crc32c(std::string_view bytes);

}  // namespace focus::train
