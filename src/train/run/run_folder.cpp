#include "focus/train/run/run_folder.h"

#include <array>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "focus/config/differences.h"
#include "focus/core/clock.h"
#include "focus/core/error.h"
#include "focus/core/file.h"
#include "focus/core/hash.h"
#include "focus/core/json_depth.h"
#include "focus/core/version.h"
#include "focus/formats/digest.h"
#include "focus/train/run/checkpoint.h"
#include "run/event_log.h"

namespace focus::train {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr char kConfig[] = "config.json", kProvenance[] = "provenance.json", kMetrics[] = "metrics.jsonl",
               kCheckpoints[] = "checkpoints";
/// What a run writes into its folder, besides TensorBoard events.
constexpr std::array kOwn = {kCheckpoints,          kMetrics,  kProvenance, kConfig, "best",
                             "adapter.safetensors", "model.pt"};

Json read_json(const fs::path& path) {
  try {
    return Json::parse(read_file(path), DepthWatch<DataError>{path.string()});
  } catch (const Json::exception& error) {
    fail<DataError>("'", path.string(), "': malformed JSON: ", error.what());
  }
}

void require_same_config(const fs::path& path, const RunFolderOptions& options) {
  // A run of an earlier version has no word of settings that came later.
  const std::string before = config::with_defaults(read_json(path).dump(), options.default_config_json);
  const auto differences = config::differences(before, options.config_json, options.may_change);
  if (differences.empty()) return;
  std::string message =
      concat("cannot resume '", options.output.string(), "': these settings differ from the run's ", kConfig,
             "; restore them, or start a new run with another --output:");
  for (const std::string& difference : differences) message += "\n  " + difference;
  throw ConfigError(message);
}

void require_same_inputs(const Json& provenance, const fs::path& path,
                         const std::vector<InputDigest>& inputs) {
  const auto starts = provenance.find("starts");
  if (starts == provenance.end() || !starts->is_array())
    fail<DataError>("'", path.string(), "': expected a list \"starts\"");
  for (const InputDigest& input : inputs) {
    for (const Json& start : *starts) {
      for (const Json& earlier : start.value("inputs", Json::array())) {
        if (earlier.value("path", "") == input.path && earlier.value("sha256", "") != input.sha256) {
          fail<DataError>("input '", input.path, "' has changed since the run began: SHA-256 was ",
                          earlier.value("sha256", ""), ", is ", input.sha256,
                          "; restore the file, or start a new run with another --output");
        }
      }
    }
  }
}

/// Leftovers of a killed write count for nothing.
bool holds_files(const fs::path& folder) {
  if (!fs::exists(folder)) return false;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.find(".tmp-") == std::string::npos && name != FolderLock::kFile) return true;
  }
  return false;
}

std::vector<fs::path> event_files(const fs::path& folder) {
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().filename().string().starts_with(EventLog::kPrefix)) found.push_back(entry.path());
  }
  return found;
}

/// Files under temporary names that a killed process left beside the run's own.
void remove_leftovers(const fs::path& folder) {
  std::vector<fs::path> doomed;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    const std::size_t mark = name.find(".tmp-");
    if (mark == std::string::npos || name.find_first_not_of("0123456789", mark + 5) != std::string::npos)
      continue;
    const std::string whole = name.substr(0, mark);
    bool ours = whole.starts_with(EventLog::kPrefix);
    for (const char* own : kOwn) ours = ours || whole == own;
    if (ours) doomed.push_back(entry.path());
  }
  for (const fs::path& path : doomed) fs::remove(path);
}

Json start_entry(const RunFolderOptions& options, const std::optional<int64_t>& resume_step) {
  Json inputs = Json::array();
  for (const InputDigest& input : options.inputs)
    inputs.push_back({{"path", input.path}, {"bytes", input.bytes}, {"sha256", input.sha256}});
  Json entry = {{"time", utc_now()},
                {"version", version()},
                {"git_hash", git_hash()},
                {"command_line", options.command_line}};
  entry["resumed_from_step"] = resume_step ? Json(*resume_step) : Json(nullptr);
  entry["inputs"] = std::move(inputs);
  return entry;
}

