// A stream of bases through a model, plain or with compressed memory: what scoring, embedding and generation
// feed chunk after chunk. Legend: B batch (here 1), L length, D width.
#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "focus/compress/compressed_model.h"
#include "focus/model/backbone.h"

namespace focus::infer {

/// Bytes that a stream holds between chunks.
struct StreamMemory {
  int64_t state_bytes = 0;  // Hyena states: constant
  int64_t kept_bytes = 0;   // keys and values of the past, or what a policy retained of them
  int64_t open_bytes = 0;   // raw bases of the open window, where memory is compressed
  int64_t far_bytes = 0;    // far memory: what is stored of closed windows, and the letters' index
  int64_t entries = 0;      // kept, at the attention layer that keeps the most
  int64_t total_bytes() const { return state_bytes + kept_bytes + open_bytes + far_bytes; }
};

class Stream {
 public:
  virtual ~Stream() = default;
  /// The next chunk's tokens [1, L] int64 on the model's device -> final hidden states [1, L, D]. When it
  /// throws, the stream is in no state to go on from; a snapshot taken before is.
  virtual at::Tensor forward(const at::Tensor& tokens_BL) = 0;
  /// forward() of one base, tokens [B, 1] -> [B, 1, D], without gradients, in the way that a device can
  /// record (ops::RecordedWork): what changes from base to base lies in the device's memory.
  virtual at::Tensor step(const at::Tensor& tokens_B1) { return forward(tokens_B1); }
  /// How many steps that follow do just what the last one did, so that a recording of one of them stands for
  /// all; 0 after any other call, and where the next one closes a window or a memory must run every time.
  virtual int64_t repeats() const { return 0; }
  /// A replay of the last step has read one more base.
  virtual void advance() {}
  /// An independent stream that has read the same bases.
  virtual std::unique_ptr<Stream> fork() const = 0;
  /// Shares memory with this stream, see cache::LayerState::snapshot().
  virtual std::unique_ptr<Stream> snapshot() const = 0;
  /// Bases read so far.
  virtual int64_t bases() const = 0;
  virtual StreamMemory memory() const = 0;
  /// Says which memory this is; a saved stream goes on only in one of the same description.
  virtual std::string description() const = 0;
  /// Everything that is carried, "block.name" -> tensor on the CPU, and back onto a stream that has read
  /// nothing.
  virtual cache::TensorMap save() const = 0;
  virtual void load(const cache::TensorMap& tensors, int64_t position, int64_t bases) = 0;
  /// Rotary position of the next token.
  virtual int64_t position() const = 0;
};

/// Begins a stream at base 0. `expected_length` of the sequence, 0 where unknown.
using StreamFactory = std::function<std::unique_ptr<Stream>(int64_t expected_length)>;

/// The backbone as it is, with all keys and values kept. The model must outlive the streams.
StreamFactory plain_stream(model::Backbone& model);
/// Focus or a rival. Streams share the model.
StreamFactory compressed_stream(std::shared_ptr<const compress::CompressedModel> model,
                                std::string description);
/// One that goes on from `begun`.
std::unique_ptr<Stream> compressed_stream(std::shared_ptr<const compress::CompressedModel> model,
                                          std::string description, compress::CompressedStream begun);

/// What computes a stream. A saved one goes on only under the same.
struct StreamOrigin {
  std::string model;      // its name, for messages
  std::string digest;     // as LoadedModel::digest
  std::string precision;  // as LoadedModel::precision
  std::string adapter;    // as LoadedAdapter::digest; empty: none
};

/// A place between two bases of a record, 0-based.
struct StreamPlace {
  std::string record;
  int64_t next = 0;    // the base behind the last one read, or the first one to be read
  std::string before;  // some bases of the record that lie before it: another record of that name has others
};

/// One safetensors file, a saved state: the stream, the last base's final hidden state [1, 1, D] (a continued
/// record's first base is predicted from it), what computed it, the place it has come to, and a SHA-256 of
/// all of this.
void save_stream(const Stream& stream, const at::Tensor& last_hidden, const StreamOrigin& origin,
                 const StreamPlace& place, const std::filesystem::path& path);
/// Loads it onto a fresh stream and returns the last hidden state. CheckpointError: no saved state, a damaged
/// one, another model, precision, memory or adapter. ConfigError: `place` is given and the state has come to
/// another one.
at::Tensor load_stream(Stream& stream, const StreamOrigin& origin, const std::optional<StreamPlace>& place,
                       const at::Device& device, const std::filesystem::path& path);

}  // namespace focus::infer
