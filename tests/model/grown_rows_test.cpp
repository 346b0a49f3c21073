// Rows with room for more: what moves, what is shared, and what stays as it was.
#include "focus/cache/grown_rows.h"

#include <gtest/gtest.h>

namespace focus::cache {
namespace {

using at::Tensor;

Tensor rows_of(int64_t count, int64_t from) {
  return at::arange(from * 6, (from + count) * 6, at::kFloat)
      .view({count, 2, 3})
      .transpose(0, 1)
      .contiguous();
}

TEST(GrownRowsTest, AppendingMovesWhatIsThereOnlyWhenTheRoomIsUsedUp) {
  const at::NoGradGuard guard;
  GrownRows rows(1, 8);
  EXPECT_FALSE(rows.rows().defined());
  int moves = 0;
  const void* place = nullptr;
  for (int64_t i = 0; i < 100; ++i) {
    rows.append(rows_of(1, i), false);
    ASSERT_TRUE(at::equal(rows.rows(), rows_of(i + 1, 0))) << i;
    if (rows.rows().const_data_ptr() != place) ++moves;
    place = rows.rows().const_data_ptr();
    EXPECT_EQ(rows.num_bytes(), (i + 1) * 24);
    EXPECT_LE(rows.storage_bytes(), std::max<int64_t>(8, i + 1 + i / 2) * 24);
  }
  EXPECT_LE(moves, 8);  // 8, 12, 18, ... 91, 136
}

TEST(GrownRowsTest, AnEmptiedWindowIsFilledAgainInPlace) {
  const at::NoGradGuard guard;
  GrownRows rows(1, 16);
  rows.append(rows_of(16, 0), false);
  const void* place = rows.rows().const_data_ptr();
  for (int64_t window = 1; window < 4; ++window) {
    rows.keep_last(0);
    EXPECT_TRUE(rows.empty());
    for (int64_t i = 0; i < 4; ++i) rows.append(rows_of(4, 16 * window + 4 * i), false);
    EXPECT_TRUE(at::equal(rows.rows(), rows_of(16, 16 * window)));
    EXPECT_EQ(rows.rows().const_data_ptr(), place);
  }
}

TEST(GrownRowsTest, ACopyStaysWhatItIs) {
  const at::NoGradGuard guard;
  GrownRows rows(1, 16);
  rows.append(rows_of(10, 0), false);
  const GrownRows before = rows;
  rows.append(rows_of(3, 10), false);
  EXPECT_TRUE(at::equal(before.rows(), rows_of(10, 0)));
  rows.keep_last(0);
  rows.append(rows_of(5, 50), false);  // must not be written over what the copy sees
  EXPECT_TRUE(at::equal(before.rows(), rows_of(10, 0)));
  GrownRows again = before;  // going back
  again.append(rows_of(2, 10), false);
  EXPECT_TRUE(at::equal(again.rows(), rows_of(12, 0)));
  again.keep(0, 4);
  again.append(rows_of(1, 90), false);
  EXPECT_TRUE(at::equal(before.rows(), rows_of(10, 0)));
  EXPECT_TRUE(at::equal(again.rows(), at::cat({rows_of(4, 0), rows_of(1, 90)}, 1)));
}

TEST(GrownRowsTest, AViewThatSomebodyHoldsIsNotWrittenOver) {
  const at::NoGradGuard guard;
  GrownRows rows(1, 8);
  rows.append(rows_of(8, 0), false);
  const Tensor view = rows.rows();
  rows.keep_last(0);
  rows.append(rows_of(8, 8), false);
  EXPECT_TRUE(at::equal(view, rows_of(8, 0)));
}

TEST(GrownRowsTest, KeepsARangeAndGoesOn) {
  const at::NoGradGuard guard;
  GrownRows rows(1);
  rows.append(rows_of(10, 0), false);
  rows.keep(3, 9);
  EXPECT_TRUE(at::equal(rows.rows(), rows_of(6, 3)));
  rows.append(rows_of(4, 9), false);
  EXPECT_TRUE(at::equal(rows.rows(), rows_of(10, 3)));
  EXPECT_EQ(rows.num_bytes(), 240);
}

TEST(GrownRowsTest, WhatAGraphHoldsIsNotWrittenOver) {
  GrownRows rows(1, 8);
  const Tensor first = rows_of(2, 0).requires_grad_(true);
  rows.append(first, true);
  const Tensor squares = rows.rows().square().sum();
  rows.append(rows_of(2, 2), true);
  {
    const at::NoGradGuard guard;
    rows.append(rows_of(2, 4), false);
  }
  EXPECT_TRUE(at::equal(rows.rows(), rows_of(6, 0)));
  squares.backward();
  EXPECT_TRUE(at::equal(first.grad(), 2 * rows_of(2, 0)));
}

TEST(GrownRowsTest, ACloneHasMemoryOfItsOwn) {
  const at::NoGradGuard guard;
  GrownRows rows(1, 8);
  rows.append(rows_of(3, 0), false);
  GrownRows other = rows.clone();
  rows.append(rows_of(1, 3), false);
  other.append(rows_of(1, 7), false);
  EXPECT_TRUE(at::equal(rows.rows(), rows_of(4, 0)));
  EXPECT_TRUE(at::equal(other.rows(), at::cat({rows_of(3, 0), rows_of(1, 7)}, 1)));
  EXPECT_EQ(rows.storage_bytes(), 8 * 24);
}

}  // namespace
}  // namespace focus::cache