/// No input may be what the run writes, or what --force removes.
void require_inputs_elsewhere(const RunFolderOptions& options) {
  std::vector<NamedPath> outputs;
  for (const char* name : kOwn) outputs.push_back({"--output", options.output / name});
  require_separate(outputs, options.reads);
}

/// Of runs that do the same from the same inputs.
std::string identity_of(const RunFolderOptions& options) {
  std::string all = options.config_json;
  for (const InputDigest& input : options.inputs) all += input.sha256;
  std::array<char, 17> text{};
  std::snprintf(text.data(), text.size(), "%016llx",
                static_cast<unsigned long long>(fnv1a(all.data(), all.size())));
  return text.data();
}

RunFolder prepare(const RunFolderOptions& options) {
  const std::string shown = options.output.string();
  if (options.output.empty()) fail<ConfigError>("no output folder; pass --output DIR");
  if (options.resume && options.force)
    fail<ConfigError>("--resume and --force contradict each other: continue '", shown, "', or replace it?");
  if (fs::exists(options.output) && !fs::is_directory(options.output))
    fail<ConfigError>("output '", shown, "' is a file; pass a folder with --output DIR");
  require_inputs_elsewhere(options);
  RunFolder folder{.root = options.output,
                   .metrics = options.output / kMetrics,
                   .checkpoints = options.output / kCheckpoints,
                   .lock = std::make_unique<FolderLock>(options.output)};
  const bool has_files = holds_files(options.output);
  const fs::path config = options.output / kConfig, provenance_path = options.output / kProvenance;

  Json provenance = {{"starts", Json::array()}};
  if (has_files && options.resume) {
    if (!fs::exists(provenance_path)) {
      fail<ConfigError>("cannot resume '", shown, "': it holds files, but no ", kProvenance,
                        " of a run; pass another --output");
    }
    // The provenance is written first: a run killed right after it has no configuration yet, and nothing to
    // disagree with.
    if (fs::exists(config)) require_same_config(config, options);
    provenance = read_json(provenance_path);
    require_same_inputs(provenance, provenance_path, options.inputs);
    folder.resume_step = CheckpointStore(folder.checkpoints).latest();
  } else if (has_files && options.force) {
    // The old result too: a forced run that is killed must not pass it off as its own.
    for (const char* name : kOwn) fs::remove_all(options.output / name);
    for (const fs::path& events : event_files(options.output)) fs::remove(events);
  } else if (has_files) {
    fail<ConfigError>(
        "output folder '", shown,
        "' is not empty; pass --resume to continue that run, --force to replace it, or another --output");
  }
  remove_leftovers(options.output);
  provenance["starts"].push_back(start_entry(options, folder.resume_step));
  if (!provenance.contains("run")) provenance["run"] = identity_of(options);
  folder.run = provenance["run"].get<std::string>();
  constexpr std::size_t kDate = 10;  // a time of day would set apart the results of runs that are the same
  folder.begun = provenance["starts"][0].value("time", "").substr(0, kDate);
  write_file(provenance_path, provenance.dump(2) + "\n");
  write_file(config, options.config_json);
  return folder;
}

}  // namespace

InputDigest digest_input(const fs::path& path) {
  std::error_code error;
  const auto bytes = fs::file_size(path, error);
  if (error) fail<DataError>("cannot read '", path.string(), "': ", error.message());
  return {path.string(), static_cast<int64_t>(bytes), formats::file_digest(path)};
}

RunFolder prepare_run_folder(const RunFolderOptions& options) {
  try {
    return prepare(options);
  } catch (const fs::filesystem_error& error) {
    fail<DataError>("output folder '", options.output.string(), "': ", error.what());
  } catch (const Json::exception&) {
    fail<DataError>("'", (options.output / kProvenance).string(),
                    "' is not what a run wrote; pass another --output");
  }
}

}  // namespace focus::train
