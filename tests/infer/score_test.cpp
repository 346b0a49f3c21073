#include "focus/infer/score.h"

#include <gtest/gtest.h>

#include <cmath>
#include <csignal>

#include "focus/core/error.h"
#include "focus/core/interrupt.h"
#include "support/golden.h"
#include "support/host_traffic.h"
#include "support/tensors.h"

namespace focus::infer {
namespace {

using at::Tensor;
using focus::testing::Golden;
using focus::testing::golden_model;
using focus::testing::max_difference;

std::vector<uint8_t> bytes_of(const Tensor& tokens) {
  const Tensor flat = tokens.flatten().to(at::kByte).contiguous();
  return {flat.const_data_ptr<uint8_t>(), flat.const_data_ptr<uint8_t>() + flat.numel()};
}

std::vector<uint8_t> random_bases(int64_t length) {
  at::manual_seed(7);
  const Tensor choice = at::randint(0, 4, {length}, at::kLong);
  std::vector<uint8_t> out;
  for (int64_t i = 0; i < length; ++i) out.push_back(static_cast<uint8_t>("ACGT"[choice[i].item<int64_t>()]));
  return out;
}

RecordScore score(model::Backbone& model, const std::vector<uint8_t>& tokens,
                  const ScoreOptions& options = {}, std::vector<float> weights = {}) {
  if (weights.empty()) weights.assign(tokens.size(), 1.0F);
  return Scorer(model, plain_stream(model), options).score(tokens, weights, "record");
}

/// The logits of the whole record, [L, V].
Tensor logits_of(model::Backbone& model, const std::vector<uint8_t>& tokens, ScoreOptions options,
                 std::vector<float> weights = {}, RecordScore* figures = nullptr) {
  std::vector<Tensor> rows;
  options.on_logits = [&](const Tensor& piece) {
    EXPECT_LE(piece.size(0), 1024);
    EXPECT_TRUE(piece.is_contiguous());
    rows.push_back(piece.clone());
  };
  const RecordScore got = score(model, tokens, options, std::move(weights));
  if (figures != nullptr) *figures = got;
  return at::cat(rows);
}

/// A model gone wrong.
class NotFinite final : public Stream {
 public:
  Tensor forward(const Tensor& tokens) override { return at::full({1, tokens.size(1), 64}, std::nan("")); }
  std::unique_ptr<Stream> fork() const override { return std::make_unique<NotFinite>(); }
  std::unique_ptr<Stream> snapshot() const override { return std::make_unique<NotFinite>(); }
  int64_t bases() const override { return 0; }
  int64_t position() const override { return 0; }
  StreamMemory memory() const override { return {}; }
  std::string description() const override { return "not finite"; }
  cache::TensorMap save() const override { return {}; }
  void load(const cache::TensorMap&, int64_t, int64_t) override {}
};

// Log-likelihood of bases 2..L from the reference's recordings: logits of A, C, G, T and the log-sum over the
// vocabulary, at every position.
double recorded(const Golden& golden, const std::string& name, Norm norm) {
  const Tensor acgt = golden["acgt." + name][0].to(at::kDouble), tokens = golden["tokens." + name][0];
  const Tensor total =
      norm == Norm::vocab ? golden["logsumexp." + name][0].to(at::kDouble) : acgt.logsumexp(-1);
  double sum = 0;
  for (int64_t t = 0; t + 1 < tokens.size(0); ++t) {
    const auto base =
        static_cast<int64_t>(std::string("ACGT").find(static_cast<char>(tokens[t + 1].item<int64_t>())));
    sum += (acgt[t][base] - total[t]).item<double>();
  }
  return sum;
}

TEST(ScoreTest, EqualsTheRecordedLogitsWhateverTheChunk) {
  const auto model = golden_model("tiny7b", at::kFloat);
  const Golden golden("tiny7b.logits.fp32");
  for (const std::string name : {"len300", "len2500"}) {
    const auto tokens = bytes_of(golden["tokens." + name]);
    const auto length = static_cast<int64_t>(tokens.size());
    for (const Norm norm : {Norm::vocab, Norm::acgt}) {
      const double expected = recorded(golden, name, norm);
      for (const int64_t chunk : {1, 7, 1024, 0}) {
        if (chunk == 1 && length > 300) continue;
        ScoreOptions options;
        options.chunk = chunk;
        options.norm = norm;
        const RecordScore got = score(*model, tokens, options);
        EXPECT_EQ(got.length, length);
        EXPECT_EQ(got.scored, length - 1);
        EXPECT_NEAR(got.sum_log_likelihood, expected, 2e-6 * std::abs(expected))
            << name << " chunk " << chunk;
        EXPECT_DOUBLE_EQ(got.mean_log_likelihood(), got.sum_log_likelihood / static_cast<double>(length - 1));
      }
    }
  }
}

TEST(ScoreTest, LogitsAreTheSameForEveryChunk) {
  const auto model = golden_model("tiny7b", at::kFloat);
  const Golden golden("tiny7b.logits.fp32");
  const auto tokens = bytes_of(golden["tokens.len2500"]);
  ScoreOptions options;
  options.chunk = 0;
  const Tensor whole = logits_of(*model, tokens, options);
  EXPECT_EQ(whole.sizes(), (at::IntArrayRef{2500, 512}));
  EXPECT_EQ(whole.scalar_type(), at::kFloat);
  EXPECT_LT(max_difference(whole.index_select(0, golden["pos.len2500"]), golden["logits_at.len2500"][0]),
            5e-4);
  for (const int64_t chunk : {1, 7, 1024, 4096}) {
    const int64_t length = chunk == 1 ? 600 : 2500;
    options.chunk = chunk;
    const Tensor chunked = logits_of(*model, {tokens.begin(), tokens.begin() + length}, options);
    EXPECT_LT(max_difference(chunked, whole.narrow(0, 0, length)), 1e-4) << "chunk " << chunk;
  }
}

TEST(ScoreTest, WaitsForTheFiguresOfManyChunksAtOnce) {
  const auto model = golden_model("tiny7b", at::kFloat);
  const auto tokens = random_bases(1500);
  for (const Norm norm : {Norm::vocab, Norm::acgt}) {
    ScoreOptions options;
    options.norm = norm;
    options.reference_figures = norm == Norm::vocab;
    options.chunk = 64;
    focus::testing::HostTraffic traffic(int64_t{1} << 40);
    score(*model, tokens, options);
    traffic.stop();
    EXPECT_EQ(traffic.reads(), 1) << traffic.names();
    EXPECT_EQ(traffic.writes(), 1 + 3 * 24) << traffic.names();  // A, C, G, T; tokens, targets, which count
  }
}

TEST(ScoreTest, MaskedLettersAreReadButNotScored) {
  const auto model = golden_model("tiny7b", at::kFloat);
  auto tokens = random_bases(200);
  tokens[50] = tokens[51] = 'N';
  std::vector<float> weights(200, 1.0F);
  weights[50] = weights[51] = 0;
  for (const Norm norm : {Norm::vocab, Norm::acgt}) {
    ScoreOptions options;
    options.norm = norm;
    const RecordScore masked = score(*model, tokens, options, weights);
    EXPECT_EQ(masked.scored, 197);
    // The same positions, one by one, from the logits of the sequence with its N.
    const Tensor logits = logits_of(*model, tokens, options, weights).to(at::kDouble);
    double expected = 0;
    for (int64_t t = 0; t < 199; ++t) {
      if (t + 1 == 50 || t + 1 == 51) continue;
      const Tensor among = norm == Norm::vocab
                               ? logits[t]
                               : logits[t].index_select(0, at::tensor({65, 67, 71, 84}, at::kLong));
      expected += (logits[t][tokens[static_cast<std::size_t>(t + 1)]] - among.logsumexp(0)).item<double>();
    }
    EXPECT_NEAR(masked.sum_log_likelihood, expected, 1e-3);
  }
  ScoreOptions unmasked;
  EXPECT_EQ(score(*model, tokens, unmasked).scored, 199);
  unmasked.norm = Norm::acgt;
  EXPECT_THROW(score(*model, tokens, unmasked), DataError);
}

TEST(ScoreTest, ReferenceFiguresAreThoseOfTheLogits) {
  const auto model = golden_model("tiny7b", at::kBFloat16);
  // Tokens that the model itself finds likely, so that some are hit; a third is not scored.
  auto tokens = random_bases(200);
  std::vector<float> weights(200, 1.0F);
  for (std::size_t i = 0; i < 200; i += 3) weights[i] = 0;
  ScoreOptions options;
  options.reference_figures = true;
  for (int round = 0; round < 2; ++round) {
    RecordScore got;
    const Tensor logits = logits_of(*model, tokens, options, weights, &got);
    const Tensor log_p = at::log_softmax(logits, -1), best = logits.argmax(-1);
    int64_t hits = 0;
    double sum = 0;
    for (int64_t t = 0; t + 1 < 200; ++t) {
      const auto next = static_cast<std::size_t>(t + 1);
      if (weights[next] == 0) continue;
      hits += best[t].item<int64_t>() == tokens[next] ? 1 : 0;
      sum += log_p[t][tokens[next]].to(at::kBFloat16).item<double>();
    }
    EXPECT_EQ(got.top1, hits);
    EXPECT_NEAR(got.sum_log_likelihood_bf16, sum, 0.02 * std::abs(sum) / 100);
    EXPECT_NE(got.sum_log_likelihood_bf16, got.sum_log_likelihood);
    EXPECT_NEAR(got.sum_log_likelihood_bf16, got.sum_log_likelihood, 0.004 * std::abs(sum));
    if (round > 0) {
      EXPECT_GT(got.top1, 0);
    }
    for (std::size_t t = 100; t + 1 < 200; ++t)
      tokens[t + 1] = static_cast<uint8_t>(best[static_cast<int64_t>(t)].item<int64_t>() & 0xff);
  }
  options.reference_figures = false;
  EXPECT_EQ(score(*model, tokens, options).top1, 0);
}

TEST(ScoreTest, OneBaseHasNoScore) {
  const auto model = golden_model("tiny7b", at::kFloat);
  const RecordScore got = score(*model, {'A'});
  EXPECT_EQ(got.length, 1);
  EXPECT_EQ(got.scored, 0);
  EXPECT_EQ(got.sum_log_likelihood, 0);
  EXPECT_TRUE(std::isnan(got.mean_log_likelihood()));
}

TEST(ScoreTest, RecordsDoNotSeeEachOther) {
  const auto model = golden_model("tiny7b", at::kFloat);
  const auto tokens = random_bases(100);
  const Scorer scorer(*model, plain_stream(*model), {});
  const std::vector<float> weights(100, 1.0F);
  const double first = scorer.score(tokens, weights, "a").sum_log_likelihood;
  EXPECT_EQ(scorer.score(tokens, weights, "b").sum_log_likelihood, first);
}

TEST(ScoreTest, ReportsProgressAndStopsWhenAsked) {
  const auto model = golden_model("tiny7b", at::kFloat);
  int64_t done = 0;
  ScoreOptions options;
  options.chunk = 30;
  options.on_progress = [&](int64_t bases) {
    done += bases;
    if (done == 60) std::raise(SIGTERM);
  };
  install_interrupt_handlers();
  EXPECT_THROW(score(*model, random_bases(100), options), Interrupted);
  EXPECT_EQ(done, 60);
  reset_interrupt();
}

TEST(ScoreTest, RefusesWhatCannotBeScored) {
  const auto model = golden_model("tiny7b", at::kFloat);
  EXPECT_THROW(score(*model, {}), DataError);
  ScoreOptions options;
  options.chunk = -1;
  EXPECT_THROW(score(*model, {'A'}, options), ConfigError);
  const StreamFactory broken = [](int64_t) { return std::make_unique<NotFinite>(); };
  const std::vector<uint8_t> tokens = random_bases(10);
  const std::vector<float> weights(10, 1.0F);
  EXPECT_THROW(Scorer(*model, broken, {}).score(tokens, weights, "record"), CheckFailed);
}

TEST(ScoreTest, Bf16StaysNearFp32) {
  const auto exact = golden_model("tiny7b", at::kFloat), rounded = golden_model("tiny7b", at::kBFloat16);
  const auto tokens = random_bases(300);
  RecordScore a, b;
  const Tensor logits_a = logits_of(*exact, tokens, {}, {}, &a),
               logits_b = logits_of(*rounded, tokens, {}, {}, &b);
  // A log-probability moves by at most twice what a logit of its position does; how far bf16 moves those, the
  // golden tests say.
  const double moved = (logits_a - logits_b).abs().amax(1).sum().item<double>();
  EXPECT_LE(std::abs(a.sum_log_likelihood - b.sum_log_likelihood), 2 * moved);
  EXPECT_NE(a.sum_log_likelihood, b.sum_log_likelihood);
}

}  // namespace
}  // namespace focus::infer
