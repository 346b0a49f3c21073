// Decoding: one base after the other, each chosen by what the model makes of those before it. Legend: B
// sequences, n bases, D width.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "focus/core/random.h"
#include "focus/infer/stream.h"
#include "focus/ops/recorded_work.h"
#include "focus/ops/sample.h"

namespace focus::infer {

struct DecodeOptions {
  ops::TokenChoice choice;
  uint64_t seed = 0;             // sequence i draws from stream i of it
  std::vector<int64_t> allowed;  // tokens to choose from; empty: all that the model has
  int64_t block = 64;            // bases between two looks of the host
  bool record = true;            // let the device replay what repeats itself, where it can
};

/// Chooses a base, reads it, and so on. On a device the host neither waits nor copies anything within a
/// block, and steps that repeat themselves (Stream::repeats) are recorded once and replayed, if the whole
/// model lies on that device. The bases depend neither on how many of them are asked for at a time nor on
/// `block` and `record`.
class Decoder {
 public:
  /// Goes on after a prompt: `stream` has read it, `last_hidden` [B, 1, D] is what the model made of its last
  /// base. The model outlives the decoder. ConfigError: options that cannot be.
  Decoder(const model::Backbone& model, std::unique_ptr<Stream> stream, const at::Tensor& last_hidden,
          DecodeOptions options);
  /// Adds up to `count` bases to each sequence. Every `block` of them are handed to `take`, [B, n] int64 on
  /// the CPU, which says whether to go on. Returns how many were added.
  int64_t run(int64_t count, const std::function<bool(const at::Tensor& tokens_Bn)>& take);
  /// The next `count` tokens, [B, count] int64 on the CPU.
  at::Tensor next(int64_t count);

  /// What has read all tokens that were handed out.
  const Stream& stream() const { return *stream_; }
  /// How the steps so far came about; all of them together: plain + recorded + replayed.
  struct Steps {
    int64_t plain = 0, recorded = 0, replayed = 0;
  };
  const Steps& steps() const { return steps_; }

 private:
  void step();
  void choose_and_read();
  at::Tensor drawn(int64_t count);

  const model::Backbone& model_;
  std::unique_ptr<Stream> stream_;
  DecodeOptions options_;
  std::vector<Random> random_;                  // of each sequence
  at::Tensor hidden_, allowed_;                 // [B, 1, D]; undefined: all tokens
  at::Tensor uniform_nB_, chosen_nB_, number_;  // of a block; number_: [1], which of its bases comes next
  std::unique_ptr<ops::RecordedWork> recorded_;
  bool is_recorded_ = false;  // the next step, if it repeats the last one
  Steps steps_;
};

}  // namespace focus::infer
