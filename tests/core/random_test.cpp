#include "focus/core/random.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "focus/core/error.h"

namespace focus {
namespace {

TEST(Random, SameBitsOnEveryPlatform) {
  // Computed with Python's integers and IEEE doubles; a change here breaks the resuming and repeating of old
  // runs.
  Random random(42, 7);
  EXPECT_EQ(random.next(), 14181956718594442726ULL);
  EXPECT_EQ(random.uniform_integer(1000), 974);
  EXPECT_EQ(random.uniform(), 0x1.41f759b273594p-3);
  EXPECT_EQ(random.normal(), 0x1.1f7b279104c87p-2);
  EXPECT_EQ(random.save(), "3528b84a0062ab9e90de654b84e22a6886dd47663b09252beaa1b6b04a2a568a");
}

TEST(Random, KnownAnswerOfXoshiro256StarStar) {
  // First outputs of the published reference implementation from the state 1, 2, 3, 4.
  Random random(0);
  random.restore("0000000000000001000000000000000200000000000000030000000000000004");
  for (const uint64_t expected : {11520ULL, 0ULL, 1509978240ULL, 1215971899390074240ULL,
                                  1216172134540287360ULL, 607988272756665600ULL}) {
    EXPECT_EQ(random.next(), expected);
  }
}

TEST(Random, StreamsAndSeedsDiffer) {
  std::set<uint64_t> seen;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    for (uint64_t stream = 0; stream < 50; ++stream) seen.insert(Random(seed, stream).next());
  }
  EXPECT_EQ(seen.size(), 2500u);
  EXPECT_EQ(Random(3, 4).next(), Random(3, 4).next());
}

TEST(Random, IntegersAreUniformAndInRange) {
  Random random(1);
  constexpr int kDraws = 60000;
  std::vector<int> counts(6);
  for (int i = 0; i < kDraws; ++i) ++counts.at(static_cast<std::size_t>(random.uniform_integer(6)));
  double chi_square = 0;
  for (const int count : counts) chi_square += std::pow(count - kDraws / 6.0, 2) / (kDraws / 6.0);
  EXPECT_LT(chi_square, 25);  // 5 degrees of freedom: beyond the 99.98th percentile
  std::set<int64_t> seen;
  for (int i = 0; i < 1000; ++i) seen.insert(random.uniform_integer(-2, 2));
  EXPECT_EQ(seen, (std::set<int64_t>{-2, -1, 0, 1, 2}));
  EXPECT_EQ(random.uniform_integer(5, 5), 5);
  random.uniform_integer(std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max());
  // A bound just above 2^62 would show the bias of a plain remainder: the lower half would get 3/5 instead of
  // 1/2 of the draws.
  const int64_t wide = (int64_t{3} << 61);
  int low = 0;
  for (int i = 0; i < 20000; ++i) low += random.uniform_integer(wide) < wide / 2;
  EXPECT_NEAR(low, 10000, 400);
  EXPECT_THROW(random.uniform_integer(0), InternalError);
  EXPECT_THROW(random.uniform_integer(2, 1), InternalError);
}

TEST(Random, UniformAndNormalHaveTheirMoments) {
  Random random(2);
  constexpr int kDraws = 200000;
  double sum = 0, normal_sum = 0, squares = 0, fourth = 0;
  for (int i = 0; i < kDraws; ++i) {
    const double u = random.uniform();
    ASSERT_TRUE(u >= 0 && u < 1);
    sum += u;
    const double x = random.normal();
    normal_sum += x;
    squares += x * x;
    fourth += x * x * x * x;
  }
  EXPECT_NEAR(sum / kDraws, 0.5, 0.004);
  EXPECT_NEAR(normal_sum / kDraws, 0, 0.012);
  EXPECT_NEAR(squares / kDraws, 1, 0.02);
  EXPECT_NEAR(fourth / kDraws, 3, 0.15);
}

TEST(Random, ShuffleIsAPermutation) {
  Random random(4);
  std::vector<int> items(100);
  std::iota(items.begin(), items.end(), 0);
  const std::vector<int> before = items;
  random.shuffle(items);
  EXPECT_NE(items, before);
  EXPECT_TRUE(std::is_permutation(items.begin(), items.end(), before.begin()));
}

TEST(Random, RestoreContinuesExactly) {
  Random random(5, 6);
  random.normal();
  const std::string saved = random.save();
  std::vector<double> expected;
  for (int i = 0; i < 100; ++i) expected.push_back(i % 2 == 0 ? random.normal() : random.uniform());
  Random other(0);
  other.restore(saved);
  for (int i = 0; i < 100; ++i)
    EXPECT_EQ(i % 2 == 0 ? other.normal() : other.uniform(), expected[static_cast<std::size_t>(i)]);
  for (const std::string& bad : {std::string(), std::string(64, '0'), std::string(64, 'g'), saved + "0"}) {
    EXPECT_THROW(other.restore(bad), CheckpointError) << bad;
  }
}

}  // namespace
}  // namespace focus
