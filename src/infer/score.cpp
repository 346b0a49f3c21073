#include "focus/infer/score.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "focus/core/error.h"
#include "focus/core/interrupt.h"
#include "focus/core/log.h"
#include "focus/core/units.h"
#include "focus/ops/host_copy.h"
#include "focus/ops/out_of_memory.h"

namespace focus::infer {
namespace {

using at::Tensor;

// Positions whose logits exist at the same time.
constexpr int64_t kLogitRows = 1024;
constexpr int64_t kSmallestChunk = 16;
// Blocks of positions whose sums may lie on the device before the host waits for them.
constexpr std::size_t kBlocksAhead = 64;

}  // namespace

struct Scorer::Record {
  std::span<const uint8_t> letters;
  std::span<const float> weights;
  const std::string& name;
};

/// Adds up a record's blocks. Their sums stay on the device until many are read at once.
class Scorer::Sums {
 public:
  Sums(const std::string& name, RecordScore& out) : name_(name), out_(out) {}
  /// The block of predictions made after position `begin`; the tensors are fp64 scalars, of which those that
  /// nobody asked for are undefined.
  void add(int64_t begin, const Tensor& log_likelihood, const Tensor& log_likelihood_bf16,
           const Tensor& top1) {
    begins_.push_back(begin);
    for (const Tensor& figure : {log_likelihood, log_likelihood_bf16, top1}) {
      if (figure.defined()) figures_.push_back(figure);
    }
    if (begins_.size() == kBlocksAhead) read();
  }
  void read() {
    if (begins_.empty()) return;
    const Tensor read = ops::to_host(at::stack(figures_));
    const double* figure = read.const_data_ptr<double>();
    const bool has_all = figures_.size() == 3 * begins_.size();
    for (const int64_t begin : begins_) {
      if (!std::isfinite(*figure))
        fail<CheckFailed>("the model's prediction after base ", begin + 1, " of '", name_,
                          "' is not finite; check the checkpoint, or use dtype fp32");
      out_.sum_log_likelihood += *figure++;
      if (!has_all) continue;
      out_.sum_log_likelihood_bf16 += *figure++;
      out_.top1 += static_cast<int64_t>(*figure++);
    }
    begins_.clear();
    figures_.clear();
  }

 private:
  const std::string& name_;
  RecordScore& out_;
  std::vector<int64_t> begins_;
  std::vector<Tensor> figures_;
};

double RecordScore::mean_log_likelihood() const {
  return scored > 0 ? sum_log_likelihood / static_cast<double>(scored)
                    : std::numeric_limits<double>::quiet_NaN();
}

Scorer::Scorer(model::Backbone& model, StreamFactory begin_stream, ScoreOptions options)
    : model_(model), begin_stream_(std::move(begin_stream)), options_(std::move(options)) {
  if (options_.chunk < 0)
    fail<ConfigError>("chunk must be 0 (the whole record) or at least 1 base, got ", options_.chunk);
  const auto& tokens = model.vocabulary().bases;
  bases_ = ops::from_host(std::vector<int64_t>(tokens.begin(), tokens.end()), model.device());
}

RecordScore Scorer::score(std::span<const uint8_t> letters, std::span<const float> weights,
                          const std::string& name) const {
  std::unique_ptr<Stream> stream = begin_stream_(static_cast<int64_t>(letters.size()));
  Tensor nothing_read;
  return score(letters, weights, name, stream, nothing_read);
}

RecordScore Scorer::score(std::span<const uint8_t> letters, std::span<const float> weights,
                          const std::string& name, std::unique_ptr<Stream>& stream,
                          Tensor& last_hidden) const {
  FOCUS_CHECK(letters.size() == weights.size(), "a weight per letter");
  if (letters.empty()) fail<DataError>("'", name, "' has no bases");
  const at::NoGradGuard guard;
  RecordScore out;
  out.length = static_cast<int64_t>(letters.size());
  for (std::size_t i = last_hidden.defined() ? 0 : 1; i < weights.size(); ++i) out.scored += weights[i] != 0;
  const Record record{letters, weights, name};
  Sums sums(name, out);
  if (last_hidden.defined()) add_hidden(last_hidden.squeeze(0), -1, record, sums);
  out.chunk = options_.chunk > 0 ? options_.chunk : out.length;
  for (int64_t begin = 0; begin < out.length;) {
    if (interrupt_requested()) fail<Interrupted>("interrupted at base ", begin + 1, " of '", name, "'");
    int64_t size = std::min(out.chunk, out.length - begin);
    const Tensor hidden_LD = advance(stream, letters, begin, size, out.chunk, name);
    for (int64_t row = 0; row < size; row += kLogitRows)
      add_hidden(hidden_LD.narrow(0, row, std::min(kLogitRows, size - row)), begin + row, record, sums);
    begin += size;
    if (begin == out.length) last_hidden = hidden_LD.narrow(0, size - 1, 1).unsqueeze(0).clone();
    if (options_.on_progress) options_.on_progress(size);
  }
  sums.read();
  out.memory = stream->memory();
  return out;
}

// Only a chunk at a time: the record may be a whole chromosome, and a token takes eight times the memory of
// its letter.
std::vector<int64_t> Scorer::tokens_of(std::span<const uint8_t> letters, int64_t begin, int64_t count,
                                       const std::string& name) const {
  const auto part = letters.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(count));
  return model_.vocabulary().encode(part, name, begin);
}

