// The folder of one training run: config.json, provenance.json, metrics.jsonl, checkpoints/.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "focus/core/folder_lock.h"
#include "focus/core/output_guard.h"

namespace focus::train {

/// A file that a run depends on.
struct InputDigest {
  std::string path;
  int64_t bytes = 0;
  std::string sha256;
};
/// Size and SHA-256 of a file. DataError.
InputDigest digest_input(const std::filesystem::path& path);

struct RunFolderOptions {
  std::filesystem::path output;
  bool resume = false;      // continue what `output` holds
  bool force = false;       // replace what a run left in `output`; other files there are not touched
  std::string config_json;  // the resolved configuration: config::to_json(...)
  /// The same with every setting as it is by default: what the configuration of a run of an earlier version
  /// lacks. "{}": it lacks nothing.
  std::string default_config_json = "{}";
  /// Settings that a resumed run may change without ceasing to be the same run, as paths; a group's path
  /// covers all of it.
  std::vector<std::string> may_change;
  std::vector<std::string> command_line;
  std::vector<InputDigest> inputs;
  std::vector<NamedPath> reads;  // files that must not be replaced or removed
};

struct RunFolder {
  std::filesystem::path root, metrics, checkpoints;
  std::unique_ptr<FolderLock> lock;  // held as long as the run goes on
  /// Names the run in its checkpoints and its result: equal for runs of the same configuration and inputs.
  std::string run;
  std::string begun;  // UTC date of the first start
  /// Step of the newest complete checkpoint; empty for a fresh start, also when a resumed run had saved none
  /// yet.
  std::optional<int64_t> resume_step;
};

/// Makes the folder ready and writes config.json and provenance.json (one entry per start: version, git hash,
/// command line, UTC time, step it resumed from, inputs). Throws ConfigError, saying what to do:
///   - output is not empty and neither resume nor force is given (or both are), it is a file, or another run
///   is at work in it;
///   - one of `reads` is what the run would write or remove;
///   - resume, and a setting outside may_change differs from the saved config.json: every such path with old
///   and new value.
/// DataError: an input's digest differs from the one at the run's first start, or the folder cannot be
/// written. resume with an empty or absent output starts afresh, so that a batch job can always pass it.
RunFolder prepare_run_folder(const RunFolderOptions& options);

}  // namespace focus::train
