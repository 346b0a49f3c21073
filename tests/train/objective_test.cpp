#include "focus/train/tasks/objective.h"

#include <gtest/gtest.h>

#include <cmath>

namespace focus::train {
namespace {

using at::Tensor;

Tensor log_of(std::initializer_list<double> p) {
  return at::tensor(std::vector<double>(p), at::kDouble).log().view({1, 1, -1});
}

TEST(ObjectiveTest, TermsAreTheirDefinitions) {
  const Tensor p = log_of({0.5, 0.25, 0.25}), q = log_of({0.25, 0.5, 0.25}),
               target = at::ones({1, 1}, at::kLong);
  ObjectiveConfig config;
  config.ce = 2;
  config.kl = 3;
  config.reverse_kl = 5;
  const auto terms = objective_terms(config, p, q, target);
  ASSERT_EQ(terms.size(), 3U);
  const double forward = 0.5 * std::log(2) - 0.25 * std::log(2), expected[] = {std::log(2), forward, forward};
  const char* names[] = {"ce", "kl", "reverse_kl"};
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(terms[i].name, names[i]);
    EXPECT_NEAR(terms[i].per_position.item<double>(), expected[i], 1e-12) << names[i];
  }
  EXPECT_EQ(terms[1].weight, 3);
  config.ce = config.reverse_kl = 0;
  EXPECT_EQ(objective_terms(config, p, q, target).size(), 1U);
}

// The two directions differ where the distributions are not each other's mirror.
TEST(ObjectiveTest, DirectionsOfTheDivergence) {
  const Tensor p = log_of({0.7, 0.3}), q = log_of({0.2, 0.8});
  EXPECT_NEAR(divergence(p, q).item<double>(), 0.7 * std::log(3.5) + 0.3 * std::log(0.375), 1e-12);
  EXPECT_NEAR(divergence(q, p).item<double>(), 0.2 * std::log(2 / 7.0) + 0.8 * std::log(0.8 / 0.3), 1e-12);
}

TEST(ObjectiveTest, NeedCountsWhatMemoryGainsUpToTheLimit) {
  const Tensor full = log_of({0.9, 0.1}), none = log_of({0.5, 0.5}), hit = at::zeros({1, 1}, at::kLong),
               miss = at::ones({1, 1}, at::kLong);
  NeedConfig config;
  config.weight = 10;
  EXPECT_NEAR(need_factor(config, full, none, hit).item<double>(),
              1 + 10 * divergence(full, none).item<double>(), 1e-12);
  EXPECT_NEAR(need_factor(config, full, full, hit).item<double>(), 1, 1e-12);
  config.source = NeedSource::ce;
  EXPECT_NEAR(need_factor(config, full, none, hit).item<double>(), 1 + 10 * std::log(1.8), 1e-12);
  EXPECT_NEAR(need_factor(config, full, none, miss).item<double>(), 1, 1e-12)
      << "memory misled: no need of it";
  config.limit = 0.1;
  EXPECT_NEAR(need_factor(config, full, none, hit).item<double>(), 2, 1e-12);
}

}  // namespace
}  // namespace focus::train
