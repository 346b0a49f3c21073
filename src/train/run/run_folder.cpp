#include "focus/train/run/run_folder.h"

#include <array>
#include <ctime>
#include <nlohmann/json.hpp>

#include "focus/core/error.h"
#include "focus/core/file.h"
#include "focus/core/json_depth.h"
#include "focus/core/version.h"
#include "focus/formats/digest.h"
#include "focus/train/run/checkpoint.h"
#include "run/event_log.h"

namespace focus::train {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr char kConfig[] = "config.json", kProvenance[] = "provenance.json", kMetrics[] = "metrics.jsonl", kCheckpoints[] = "checkpoints";

Json read_json(const fs::path& path) {
  try {
    return Json::parse(read_file(path), DepthWatch<DataError>{path.string()});
  } catch (const Json::exception& error) {
    fail<DataError>("'", path.string(), "': malformed JSON: ", error.what());
  }
}

bool covered(const std::string& path, const std::vector<std::string>& may_change) {
  for (const std::string& allowed : may_change) {
    if (path == allowed || path.compare(0, allowed.size() + 1, allowed + ".") == 0) return true;
  }
  return false;
}

/// "path: old -> new" for each difference; lists are compared whole.
void compare(const Json& before, const Json& after, const std::string& path, const std::vector<std::string>& may_change,
             std::vector<std::string>& differences) {
  if (covered(path, may_change)) return;
  if (before.is_object() && after.is_object()) {
    const auto below = [&](const std::string& key) { return path.empty() ? key : path + "." + key; };
    for (const auto& [key, node] : before.items()) compare(node, after.value(key, Json()), below(key), may_change, differences);
    for (const auto& [key, node] : after.items()) {
      if (!before.contains(key)) compare(Json(), node, below(key), may_change, differences);
    }
  } else if (before != after) {
    const auto shown = [](const Json& node) { return node.is_null() ? std::string("(absent)") : node.dump(); };
    differences.push_back(concat(path, ": ", shown(before), " -> ", shown(after)));
  }
}

void require_same_config(const fs::path& path, const RunFolderOptions& options) {
  std::vector<std::string> differences;
  compare(read_json(path), Json::parse(options.config_json), "", options.may_change, differences);
  if (differences.empty()) return;
  std::string message = concat("cannot resume '", options.output.string(), "': these settings differ from the run's ", kConfig,
                               "; restore them, or start a new run with another --output:");
  for (const std::string& difference : differences) message += "\n  " + difference;
  throw ConfigError(message);
}

void require_same_inputs(const Json& provenance, const fs::path& path, const std::vector<InputDigest>& inputs) {
  const auto starts = provenance.find("starts");
  if (starts == provenance.end() || !starts->is_array()) fail<DataError>("'", path.string(), "': expected a list \"starts\"");
  for (const InputDigest& input : inputs) {
    for (const Json& start : *starts) {
      for (const Json& earlier : start.value("inputs", Json::array())) {
        if (earlier.value("path", "") == input.path && earlier.value("sha256", "") != input.sha256) {
          fail<DataError>("input '", input.path, "' has changed since the run began: SHA-256 was ", earlier.value("sha256", ""), ", is ",
                          input.sha256, "; restore the file, or start a new run with another --output");
        }
      }
    }
  }
}

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  ::gmtime_r(&now, &parts);
  std::array<char, 32> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text.data();
}

/// Leftovers of a killed write count for nothing.
bool holds_files(const fs::path& folder) {
  if (!fs::exists(folder)) return false;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().filename().string().find(".tmp-") == std::string::npos) return true;
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
    if (mark == std::string::npos || name.find_first_not_of("0123456789", mark + 5) != std::string::npos) continue;
    const std::string whole = name.substr(0, mark);
    bool ours = whole.starts_with(EventLog::kPrefix);
    for (const char* own : {kMetrics, kProvenance, kConfig, "adapter.safetensors", "model.pt"}) ours = ours || whole == own;
    if (ours) doomed.push_back(entry.path());
  }
  for (const fs::path& path : doomed) fs::remove(path);
}

Json start_entry(const RunFolderOptions& options, const std::optional<int64_t>& resume_step) {
  Json inputs = Json::array();
  for (const InputDigest& input : options.inputs)
    inputs.push_back({{"path", input.path}, {"bytes", input.bytes}, {"sha256", input.sha256}});
  Json entry = {{"time", utc_now()}, {"version", version()}, {"git_hash", git_hash()}, {"command_line", options.command_line}};
  entry["resumed_from_step"] = resume_step ? Json(*resume_step) : Json(nullptr);
  entry["inputs"] = std::move(inputs);
  return entry;
}

RunFolder prepare(const RunFolderOptions& options) {
  const std::string shown = options.output.string();
  if (options.output.empty()) fail<ConfigError>("no output folder; pass --output DIR");
  if (options.resume && options.force)
    fail<ConfigError>("--resume and --force contradict each other: continue '", shown, "', or replace it?");
  if (fs::exists(options.output) && !fs::is_directory(options.output))
    fail<ConfigError>("output '", shown, "' is a file; pass a folder with --output DIR");
  const bool has_files = holds_files(options.output);
  RunFolder folder{options.output, options.output / kMetrics, options.output / kCheckpoints, std::nullopt};
  const fs::path config = options.output / kConfig, provenance_path = options.output / kProvenance;

  Json provenance = {{"starts", Json::array()}};
  if (has_files && options.resume) {
    if (!fs::exists(provenance_path)) {
      fail<ConfigError>("cannot resume '", shown, "': it holds files, but no ", kProvenance, " of a run; pass another --output");
    }
    // The provenance is written first: a run killed right after it has no configuration yet, and nothing to disagree with.
    if (fs::exists(config)) require_same_config(config, options);
    provenance = read_json(provenance_path);
    require_same_inputs(provenance, provenance_path, options.inputs);
    folder.resume_step = CheckpointStore(folder.checkpoints).latest();
  } else if (has_files && options.force) {
    // The old result too: a forced run that is killed must not pass it off as its own.
    for (const char* name : {kCheckpoints, kMetrics, kProvenance, kConfig, "best", "adapter.safetensors", "model.pt"})
      fs::remove_all(options.output / name);
    for (const fs::path& events : event_files(options.output)) fs::remove(events);
  } else if (has_files) {
    fail<ConfigError>("output folder '", shown,
                      "' is not empty; pass --resume to continue that run, --force to replace it, or another --output");
  }
  fs::create_directories(options.output);
  remove_leftovers(options.output);
  provenance["starts"].push_back(start_entry(options, folder.resume_step));
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
  }
}

}  // namespace focus::train
