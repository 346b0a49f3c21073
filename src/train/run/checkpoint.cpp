#include "focus/train/run/checkpoint.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>

#include "focus/core/error.h"
#include "focus/core/file.h"
#include "focus/core/json_depth.h"
#include "focus/core/staged_folder.h"
#include "focus/formats/digest.h"
#include "run/named_tensors.h"
#include "run/record_json.h"

namespace focus::train {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr int kFormat = 1;
constexpr char kManifest[] = "manifest.json", kState[] = "state.json", kTrainable[] = "trainable.safetensors",
               kOptimizer[] = "optimizer.safetensors";
constexpr std::array kContents = {kTrainable, kOptimizer, kState};
constexpr char kPrefix[] = "step-", kTemporary[] = ".tmp-";

/// -1 when the name is not that of a finished checkpoint folder.
int64_t step_of(const std::string& name) {
  const std::size_t prefix = std::strlen(kPrefix);
  if (name.compare(0, prefix, kPrefix) != 0) return -1;
  const std::string digits = name.substr(prefix);
  if (digits.size() < 8 || digits.size() > 18 || digits.find_first_not_of("0123456789") != std::string::npos)
    return -1;
  return std::stoll(digits);
}

Json state_to_json(const CheckpointState& state) {
  Json extra = Json::object();
  for (const auto& [key, value] : state.extra) {
    extra[key] = record_to_json<Json>(value);
    FOCUS_CHECK(!extra[key].is_null(), "checkpoint state '", key,
                "' is not finite, which JSON cannot hold; leave the key out");
  }
  return {{"step", state.step}, {"samples", state.samples}, {"extra", std::move(extra)}};
}

Json read_json(const fs::path& path) {
  try {
    return Json::parse(read_file(path), DepthWatch<CheckpointError>{path.string()});
  } catch (const Json::exception& error) {
    fail<CheckpointError>("'", path.string(), "': malformed JSON: ", error.what());
  } catch (const DataError& error) {
    throw CheckpointError(error.what());
  }
}

CheckpointState read_state(const fs::path& path) {
  const Json json = read_json(path);
  const auto malformed = [&](const std::string& key) {
    fail<CheckpointError>("'", path.string(), "': '", key, "' is missing or of the wrong kind");
  };
  CheckpointState state;
  for (const char* key : {"step", "samples"}) {
    if (!json.contains(key) || !json[key].is_number_integer()) malformed(key);
  }
  state.step = json["step"].get<int64_t>();
  state.samples = json["samples"].get<int64_t>();
  if (!json.contains("extra") || !json["extra"].is_object()) malformed("extra");
  for (const auto& [key, node] : json["extra"].items()) {
    const auto value = record_from_json(node);
    if (!value) malformed("extra." + key);
    state.extra.emplace(key, *value);
  }
  return state;
}

/// Checks sizes before digests: a truncated file is told apart from an altered one, and cheaply.
void verify(const fs::path& folder) {
  const fs::path path = folder / kManifest;
  std::error_code ignored;
  if (!fs::exists(path, ignored)) {
    fail<CheckpointError>("'", folder.string(), "' is no complete checkpoint: ", kManifest,
                          " is missing; name another step's folder");
  }
  const Json manifest = read_json(path);
  const auto files = manifest.is_object() ? manifest.find("files") : manifest.end();
  if (!manifest.is_object() || !manifest.contains("format") || manifest["format"] != kFormat ||
      files == manifest.end() || !files->is_object()) {
    fail<CheckpointError>("'", path.string(), "': expected a manifest of format ", kFormat,
                          " with a list of files");
  }
  for (const char* name : kContents) {
    const fs::path file = folder / name;
    const auto entry = files->find(name);
    if (entry == files->end() || !entry->is_object() || !entry->contains("bytes") ||
        !(*entry)["bytes"].is_number_integer() || !entry->contains("sha256") ||
        !(*entry)["sha256"].is_string()) {
      fail<CheckpointError>("'", path.string(), "': no size and SHA-256 of ", name);
    }
    const auto expected_bytes = (*entry)["bytes"].get<int64_t>();
    std::error_code error;
    const auto bytes = fs::file_size(file, error);
    if (error) fail<CheckpointError>("cannot read '", file.string(), "': ", error.message());
    if (static_cast<int64_t>(bytes) != expected_bytes) {
      fail<CheckpointError>("'", file.string(), "' has ", bytes, " bytes, but the manifest says ",
                            expected_bytes, "; the checkpoint is damaged, use another");
    }
    std::string digest;
    try {
      digest = formats::file_digest(file);
    } catch (const Error& inner) {
      throw CheckpointError(inner.what());
    }
    const auto expected = (*entry)["sha256"].get<std::string>();
    if (digest != expected) {
      fail<CheckpointError>("'", file.string(), "' has SHA-256 ", digest, ", but the manifest says ",
                            expected, "; the checkpoint is damaged, use another");
    }
  }
}

}  // namespace

