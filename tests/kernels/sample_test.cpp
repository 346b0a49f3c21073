#include "focus/kernels/cuda/sample.h"

#include <algorithm>

#include "kernels/buffer.h"

namespace focus::testing {
namespace {

class SampleKernelTest : public KernelTest {};

struct Rule {
  double temperature;
  int64_t top_k;
  double top_p;
};

// The definition, one token after the other.
template <class T>
int64_t choose(const T* logits, int64_t tokens, const Rule& rule, float uniform) {
  const auto logit = [&](int64_t i) {
    return std::isnan(value(logits[i])) ? -std::numeric_limits<double>::infinity() : value(logits[i]);
  };
  std::vector<int64_t> order(static_cast<std::size_t>(tokens));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return logit(a) > logit(b); });
  if (rule.temperature == 0) return order[0];
  order.resize(static_cast<std::size_t>(rule.top_k));
  std::vector<double> upto;
  for (const int64_t i : order)
    upto.push_back(
        (upto.empty() ? 0 : upto.back()) +
        (logit(i) == logit(order[0]) ? 1 : std::exp((logit(i) - logit(order[0])) / rule.temperature)));
  std::size_t last = 0;
  while (last + 1 < upto.size() && upto[last] < rule.top_p * upto.back()) ++last;
  std::size_t i = 0;
  while (i < last && !(upto[i] > static_cast<double>(uniform) * upto[last])) ++i;
  return order[i];
}

template <class T>
void check(int64_t rows, int64_t tokens, int64_t gap, const Rule& rule) {
  Buffer<T> logits(rows * (tokens + gap));
  Buffer<float> uniform(rows);
  Buffer<int64_t> chosen(rows);
  logits.randomise(1, -4, 4);
  uniform.randomise(2, 0, 1);
  // bf16 makes many ties of its own; fp32 gets some.
  for (int64_t i = 0; i < logits.size(); i += 7) logits[i] = logits[0];
  kernels::cuda::sample<T>(
      {logits, uniform, chosen, rows, tokens + gap, tokens, rule.temperature, rule.top_k, rule.top_p},
      nullptr);
  finish_kernels();
  for (int64_t row = 0; row < rows; ++row)
    EXPECT_EQ(chosen[row], choose(logits + row * (tokens + gap), tokens, rule, uniform[row]))
        << "row " << row << " of " << tokens << " tokens, temperature " << rule.temperature << ", top_k "
        << rule.top_k << ", top_p " << rule.top_p;
}

TEST_F(SampleKernelTest, ChoosesWhatTheDefinitionChooses) {
  for (const int64_t tokens : {1, 2, 5, 33, 512, 1024})
    for (const Rule& rule : {Rule{0, tokens, 1}, Rule{1, tokens, 1}, Rule{0.7, (tokens + 1) / 2, 1},
                             Rule{1.3, tokens, 0.9}, Rule{1, (tokens + 2) / 3, 0.5}, Rule{2, 1, 0.1}}) {
      check<float>(6, tokens, 3, rule);
      check<Bf16>(6, tokens, 0, rule);
    }
}

TEST_F(SampleKernelTest, MoreRowsThanAGridHasBlocks) { check<float>(4099, 70, 0, {1, 70, 1}); }

TEST_F(SampleKernelTest, TheEndsOfTheDrawAndOddLogits) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::nanf("");
  const float rows[][4] = {
      {1, 3, 2, 0}, {nan, 1, nan, 1}, {-inf, -inf, -inf, -inf}, {inf, 0, inf, 0}, {nan, nan, nan, nan}};
  constexpr int64_t kRows = 5;
  Buffer<float> logits(kRows * 4), uniform(kRows);
  Buffer<int64_t> chosen(kRows);
  for (int64_t i = 0; i < kRows * 4; ++i) logits[i] = rows[i / 4][i % 4];
  for (const float u : {0.f, 0.5f, 0x1.fffffep-1f})
    for (const Rule& rule : {Rule{0, 4, 1}, Rule{1, 4, 1}, Rule{1e-300, 4, 1}, Rule{1, 3, 0.999}}) {
      uniform.fill(u);
      kernels::cuda::sample<float>(
          {logits, uniform, chosen, kRows, 4, 4, rule.temperature, rule.top_k, rule.top_p}, nullptr);
      finish_kernels();
      for (int64_t row = 0; row < kRows; ++row)
        EXPECT_EQ(chosen[row], choose(logits + row * 4, 4, rule, u)) << "row " << row << ", uniform " << u;
    }
}

}  // namespace
}  // namespace focus::testing