Tensor Scorer::advance(std::unique_ptr<Stream>& stream, std::span<const uint8_t> letters, int64_t begin,
                       int64_t& size, int64_t& chunk, const std::string& name) const {
  for (;;) {
    auto before = stream->snapshot();
    try {
      const Tensor tokens_L = ops::from_host(tokens_of(letters, begin, size, name), model_.device());
      const Tensor hidden_LD = stream->forward(tokens_L.unsqueeze(0)).squeeze(0);
      FOCUS_CHECK(hidden_LD.dim() == 2 && hidden_LD.size(0) == size, "one hidden state per base");
      return hidden_LD;
    } catch (const c10::Error& e) {
      if (!ops::is_out_of_memory(e)) throw;
    } catch (const std::bad_alloc&) {
    }
    if (size <= kSmallestChunk)
      fail<MemoryError>("out of memory at base ", begin + 1, " of '", name, "', even ", size,
                        " bases at a time, with ", format_bytes(stream->memory().total_bytes()),
                        " held for the sequence so far; use a shorter sequence, a compressed memory "
                        "(--memory), or a larger machine");
    stream = std::move(before);
    size = chunk = std::max(kSmallestChunk, size / 2);
    log::warn(concat("out of memory at base ", begin + 1, " of '", name, "': going on in chunks of ", size,
                     " bases"));
  }
}

void Scorer::add_hidden(const Tensor& hidden_LD, int64_t begin, const Record& record, Sums& sums) const {
  // The record's last position predicts nothing.
  const auto length = static_cast<int64_t>(record.letters.size());
  const int64_t count = std::min(hidden_LD.size(0), length - 1 - begin);
  const std::vector<int64_t> tokens = tokens_of(record.letters, begin + 1, count, record.name);
  const float* weights = record.weights.data() + begin + 1;
  Tensor logits = model_.unembed(hidden_LD);
  if (logits.scalar_type() != at::kDouble) logits = logits.to(at::kFloat);
  if (options_.on_logits && begin >= 0) options_.on_logits(ops::to_host(logits.to(at::kFloat)).contiguous());
  if (std::all_of(weights, weights + count, [](float w) { return w == 0; })) return;
  Tensor scored = at::empty({count}, at::kBool);
  for (int64_t i = 0; i < count; ++i) scored.mutable_data_ptr<bool>()[i] = weights[i] != 0;
  scored = ops::from_host(scored, model_.device());
  Tensor targets = ops::from_host(tokens, model_.device());
  logits = logits.narrow(0, 0, count);
  if (options_.norm == Norm::acgt) {
    const auto& bases = model_.vocabulary().bases;
    for (int64_t i = 0; i < count; ++i) {
      if (weights[i] != 0 &&
          std::find(bases.begin(), bases.end(), tokens[static_cast<std::size_t>(i)]) == bases.end())
        fail<DataError>("'", record.name, "' has a scored letter other than A, C, G and T after position ",
                        begin + 1,
                        ", which has no probability among these four; mask such letters and read lowercase "
                        "as uppercase, or score over the vocabulary");
    }
    targets = targets.unsqueeze(-1).eq(bases_).to(at::kLong).argmax(-1);
    logits = logits.index_select(-1, bases_);
  }
  const Tensor log_p = at::log_softmax(logits, -1).gather(-1, targets.unsqueeze(-1)).squeeze(-1);
  const Tensor counted = at::where(scored, log_p, at::zeros({}, log_p.options()));
  const bool all = options_.reference_figures;
  sums.add(begin, counted.sum(at::kDouble), all ? counted.to(at::kBFloat16).sum(at::kDouble) : Tensor(),
           all ? logits.argmax(-1).eq(targets).logical_and(scored).sum().to(at::kDouble) : Tensor());
}

}  // namespace focus::infer
