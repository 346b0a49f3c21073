// The methods of a fidelity run, each a way to stream one sequence. Nothing behind their construction knows
// which is which.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "focus/cache/known_output.h"
#include "focus/compress/compressed_model.h"
#include "focus/compress/plan/config.h"
#include "focus/eval/fidelity.h"
#include "focus/infer/stream.h"
#include "focus/model/backbone.h"

namespace focus::eval {

/// What is held at the end of a sequence.
struct Streamed {
  int64_t kept_entries = 0, kept_bytes = 0, open_bytes = 0, far_bytes = 0;
  /// What has read it, and the backbone that it runs on.
  std::shared_ptr<const infer::Stream> read;
  std::shared_ptr<const model::Backbone> backbone;
};

/// Called with the logits of the positions from `begin` on, fp32 on the CPU, in order and as soon as they are
/// there.
using OnLogits = std::function<void(int64_t begin, const at::Tensor& logits_LV)>;

/// Called with the bases done since the last call, and what else there is to say; may throw.
using OnBases = std::function<void(int64_t bases, const std::string& detail)>;

struct Method {
  std::string name, description;
  std::function<Streamed(const at::Tensor& tokens_BL, const OnLogits& on_logits, const OnBases& on_bases)>
      stream;
  int64_t passes = 1;  // times that stream() reports each base as done
  /// Does what several methods share, which is not this one's time; stream() does it where it is not done.
  std::function<void(const at::Tensor& tokens_BL)> prepare = {};
  /// What it will hold after so many bases; empty: known only when it is done.
  std::function<compress::MemoryUse(int64_t num_bases)> planned = {};
};

/// Through any compressed model, in chunks. `first`: what the blocks before the first attention block give
/// for these tokens in the same chunks, if that is known; else null.
Streamed stream_in_chunks(const std::shared_ptr<const compress::CompressedModel>& model, int64_t chunk,
                          const at::Tensor& tokens_BL, const OnLogits& on_logits, const OnBases& on_bases,
                          const cache::KnownOutput* first = nullptr);

/// Puts the logits of a whole sequence together.
class WholeLogits {
 public:
  explicit WholeLogits(int64_t length) : length_(length) {}
  void add(int64_t begin, const at::Tensor& logits_LV);
  const at::Tensor& logits() const { return whole_; }

 private:
  int64_t length_;
  at::Tensor whole_;  // [L, V]
};

/// The adapter's configuration or `config.memory`, under `config.plan`; checked.
compress::MemoryConfig resolve_memory(const FidelityConfig& config);

/// One Method per name of fidelity_methods(config).
std::vector<Method> make_methods(const FidelityConfig& config, const compress::MemoryConfig& memory,
                                 const std::shared_ptr<model::Backbone>& backbone,
                                 const std::string& backbone_digest);

}  // namespace focus::eval
