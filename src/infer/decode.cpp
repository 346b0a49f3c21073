#include "focus/infer/decode.h"

#include <algorithm>

#include "focus/core/error.h"
#include "focus/ops/host_copy.h"

namespace focus::infer {
namespace {

using at::Tensor;

/// A recording costs the host more than a step does, so that it must stand for several.
constexpr int64_t kFewestReplays = 8;

}  // namespace

Decoder::Decoder(const model::Backbone& model, std::unique_ptr<Stream> stream, const Tensor& last_hidden,
                 DecodeOptions options)
    : model_(model), stream_(std::move(stream)), options_(std::move(options)) {
  const int64_t width = model.shape().width, tokens = model.shape().vocab_size;
  if (last_hidden.dim() != 3 || last_hidden.size(1) != 1 || last_hidden.size(2) != width)
    fail<ShapeError>("decoding starts from hidden states [batch, 1, ", width, "], got ", last_hidden.sizes());
  if (options_.block < 1)
    fail<ConfigError>("decoding needs a block of at least 1 base, got ", options_.block);
  for (const int64_t token : options_.allowed) {
    if (token < 0 || token >= tokens)
      fail<ConfigError>("decoding: token ", token, " is none of the model's ", tokens);
  }
  const at::NoGradGuard no_grad;
  const int64_t batch = last_hidden.size(0);
  for (int64_t i = 0; i < batch; ++i) random_.emplace_back(options_.seed, static_cast<uint64_t>(i));
  hidden_ = last_hidden.detach().clone();
  const auto there = at::TensorOptions().device(hidden_.device());
  if (!options_.allowed.empty()) allowed_ = ops::from_host(options_.allowed, hidden_.device());
  uniform_nB_ = at::zeros({options_.block, batch}, there.dtype(at::kFloat));
  chosen_nB_ = at::zeros({options_.block, batch}, there.dtype(at::kLong));
  number_ = at::zeros({1}, there.dtype(at::kLong));
  // A recording is of one device.
  const auto parameters = model.parameters();
  const bool on_one = std::all_of(parameters.begin(), parameters.end(),
                                  [&](const Tensor& p) { return p.device() == hidden_.device(); });
  if (options_.record && on_one) recorded_ = ops::recorded_work(hidden_.device());
}

Tensor Decoder::drawn(int64_t count) {
  Tensor out = at::empty({count, hidden_.size(0)}, at::kFloat);
  auto* to = out.mutable_data_ptr<float>();
  for (int64_t i = 0; i < count; ++i) {
    // 24 bits: no number is rounded up to 1.
    for (Random& random : random_) *to++ = static_cast<float>(random.next() >> 40) * 0x1p-24F;
  }
  return out;
}

void Decoder::choose_and_read() {
  Tensor logits_BV = model_.unembed(hidden_).select(1, 0);
  if (allowed_.defined()) logits_BV = logits_BV.index_select(1, allowed_);
  const Tensor uniform_B = uniform_nB_.index_select(0, number_).select(0, 0);
  Tensor token_B = ops::choose_tokens(logits_BV, uniform_B, options_.choice);
  if (allowed_.defined()) token_B = allowed_.index_select(0, token_B);
  chosen_nB_.index_copy_(0, number_, token_B.unsqueeze(0));
  const Tensor tokens_B1 = token_B.unsqueeze(1);
  // Only a device's recordings need a stretch.
  hidden_.copy_(hidden_.is_cpu() ? stream_->forward(tokens_B1) : stream_->step(tokens_B1));
  number_.add_(1);
}

void Decoder::step() {
  const int64_t repeats = stream_->repeats();
  if (is_recorded_ && repeats > 0) {
    stream_->advance();
    recorded_->replay();
    ++steps_.replayed;
    return;
  }
  is_recorded_ = false;
  if (recorded_ == nullptr || repeats < kFewestReplays) {
    choose_and_read();
    ++steps_.plain;
    return;
  }
  recorded_->record([this] { choose_and_read(); });
  recorded_->replay();
  is_recorded_ = true;
  ++steps_.recorded;
}

int64_t Decoder::run(int64_t count, const std::function<bool(const Tensor&)>& take) {
  const at::NoGradGuard no_grad;
  // Nor does each of the many small operations of a base pass through autograd.
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  int64_t done = 0;
  for (bool goes_on = true; done < count && goes_on;) {
    const int64_t size = std::min(options_.block, count - done);
    uniform_nB_.narrow(0, 0, size).copy_(ops::from_host(drawn(size), uniform_nB_.device()));
    number_.zero_();
    for (int64_t i = 0; i < size; ++i) step();
    done += size;
    goes_on = take(ops::to_host(chosen_nB_.narrow(0, 0, size)).t().contiguous());
  }
  return done;
}

Tensor Decoder::next(int64_t count) {
  std::vector<Tensor> all = {at::empty({hidden_.size(0), 0}, at::kLong)};
  run(count, [&](const Tensor& tokens) {
    all.push_back(tokens);
    return true;
  });
  return at::cat(all, 1);
}

}  // namespace focus::infer