const RecordValue* CheckpointState::find(const std::string& key) const {
  const auto found = extra.find(key);
  return found == extra.end() ? nullptr : &found->second;
}

void CheckpointState::refuse(const std::string& key, bool present) {
  fail<CheckpointError>("checkpoint state '", key, "' is ",
                        present ? "of another kind (text, whole or real number) than expected" : "missing");
}

CheckpointStore::CheckpointStore(fs::path folder, int64_t keep_last)
    : folder_(std::move(folder)), keep_last_(keep_last) {
  FOCUS_CHECK(keep_last_ >= 1, "keep_last ", keep_last_);
}

fs::path CheckpointStore::path_of(int64_t step) const {
  std::array<char, 40> name{};
  std::snprintf(name.data(), name.size(), "%s%08lld", kPrefix, static_cast<long long>(step));
  return folder_ / name.data();
}

fs::path CheckpointStore::save(const Checkpoint& checkpoint) {
  FOCUS_CHECK(checkpoint.state.step >= 0, "step ", checkpoint.state.step);
  const fs::path final_path = path_of(checkpoint.state.step);
  try {
    StagedFolder staged(final_path);  // a half-written checkpoint would go on filling a full disk
    const fs::path& folder = staged.temporary();
    write_tensors(folder / kTrainable, checkpoint.trainable);
    write_tensors(folder / kOptimizer, checkpoint.optimizer);
    write_file(folder / kState, state_to_json(checkpoint.state).dump(2) + "\n");
    Json manifest = {{"format", kFormat}, {"step", checkpoint.state.step}, {"files", Json::object()}};
    for (const char* name : kContents) {
      manifest["files"][name] = {{"bytes", fs::file_size(folder / name)},
                                 {"sha256", formats::file_digest(folder / name)}};
    }
    write_file(folder / kManifest, manifest.dump(2) + "\n");
    staged.commit();
    remove_old();
  } catch (const fs::filesystem_error& error) {
    fail<DataError>("cannot write checkpoint '", final_path.string(), "': ", error.what());
  }
  return final_path;
}

void CheckpointStore::tidy() const {
  if (!fs::exists(folder_)) return;
  try {
    remove_old();
  } catch (const fs::filesystem_error& error) {
    fail<DataError>("cannot remove old checkpoints in '", folder_.string(), "': ", error.what());
  }
}

void CheckpointStore::remove_old() const {
  std::vector<fs::path> doomed;
  for (const auto& entry : fs::directory_iterator(folder_)) {
    const std::string name = entry.path().filename().string();
    const std::size_t mark = name.find(kTemporary);
    if (mark != std::string::npos && step_of(name.substr(0, mark)) >= 0) doomed.push_back(entry.path());
  }
  const std::vector<int64_t> all = steps();
  for (std::size_t i = 0; i + static_cast<std::size_t>(keep_last_) < all.size(); ++i) {
    if (all[i] == best_) continue;
    // Under a temporary name a removal that is cut short is finished by the next save.
    fs::path leaving = path_of(all[i]);
    leaving += concat(kTemporary, ::getpid(), "-old");
    fs::rename(path_of(all[i]), leaving);
    doomed.push_back(leaving);
  }
  for (const fs::path& path : doomed) fs::remove_all(path);
}

std::vector<int64_t> CheckpointStore::steps() const {
  std::vector<int64_t> out;
  std::error_code error;
  for (fs::directory_iterator entry(folder_, error), end; !error && entry != end; entry.increment(error)) {
    const int64_t step = step_of(entry->path().filename().string());
    std::error_code ignored;
    if (step >= 0 && entry->path() == path_of(step) && fs::exists(entry->path() / kManifest, ignored))
      out.push_back(step);
  }
  if (error && error != std::errc::no_such_file_or_directory) {
    fail<CheckpointError>("cannot list checkpoints in '", folder_.string(), "': ", error.message());
  }
  std::sort(out.begin(), out.end());
  return out;
}

std::optional<int64_t> CheckpointStore::latest() const {
  const std::vector<int64_t> all = steps();
  return all.empty() ? std::nullopt : std::optional<int64_t>(all.back());
}

Checkpoint CheckpointStore::load(int64_t step) const { return load_checkpoint(path_of(step)); }

Checkpoint load_checkpoint(const fs::path& folder) {
  verify(folder);
  return {read_state(folder / kState), read_tensors(folder / kTrainable), read_tensors(folder / kOptimizer)};
}

void assign_tensors(const std::map<std::string, at::Tensor>& loaded,
                    const std::vector<std::pair<std::string, at::Tensor>>& own, const std::string& what) {
  require_same_tensors(loaded, own, what);
  const at::NoGradGuard no_grad;
  for (const auto& [name, tensor] : own) tensor.detach().copy_(loaded.at(name));
}

}  // namespace focus::train
