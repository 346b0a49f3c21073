// What a stream of bases carries between calls: constant-size Hyena states and, per attention layer, keys and
// values. States are explicit: clone() forks a stream (a recurrent state cannot be rewound), num_bytes() is
// what the tensors really occupy.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "focus/cache/grown_rows.h"
#include "focus/cache/stretch.h"
#include "focus/nn/hyena.h"

namespace focus::cache {

using TensorMap = std::map<std::string, at::Tensor>;

class LayerState {
 public:
  virtual ~LayerState() = default;
  /// In memory of its own.
  virtual std::unique_ptr<LayerState> clone() const = 0;
  /// Shares memory with this state, which may go on: going back to a snapshot undoes what was done since, and
  /// costs nothing to prepare. Of a state and its snapshots only one may ever be advanced again.
  virtual std::unique_ptr<LayerState> snapshot() const = 0;
  /// Everything that makes up the state, on the CPU, in tensors that hold no more than it. Empty before the
  /// first chunk.
  virtual TensorMap save() const = 0;
  /// The inverse, onto a fresh state. Throws CheckpointError when the tensors are none of this kind's.
  virtual void load(const TensorMap& tensors, const at::Device& device) = 0;
  /// Bytes of the storage held.
  virtual int64_t num_bytes() const = 0;
  /// Cuts the autograd graph (truncated back-propagation through time).
  virtual void detach() = 0;
  /// How many more bases of a stretch can come without anything being moved; 0, the default, where a state
  /// takes no part in stretches.
  virtual int64_t room() const { return 0; }
  /// Takes note of a base that a replay of the last call has read.
  virtual void advance() {}
  /// That the call now at work belongs to, if any. The stream sets it.
  const Stretch* stretch = nullptr;
};

class HyenaLayerState final : public LayerState {
 public:
  std::unique_ptr<LayerState> clone() const override;
  std::unique_ptr<LayerState> snapshot() const override { return std::make_unique<HyenaLayerState>(*this); }
  TensorMap save() const override;
  void load(const TensorMap& saved, const at::Device& device) override;
  int64_t num_bytes() const override;
  void detach() override;
  int64_t room() const override { return std::numeric_limits<int64_t>::max(); }
  nn::HyenaState tensors;
};

/// All keys and values of the past, rotated, [B, key/value heads, S, E]. Has room for more where no gradient
/// is recorded.
class KeyValueState final : public LayerState {
 public:
  /// `capacity`: how many positions to make room for at the first append; more than that grow by half.
  explicit KeyValueState(int64_t capacity = 0) : k_(2, capacity), v_(2, capacity) {}
  std::unique_ptr<LayerState> clone() const override;
  std::unique_ptr<LayerState> snapshot() const override { return std::make_unique<KeyValueState>(*this); }
  TensorMap save() const override;
  void load(const TensorMap& saved, const at::Device& device) override;
  int64_t num_bytes() const override;
  void detach() override;
  int64_t room() const override { return std::min(k_.room(), v_.room()); }
  void advance() override { k_.advance(), v_.advance(); }
  void append(const at::Tensor& k, const at::Tensor& v);
  int64_t size() const { return k_.size(); }
  at::Tensor keys() const { return k_.rows(); }
  at::Tensor values() const { return v_.rows(); }
  /// With the room for more behind them.
  at::Tensor keys_and_room() const { return k_.rows_and_room(); }
  at::Tensor values_and_room() const { return v_.rows_and_room(); }

 private:
  GrownRows k_, v_;
};

struct StreamState {
  int64_t position = 0;  // tokens consumed so far: the next token's rotary position
  std::vector<std::unique_ptr<LayerState>> layers;  // one per block; created by the first forward
  int64_t expected_length = 0;       // where known: full memory then makes room once instead of growing
  std::shared_ptr<Stretch> stretch;  // that the next call belongs to, which is of one base then

  /// The next call is of one base, and the next `steady` ones do the same work as long as there is room; 0:
  /// it does something else, such as closing a window. It goes on with the last stretch or begins one.
  void step(int64_t steady, const at::Device& device);
  /// Of those `steady` calls, how many a recording of one of them can stand for: those that belong to the
  /// stretch of the last call.
  int64_t repeats(int64_t steady) const;
  /// A replay of the last call has read one more base.
  void advance();

  StreamState clone() const;
  /// A stretch ends here: it writes over what a snapshot holds.
  StreamState snapshot() const;
  int64_t num_bytes() const;
  void detach();
};

/// Bytes of a tensor's own storage; 0 if undefined.
int64_t storage_bytes(const at::Tensor& tensor);
/// A contiguous CPU tensor with storage of its own size.
at::Tensor saved_tensor(const at::Tensor& tensor);
/// The tensor of that name on the device. CheckpointError when it is missing.
at::Tensor loaded_tensor(const TensorMap& tensors, const std::string& name, const at::Device& device);

}  // namespace focus::cache
