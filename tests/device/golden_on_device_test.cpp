// The reference's recordings of whole models, with the device's kernels; the CPU's own tests are in
// tests/model.
#include <tuple>

#include "support/devices.h"
#include "support/golden.h"

namespace focus::testing {
namespace {

using at::Tensor;

class GoldenOnDeviceTest
    : public ::testing::TestWithParam<std::tuple<std::string, TestDevice, at::ScalarType>> {
 protected:
  void SetUp() override {
    if (const std::string reason = missing(test_device()); !reason.empty()) GTEST_SKIP() << reason;
    device_ = device_of(test_device());
    model_->place(std::vector(static_cast<std::size_t>(model_->num_blocks()), device_));
  }
  std::string name() const { return std::get<0>(GetParam()); }
  TestDevice test_device() const { return std::get<1>(GetParam()); }
  Golden recorded(const std::string& what) const { return Golden(name() + "." + what + ".fp32"); }
  Tensor step(const Tensor& tokens) { return model_->forward(tokens.to(device_), &state_).cpu(); }

  at::NoGradGuard guard_;
  at::Device device_ = at::kCPU;
  std::shared_ptr<model::StripedHyena> model_ = golden_model(name(), std::get<2>(GetParam()));
  GoldenCheck check_{name(), std::get<2>(GetParam())};
  cache::StreamState state_;
};

TEST_P(GoldenOnDeviceTest, LogitsOfOneCall) {
  const Golden golden = recorded("logits");
  for (const std::string input : {"len1", "len2", "len3", "len7", "len64", "len300", "batch2_300"}) {
    // In bf16 one base alone is a single draw of the noise that it would be judged by; the steps below are
    // many.
    if (input == "len1" && std::get<2>(GetParam()) == at::kBFloat16) continue;
    const Tensor logits = model_->forward(golden["tokens." + input].to(device_)).cpu();
    if (golden.has("logits." + input))
      check_("logits/logits." + input, logits, golden["logits." + input]);
    else
      check_("logits/logits_at." + input, logits.index_select(1, golden["pos." + input]),
             golden["logits_at." + input]);
  }
}

TEST_P(GoldenOnDeviceTest, StepsAfterAPrompt) {
  const Golden golden = recorded("decode");
  const Tensor tokens = golden["forced_tokens"];
  step(golden["prompt"]);
  std::vector<Tensor> logits;
  for (int64_t s = 0; s < tokens.size(1); ++s) logits.push_back(step(tokens.narrow(1, s, 1)).select(1, 0));
  check_("decode/forced_step_logits", at::stack(logits, 1), golden["forced_step_logits"]);
}

TEST_P(GoldenOnDeviceTest, ChunksOfManyLengths) {
  const Golden golden = recorded("decode");
  const Tensor prompt = golden["prompt"], tokens = at::cat({prompt, golden["forced_tokens"]}, 1);
  std::vector<Tensor> logits;
  for (int64_t begin = 0, size = 1; begin < tokens.size(1); begin += size, size = size % 67 * 2 + 1) {
    size = std::min(size, tokens.size(1) - begin);
    logits.push_back(step(tokens.narrow(1, begin, size)));
  }
  const Tensor after = at::cat(logits, 1).narrow(1, prompt.size(1), golden["forced_tokens"].size(1));
  check_("decode/chunks", after, golden["forced_stateless_logits"], "decode/forced_stateless_logits");
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenOnDeviceTest,
                         ::testing::Combine(::testing::ValuesIn(kGoldenModels), kCards,
                                            ::testing::Values(at::kFloat, at::kBFloat16)));

}  // namespace
}  // namespace focus::testing
