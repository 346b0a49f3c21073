// Checkpoint folders that are complete or ignored: <store>/step-00000123/{trainable.safetensors,
// optimizer.safetensors, state.json, manifest.json}.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "focus/train/run/record_value.h"

namespace focus::train {

/// What a run needs to go on. `extra` is free: random generator states, data cursor, best metric, backbone
/// digest.
struct CheckpointState {
  int64_t step = 0;     // optimizer steps done; also names the folder
  int64_t samples = 0;  // training samples consumed
  std::map<std::string, RecordValue> extra;

  /// The text, whole or real number under `key`; CheckpointError naming the key when it is absent or of
  /// another kind.
  template <class T>
  const T& get(const std::string& key) const {
    const RecordValue* value = find(key);
    if (const T* typed = value == nullptr ? nullptr : std::get_if<T>(value)) return *typed;
    refuse(key, value != nullptr);
  }

 private:
  const RecordValue* find(const std::string& key) const;
  [[noreturn]] static void refuse(const std::string& key, bool present);
};

struct Checkpoint {
  CheckpointState state;
  std::map<std::string, at::Tensor> trainable;  // parameters by name, CPU after loading
  std::map<std::string, at::Tensor> optimizer;  // AdamW::state_tensors()
};

class CheckpointStore {
 public:
  /// `folder` is created by the first save. Keeps the `keep_last` (>= 1) newest checkpoints and the best one.
  explicit CheckpointStore(std::filesystem::path folder, int64_t keep_last = 3);

  /// Writes to a temporary sibling folder, the manifest (sizes and SHA-256 of the other files) last, syncs,
  /// and renames: a kill at any moment leaves the earlier checkpoints whole and this one either whole or
  /// ignored. A checkpoint of the same step is replaced. Then removes those beyond keep_last and leftovers of
  /// killed saves. Tensors may be on any device and non-contiguous. DataError when it cannot be written.
  std::filesystem::path save(const Checkpoint& checkpoint);
  /// This step's folder survives the rotation until another step is named.
  void set_best(std::optional<int64_t> step) { best_ = step; }
  /// Removes what is beyond keep_last and leftovers of killed saves, as each save does. DataError.
  void tidy() const;

  /// Steps with a complete folder (manifest present), ascending; other names and incomplete folders are
  /// ignored.
  std::vector<int64_t> steps() const;
  std::optional<int64_t> latest() const;
  std::filesystem::path path_of(int64_t step) const;
  /// Reads and verifies one checkpoint; see load_checkpoint.
  Checkpoint load(int64_t step) const;

 private:
  void remove_old() const;
  std::filesystem::path folder_;
  int64_t keep_last_;
  std::optional<int64_t> best_;
};

/// Reads a checkpoint folder. CheckpointError naming the file: no or malformed manifest, a file missing, of
/// another size or with another SHA-256 than the manifest says, malformed state or tensors.
Checkpoint load_checkpoint(const std::filesystem::path& folder);

/// Copies loaded tensors into the model's own (same names, shapes and dtypes; any device), in place and
/// without gradient. CheckpointError listing all missing, unexpected and different tensors, `what` naming
/// their origin; nothing is changed then.
void assign_tensors(const std::map<std::string, at::Tensor>& loaded,
                    const std::vector<std::pair<std::string, at::Tensor>>& own, const std::string& what);

}  // namespace focus::train
