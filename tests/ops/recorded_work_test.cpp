// Work that a card replays: only what lies in its memory may differ between two replays.
#include "focus/ops/recorded_work.h"

#include <gtest/gtest.h>

#include "focus/ops/gate.h"
#include "support/devices.h"

namespace focus::ops {
namespace {

using at::Tensor;
using testing::TestDevice;

class RecordedWorkTest : public ::testing::TestWithParam<TestDevice> {
 protected:
  void SetUp() override {
    if (const std::string reason = testing::missing(GetParam()); !reason.empty()) GTEST_SKIP() << reason;
    work_ = recorded_work(device());
    ASSERT_NE(work_, nullptr);
  }
  at::Device device() const { return testing::device_of(GetParam()); }
  Tensor there(std::vector<float> values) const { return at::tensor(values).to(device()); }
  static std::vector<float> values(const Tensor& t) {
    const Tensor here = t.cpu();
    return {here.const_data_ptr<float>(), here.const_data_ptr<float>() + here.numel()};
  }
  const at::NoGradGuard no_grad_;
  std::unique_ptr<RecordedWork> work_;
};

TEST_P(RecordedWorkTest, ReplaysWorkOnWhatLiesInMemoryNow) {
  const Tensor x = there({1, 2}), sum = there({0, 0}), product = there({0, 0});
  work_->record([&] {
    sum.add_(x);                                         // an operator in place,
    product.copy_(gated(sum, x + 1.0, Gate::identity));  // a kernel of focus's own, on results of others
  });
  EXPECT_EQ(values(sum), (std::vector<float>{0, 0})) << "a recording computes nothing";
  EXPECT_EQ(values(product), (std::vector<float>{0, 0}));
  work_->replay();
  EXPECT_EQ(values(sum), (std::vector<float>{1, 2}));
  EXPECT_EQ(values(product), (std::vector<float>{2, 6}));
  x.fill_(3.0);
  work_->replay();
  EXPECT_EQ(values(sum), (std::vector<float>{4, 5}));
  EXPECT_EQ(values(product), (std::vector<float>{16, 20}));
}

TEST_P(RecordedWorkTest, NumbersOfTheHostAreThoseOfTheRecording) {
  const Tensor x = there({0, 0, 0, 0}), index = at::zeros({1}, x.options().dtype(at::kLong));
  int64_t row = 0;
  const auto write = [&] {
    x.narrow(0, row, 1).add_(1.0);
    ++row;
  };
  work_->record(write);
  for (int i = 0; i < 3; ++i) work_->replay();
  EXPECT_EQ(values(x), (std::vector<float>{3, 0, 0, 0}));
  x.zero_();
  work_->record([&] {
    x.index_fill_(0, index, 1.0);
    index.add_(1);
  });
  for (int i = 0; i < 3; ++i) work_->replay();
  EXPECT_EQ(values(x), (std::vector<float>{1, 1, 1, 0}));
}

TEST_P(RecordedWorkTest, TheHostMayNeitherReadNorWriteMeanwhile) {
  const Tensor x = there({1, 2}), here = at::tensor({3.0F, 4.0F});
  const auto recording = [&](const std::function<void()>& f) {
    return [&, f] {
      work_->record([&] {
        x.add_(1.0);
        f();
      });
    };
  };
  EXPECT_ANY_THROW(recording([&] { x.sum().item<float>(); })());
  EXPECT_ANY_THROW(work_->replay()) << "nothing is recorded";
  EXPECT_ANY_THROW(recording([&] { x.nonzero(); })());
  EXPECT_ANY_THROW(recording([&] { x.cpu(); })());
  EXPECT_ANY_THROW(recording([&] { throw std::runtime_error("of the caller"); })());
  EXPECT_EQ(values(x), (std::vector<float>{1, 2}));
  work_->record([&] { x.add_(1.0); });
  work_->replay();
  EXPECT_EQ(values(x), (std::vector<float>{2, 3}));
}

TEST_P(RecordedWorkTest, MemoryThatIsGoneIsNoticed) {
  if (GetParam() == TestDevice::cuda) GTEST_SKIP() << "a card does not notice";
  const Tensor sum = there({0, 0});
  Tensor x = there({1, 2});
  work_->record([&] { sum.add_(x); });
  x = Tensor();
  EXPECT_ANY_THROW(work_->replay());
  EXPECT_ANY_THROW(work_->record([&] { sum.copy_(at::tensor({1.0F, 2.0F})); })) << "an upload";
}

INSTANTIATE_TEST_SUITE_P(Devices, RecordedWorkTest, testing::kCards);

TEST(RecordedWorkOnTheCpuTest, ThereIsNone) { EXPECT_EQ(recorded_work(at::kCPU), nullptr); }

}  // namespace
}  // namespace focus::ops
