#include "focus/infer/score.h"

#include <cmath>
#include <limits>

#include "focus/core/error.h"
#include "focus/core/interrupt.h"
#include "focus/core/log.h"
#include "focus/core/units.h"
#include "focus/ops/out_of_memory.h"

namespace focus::infer {
namespace {

using at::Tensor;

// Positions whose logits exist at the same time.
constexpr int64_t kLogitRows = 1024;
constexpr int64_t kSmallestChunk = 16;

}  // namespace

double RecordScore::mean_log_likelihood() const {
  return scored > 0 ? sum_log_likelihood / static_cast<double>(scored)
                    : std::numeric_limits<double>::quiet_NaN();
}

Scorer::Scorer(model::Backbone& model, StreamFactory begin_stream, ScoreOptions options)
    : model_(model), begin_stream_(std::move(begin_stream)), options_(std::move(options)) {
  if (options_.chunk < 0)
    fail<ConfigError>("chunk must be 0 (the whole record) or at least 1 base, got ", options_.chunk);
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
  const Tensor weight = at::from_blob(const_cast<float*>(weights.data()), {out.length}, at::kFloat);
  // Hidden states of positions first, first + 1, ...; each predicts the next position.
  const auto add = [&](const Tensor& hidden_LD, int64_t first) {
    // The record's last position predicts nothing.
    const int64_t targets = std::min(hidden_LD.size(0), out.length - 1 - first);
    add_hidden(hidden_LD, first, tokens_of(letters, first + 1, targets, name),
               weight.narrow(0, first + 1, targets).to(model_.device()), name, out);
  };
  if (last_hidden.defined()) add(last_hidden.squeeze(0), -1);
  out.chunk = options_.chunk > 0 ? options_.chunk : out.length;
  for (int64_t begin = 0; begin < out.length;) {
    if (interrupt_requested()) fail<Interrupted>("interrupted at base ", begin + 1, " of '", name, "'");
    int64_t size = std::min(out.chunk, out.length - begin);
    const Tensor hidden_LD = advance(stream, letters, begin, size, out.chunk, name);
    for (int64_t row = 0; row < size; row += kLogitRows)
      add(hidden_LD.narrow(0, row, std::min(kLogitRows, size - row)), begin + row);
    begin += size;
    if (begin == out.length) last_hidden = hidden_LD.narrow(0, size - 1, 1).unsqueeze(0).clone();
    if (options_.on_progress) options_.on_progress(size);
  }
  out.memory = stream->memory();
  return out;
}

// Only a chunk at a time: the record may be a whole chromosome, and a token takes eight times the memory of
// its letter.
Tensor Scorer::tokens_of(std::span<const uint8_t> letters, int64_t begin, int64_t count,
                         const std::string& name) const {
  const auto part = letters.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(count));
  return at::tensor(model_.vocabulary().encode(part, name, begin), at::kLong).to(model_.device());
}

Tensor Scorer::advance(std::unique_ptr<Stream>& stream, std::span<const uint8_t> letters, int64_t begin,
                       int64_t& size, int64_t& chunk, const std::string& name) const {
  for (;;) {
    auto before = stream->snapshot();
    try {
      const Tensor hidden_LD = stream->forward(tokens_of(letters, begin, size, name).unsqueeze(0)).squeeze(0);
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

void Scorer::add_hidden(const Tensor& hidden_LD, int64_t begin, const Tensor& targets_L,
                        const Tensor& weights_L, const std::string& name, RecordScore& out) const {
  Tensor logits = model_.unembed(hidden_LD);
  if (logits.scalar_type() != at::kDouble) logits = logits.to(at::kFloat);
  if (options_.on_logits && begin >= 0) options_.on_logits(logits.to(at::kCPU, at::kFloat).contiguous());
  const Tensor scored = weights_L.ne(0);
  const int64_t count = scored.sum().item<int64_t>();
  if (count == 0) return;
  logits = logits.narrow(0, 0, targets_L.size(0));
  Tensor targets = targets_L;
  if (options_.norm == Norm::acgt) {
    const auto& tokens = model_.vocabulary().bases;
    const Tensor bases = at::tensor(std::vector<int64_t>(tokens.begin(), tokens.end()), targets.options());
    const Tensor is_base = targets.unsqueeze(-1).eq(bases);
    if (scored.logical_and(is_base.any(-1).logical_not()).any().item<bool>())
      fail<DataError>("'", name, "' has a scored letter other than A, C, G and T after position ", begin + 1,
                      ", which has no probability among these four; mask such letters and read lowercase as "
                      "uppercase, or score over the vocabulary");
    targets = is_base.to(at::kLong).argmax(-1);
    logits = logits.index_select(-1, bases);
  }
  const Tensor log_p = at::log_softmax(logits, -1).gather(-1, targets.unsqueeze(-1)).squeeze(-1);
  const Tensor counted = at::where(scored, log_p, at::zeros({}, log_p.options()));
  const double sum = counted.sum(at::kDouble).item<double>();
  if (!std::isfinite(sum))
    fail<CheckFailed>("the model's prediction after base ", begin + 1, " of '", name,
                      "' is not finite; check the checkpoint, or use dtype fp32");
  out.sum_log_likelihood += sum;
  if (options_.reference_figures) {
    out.top1 += logits.argmax(-1).eq(targets).logical_and(scored).sum().item<int64_t>();
    out.sum_log_likelihood_bf16 += counted.to(at::kBFloat16).sum(at::kDouble).item<double>();
  }
  out.scored += count;
}

}  // namespace focus::infer
