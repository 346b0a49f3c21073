// How likely a model finds a sequence: the log-probability of each base given the earlier ones, summed over a
// record that is read as a stream of chunks. Legend: B batch (here 1), L length, D width, V vocabulary.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "focus/infer/stream.h"

namespace focus::infer {

/// What a probability is relative to: all tokens of the vocabulary, or only A, C, G and T.
enum class Norm { vocab, acgt };

struct ScoreOptions {
  int64_t chunk = 1024;  // bases per forward call; 0 = the whole record in one. Halved when memory runs out
  Norm norm = Norm::vocab;
  bool reference_figures = false;  // also what published tests of a model report
  // Called with the logits of the record's next positions, [L, V] fp32 on the CPU, from the first to the
  // last; at most 1024 at a time.
  std::function<void(const at::Tensor&)> on_logits;
  std::function<void(int64_t)> on_progress;  // called with the bases done since the last call
};

struct RecordScore {
  int64_t length = 0;
  int64_t scored = 0;             // positions that count: not the first base, not a masked one
  double sum_log_likelihood = 0;  // nats
  // With ScoreOptions::reference_figures: scored positions whose base was the most probable token (of equal
  // ones the first), and the sum of log-likelihoods each rounded to bf16, as a loss computed in bf16 has
  // them.
  int64_t top1 = 0;
  double sum_log_likelihood_bf16 = 0;
  int64_t chunk = 0;    // bases per call at the end
  StreamMemory memory;  // of the stream at the end

  /// Nats per scored position; NaN when there is none.
  double mean_log_likelihood() const;
};

/// Scores records one after the other. Holds logits of at most 1024 positions at a time; the softmax is fp32
/// or better. No gradient is recorded.
class Scorer {
 public:
  /// ConfigError: a negative chunk. The model must outlive the scorer.
  Scorer(model::Backbone& model, StreamFactory begin_stream, ScoreOptions options);

  /// `letters` is the record; a position with weight 0 is read but not scored. `name` serves messages. Throws
  /// DataError: an empty record, a letter without a token in the model, a scored one other than A, C, G, T
  /// under Norm::acgt. CheckFailed: logits that are not finite. Interrupted: after Ctrl-C, between chunks.
  /// MemoryError: no memory for 16 bases at a time.
  RecordScore score(std::span<const uint8_t> letters, std::span<const float> weights,
                    const std::string& name) const;
  /// The same on a stream that may have read an earlier part of the sequence already, whose last hidden state
  /// [1, 1, D] then predicts the first letter (undefined: the first letter is not scored). Both are advanced.
  RecordScore score(std::span<const uint8_t> letters, std::span<const float> weights, const std::string& name,
                    std::unique_ptr<Stream>& stream, at::Tensor& last_hidden) const;

 private:
  struct Record;
  class Sums;
  /// Tokens of letters [begin, begin + count), on the host.
  std::vector<int64_t> tokens_of(std::span<const uint8_t> letters, int64_t begin, int64_t count,
                                 const std::string& name) const;
  /// Hidden states of the next chunk; goes back and halves `chunk` when memory runs out, and then returns
  /// fewer than `size`.
  at::Tensor advance(std::unique_ptr<Stream>& stream, std::span<const uint8_t> letters, int64_t begin,
                     int64_t& size, int64_t& chunk, const std::string& name) const;
  /// Adds the log-likelihood of the bases that follow the hidden states' positions begin, begin + 1, ...
  void add_hidden(const at::Tensor& hidden_LD, int64_t begin, const Record& record, Sums& sums) const;

  model::Backbone& model_;
  StreamFactory begin_stream_;
  ScoreOptions options_;
  at::Tensor bases_;  // [4] tokens of A, C, G, T, on the model's device
};

}  // namespace focus::infer
