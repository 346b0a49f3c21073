// Compressed models with the device's kernels equal those of the CPU: streams, the parallel pass, gradients.
#include "focus/compress/compressed_model.h"
#include "support/devices.h"
#include "support/golden.h"
#include "support/small_model.h"
#include "support/tensors.h"

namespace focus::compress {
namespace {

using at::Tensor;
using testing::relative_rms;
using testing::TestDevice;

struct Case {
  const char* name;
  UnitKind unit;
  Stream stream;
  Local local;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

class FocusOnDeviceTest : public ::testing::TestWithParam<std::tuple<Case, TestDevice>> {
 protected:
  void SetUp() override {
    if (const std::string reason = testing::missing(test_device()); !reason.empty()) GTEST_SKIP() << reason;
    device_ = testing::device_of(test_device());
  }
  TestDevice test_device() const { return std::get<1>(GetParam()); }
  MemoryConfig config() const {
    const Case& c = std::get<0>(GetParam());
    MemoryConfig config;
    config.window = {16, WindowUnit::bases, Remainder::own};
    config.focus.k = 5;
    config.focus.unit = c.unit;
    config.focus.stream = c.stream;
    config.focus.local = c.local;
    if (c.unit == UnitKind::fitted) config.focus.fitted.reference_stride = 2;
    return config;
  }
  struct Model {
    std::shared_ptr<model::Backbone> backbone;
    std::shared_ptr<FocusAdapter> adapter;
    CompressedModel model;
  };
  Model make(const at::Device& device) const {
    const auto backbone = testing::golden_model("tiny7b", at::kFloat);
    const auto adapter = testing::perturbed_adapter(*backbone, config());
    backbone->place(std::vector(static_cast<std::size_t>(backbone->num_blocks()), device));
    adapter->to(device);
    return {backbone, adapter, CompressedModel(backbone, adapter)};
  }

  at::Device device_ = at::kCPU;
  const Tensor tokens_ = testing::random_bases(2, 83, 1);
};

Tensor streamed(const CompressedModel& model, const Tensor& tokens, int64_t chunk) {
  const at::NoGradGuard guard;
  CompressedStream stream;
  std::vector<Tensor> out;
  for (int64_t begin = 0; begin < tokens.size(1); begin += chunk)
    out.push_back(
        model.forward(tokens.narrow(1, begin, std::min(chunk, tokens.size(1) - begin)), stream).bases);
  return at::cat(out, 1).cpu();
}

// Both round each value of every layer once, in fp32.
constexpr double kTolerance = 1e-4;

TEST_P(FocusOnDeviceTest, StreamsEqualTheCpus) {
  const Tensor expected = streamed(make(at::kCPU).model, tokens_, 83);
  const Model there = make(device_);
  for (const int64_t chunk : {1, 7, 32, 83})
    EXPECT_LT(relative_rms(streamed(there.model, tokens_.to(device_), chunk), expected), kTolerance)
        << "chunks of " << chunk;
}

TEST_P(FocusOnDeviceTest, TheParallelPassAndItsGradientsEqualTheCpus) {
  const auto loss_of = [&](const Model& m, const Tensor& tokens) {
    const Tensor hidden = m.model.parallel(tokens).bases;
    const Tensor weights = at::linspace(-1, 1, hidden.numel(), at::kFloat).view(hidden.sizes()).sin();
    (hidden * weights.to(hidden.device())).mean().backward();
    return hidden.detach().cpu();
  };
  const Model here = make(at::kCPU), there = make(device_);
  const Tensor expected = loss_of(here, tokens_), got = loss_of(there, tokens_.to(device_));
  EXPECT_LT(relative_rms(got, expected), kTolerance);
  const auto wanted = here.adapter->named_parameters(), have = there.adapter->named_parameters();
  int64_t compared = 0;
  for (const auto& item : wanted) {
    const Tensor& gradient = item.value().grad();
    if (!gradient.defined() || gradient.norm().item<double>() == 0.0) continue;
    const Tensor& other = have[item.key()].grad();
    ASSERT_TRUE(other.defined()) << item.key();
    EXPECT_LT(relative_rms(other.cpu(), gradient), 10 * kTolerance) << item.key();
    ++compared;
  }
  EXPECT_GT(compared, 0);
}

INSTANTIATE_TEST_SUITE_P(
    Units, FocusOnDeviceTest,
    ::testing::Combine(::testing::Values(Case{"fitted", UnitKind::fitted, Stream::side, Local::window},
                                         Case{"paper", UnitKind::paper, Stream::side, Local::window},
                                         Case{"paper_inline_kmer", UnitKind::paper, Stream::inline_tokens,
                                              Local::kmer}),
                       testing::kCards));

}  // namespace
}  // namespace focus::compress
