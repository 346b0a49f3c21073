#include "focus/ops/sample.h"

#include <gtest/gtest.h>

#include "focus/core/error.h"
#include "support/devices.h"

namespace focus::ops {
namespace {

using at::Tensor;

struct Shape {
  std::vector<int64_t> rows;
  int64_t tokens;
};
void PrintTo(const Shape& s, std::ostream* out) { *out << at::IntArrayRef(s.rows) << " of " << s.tokens; }

class ChooseOnDeviceTest : public testing::OnDeviceTest<Shape> {};

TEST_P(ChooseOnDeviceTest, TheSameTokensAsTheReferenceOnTheCpu) {
  at::manual_seed(1);
  auto sizes = shape().rows;
  sizes.push_back(shape().tokens);
  const Tensor uniform = at::rand(shape().rows), logits = (at::randn(sizes) * 3).to(type());
  for (const TokenChoice& choice : {TokenChoice{}, TokenChoice{0.0, 0, 1.0}, TokenChoice{0.5, 3, 1.0},
                                    TokenChoice{1.5, 0, 0.8}, TokenChoice{1.0, 40, 0.3}}) {
    const Tensor expected = choose_tokens_reference(logits, uniform, choice);
    EXPECT_EQ(expected.sizes(), at::IntArrayRef(shape().rows));
    EXPECT_TRUE(at::equal(choose_tokens(logits.to(device()), uniform.to(device()), choice).cpu(), expected))
        << choice.temperature << ", " << choice.top_k << ", " << choice.top_p;
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, ChooseOnDeviceTest,
                         ::testing::Combine(::testing::Values(Shape{{3}, 512}, Shape{{}, 5},
                                                              Shape{{2, 4}, 1024}, Shape{{2}, 1500},
                                                              Shape{{0}, 7}, Shape{{5}, 1}),
                                            testing::kDevices, ::testing::Values(at::kFloat, at::kBFloat16)));

TEST(ChooseTest, DrawsEachTokenAsOftenAsItsMassSays) {
  const Tensor logits = at::tensor({0.0F, std::log(3.0F), std::log(4.0F)}).expand({8000, 3}),
               uniform = (at::arange(8000) + 0.5F) / 8000;
  const auto shares = [&](const TokenChoice& choice) {
    return at::bincount(choose_tokens(logits, uniform.to(at::kFloat), choice), {}, 3).to(at::kDouble) / 8000;
  };
  const auto expect = [](const Tensor& got, std::vector<double> share) {
    for (int64_t i = 0; i < 3; ++i)
      EXPECT_NEAR(got[i].item<double>(), share[static_cast<std::size_t>(i)], 2e-4) << i;
  };
  expect(shares({}), {1.0 / 8, 3.0 / 8, 4.0 / 8});
  expect(shares({.temperature = 0.5}), {1.0 / 26, 9.0 / 26, 16.0 / 26});
  expect(shares({.top_k = 2}), {0, 3.0 / 7, 4.0 / 7});
  expect(shares({.top_p = 0.6}), {0, 3.0 / 7, 4.0 / 7});  // 4/8 alone is not enough
  expect(shares({.top_p = 0.4}), {0, 0, 1});
  expect(shares({.top_k = 2, .top_p = 0.55}), {0, 0, 1});  // 4/7 is
  expect(shares({.temperature = 0}), {0, 0, 1});
}

TEST(ChooseTest, EqualLogitsGoByIndexAndNanIsNeverChosen) {
  const float nan = std::nanf(""), inf = std::numeric_limits<float>::infinity();
  const Tensor logits = at::tensor({2.0F, nan, 2.0F, -inf}).view({1, 4});
  EXPECT_EQ(choose_tokens(logits, at::zeros({1}), {.temperature = 0}).item<int64_t>(), 0);
  EXPECT_EQ(choose_tokens(logits, at::full({1}, 0.49F), {}).item<int64_t>(), 0);
  EXPECT_EQ(choose_tokens(logits, at::full({1}, 0.51F), {}).item<int64_t>(), 2);
  EXPECT_EQ(choose_tokens(logits, at::full({1}, 0.999999F), {}).item<int64_t>(), 2);
}

TEST(ChooseTest, WrongShapesAndChoicesAreRefused) {
  const Tensor logits = at::zeros({2, 4}), uniform = at::zeros({2});
  EXPECT_THROW(choose_tokens(logits, at::zeros({3}), {}), ShapeError);
  EXPECT_THROW(choose_tokens(logits, at::zeros({2}, at::kDouble), {}), ShapeError);
  EXPECT_THROW(choose_tokens(at::zeros({2, 0}), uniform, {}), ShapeError);
  EXPECT_THROW(choose_tokens(logits, uniform, {.temperature = -1}), ConfigError);
  EXPECT_THROW(choose_tokens(logits, uniform, {.temperature = std::nan("")}), ConfigError);
  EXPECT_THROW(choose_tokens(logits, uniform, {.top_k = -1}), ConfigError);
  EXPECT_THROW(choose_tokens(logits, uniform, {.top_p = 0}), ConfigError);
  EXPECT_THROW(choose_tokens(logits, uniform, {.top_p = 1.1}), ConfigError);
}

}  // namespace
}  // namespace focus::ops
