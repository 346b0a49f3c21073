// Scores under every memory are the same on a card as on the CPU, and no tensor stays behind on the other
// device.
#include <gtest/gtest.h>

#include "focus/compress/memory/memory_factory.h"
#include "focus/infer/score.h"
#include "support/devices.h"
#include "support/golden.h"
#include "support/small_model.h"

namespace focus::infer {
namespace {

using testing::TestDevice;

class MemoryOnDeviceTest : public ::testing::TestWithParam<TestDevice> {
 protected:
  void SetUp() override {
    if (const std::string reason = testing::missing(GetParam()); !reason.empty()) GTEST_SKIP() << reason;
  }
  double score(const std::string& memory, const at::Device& device, int64_t chunk,
               at::ScalarType type) const {
    return score(memory, std::pair(device, device), chunk, type);
  }
  /// On two devices, the first of which has the larger half of the blocks.
  double score(const std::string& memory, std::pair<at::Device, at::Device> devices, int64_t chunk,
               at::ScalarType type) const {
    const auto backbone = testing::golden_model("tiny7b", type);
    std::vector<at::Device> places(static_cast<std::size_t>(backbone->num_blocks()), devices.first);
    std::fill(places.begin() + (backbone->num_blocks() + 1) / 2, places.end(), devices.second);
    backbone->place(places);
    compress::MemoryConfig config;
    config.window.size = 32;
    config.focus.k = 8;
    const auto stream = memory == "full"
                            ? plain_stream(*backbone)
                            : compressed_stream(compress::make_memory(memory, backbone, config), memory);
    ScoreOptions options;
    options.chunk = chunk;
    const std::vector<float> weights(letters_.size(), 1.f);
    return Scorer(*backbone, stream, options).score(letters_, weights, "record").mean_log_likelihood();
  }
  static std::vector<uint8_t> letters() {
    const at::Tensor bases = testing::random_bases(1, 147, 5).flatten().to(at::kByte);
    return {bases.const_data_ptr<uint8_t>(), bases.const_data_ptr<uint8_t>() + bases.numel()};
  }
  const std::vector<uint8_t> letters_ = letters();
};

TEST_P(MemoryOnDeviceTest, ScoresEqualTheCpus) {
  auto names = compress::memory_names();
  names.push_back("full");
  EXPECT_GT(names.size(), 10u);
  for (const std::string& name : names) {
    SCOPED_TRACE(name);
    const double expected = score(name, at::kCPU, 50, at::kFloat);
    for (const int64_t chunk : {1, 50}) {
      double got = 0;
      ASSERT_NO_THROW(got = score(name, testing::device_of(GetParam()), chunk, at::kFloat));
      EXPECT_NEAR(got, expected, 1e-5 * std::abs(expected)) << "chunks of " << chunk;
    }
  }
}

TEST_P(MemoryOnDeviceTest, LayersOnTwoCardsScoreAlike) {
  if (GetParam() == TestDevice::cuda && at::getNumGPUs() < 2) GTEST_SKIP() << "one CUDA device";
  at::Device second = testing::device_of(GetParam());
  second.set_index(1);
  auto names = compress::memory_names();
  names.push_back("full");
  for (const std::string& name : names) {
    SCOPED_TRACE(name);
    const double expected = score(name, at::kCPU, 50, at::kFloat);
    EXPECT_NEAR(score(name, std::pair(testing::device_of(GetParam()), second), 50, at::kFloat), expected,
                1e-5 * std::abs(expected));
  }
}

TEST_P(MemoryOnDeviceTest, ScoresInBf16EqualTheCpusUpToItsRounding) {
  for (const std::string name : {"full", "fitted", "sliding", "quantised_int8"}) {
    const double expected = score(name, at::kCPU, 50, at::kBFloat16);
    // A mean of 146 log-likelihoods, each of which moves by a few units of the 8 bits of its logits.
    EXPECT_NEAR(score(name, testing::device_of(GetParam()), 50, at::kBFloat16), expected,
                0x1p-8 * std::abs(expected))
        << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, MemoryOnDeviceTest, testing::kCards);

}  // namespace
}  // namespace focus::infer
