// Decoding on a card: what a graph replays is what the host would have launched, and what the CPU computes.
#include <gtest/gtest.h>

#include "focus/compress/memory/memory_factory.h"
#include "focus/infer/decode.h"
#include "support/devices.h"
#include "support/emulated_card.h"
#include "support/small_model.h"
#include "support/tensors.h"

namespace focus::infer {
namespace {

using at::Tensor;
using testing::TestDevice;

constexpr int64_t kPrompt = 41, kBases = 120, kWindow = 32;
const std::vector<int64_t> kLetters = {'A', 'C', 'G', 'T'};

/// How many of kBases steps after kPrompt bases are recorded, and how many are plain. The host runs the first
/// step; those at which a buffer grows (full: at 41, 61, 91 and 136 bases; with a raw tail in mid-window);
/// the last and the first one of a window of kWindow; with rolling eviction that at which a k-mer goes and
/// the next; and those that are too few to record up to one of these.
struct Memory {
  std::string name;
  int64_t recorded, plain;
};
void PrintTo(const Memory& memory, std::ostream* out) { *out << memory.name; }

class DecodeOnDeviceTest : public testing::OnDeviceTest<Memory> {
 protected:
  std::unique_ptr<Stream> begin(const std::shared_ptr<model::Backbone>& model) const {
    const std::string& name = shape().name;
    if (name == "full, length known") return plain_stream(*model)(kPrompt + kBases);
    if (name == "full") return plain_stream(*model)(0);
    compress::MemoryConfig config;
    config.window.size = kWindow;
    config.focus.k = 8;
    if (name == "rolling") {
      config.focus.k = 16;
      config.focus.eviction = compress::Eviction::rolling;
    } else if (name == "tail") {
      config.focus.tail = 8;
    } else if (name != "fitted") {
      return compressed_stream(compress::make_memory(name, model, config), name)(0);
    }
    return compressed_stream(
        std::make_shared<compress::CompressedModel>(model, testing::perturbed_adapter(*model, config)),
        name)(0);
  }
  std::shared_ptr<model::Backbone> model_on(const at::Device& device) const {
    auto model = testing::small_model(type());
    model->place(std::vector<at::Device>(static_cast<std::size_t>(model->num_blocks()), device));
    return model;
  }
  Decoder decoder(const std::shared_ptr<model::Backbone>& model, const DecodeOptions& options) const {
    auto stream = begin(model);
    const Tensor prompt = testing::random_bases(2, kPrompt, 3).to(model->device());
    const Tensor hidden = stream->forward(prompt).narrow(1, kPrompt - 1, 1);
    return {*model, std::move(stream), hidden, options};
  }
  /// What the model makes of bases that follow, on the CPU; the decoder goes on unchanged.
  static Tensor after(const Decoder& decoder, const at::Device& device) {
    return decoder.stream().fork()->forward(testing::random_bases(2, 40, 4).to(device)).cpu();
  }
  const at::NoGradGuard no_grad_;
};

TEST_P(DecodeOnDeviceTest, ReplaysGiveWhatTheHostWouldHaveLaunchedAndWhatTheCpuComputes) {
  const DecodeOptions options = {.choice = {.temperature = 0.9, .top_k = 3}, .seed = 5, .allowed = kLetters};
  DecodeOptions plainly = options;
  plainly.record = false;
  const auto model = model_on(device());
  Decoder replayed = decoder(model, options), launched = decoder(model, plainly);
  const Tensor tokens = replayed.next(kBases);
  EXPECT_TRUE(at::equal(launched.next(kBases), tokens));
  EXPECT_TRUE(at::equal(after(replayed, device()), after(launched, device())));
  EXPECT_EQ(launched.steps().plain, kBases);

  const Decoder::Steps& steps = replayed.steps();
  EXPECT_EQ(steps.recorded, shape().recorded);
  EXPECT_EQ(steps.plain, shape().plain);
  EXPECT_EQ(steps.plain + steps.recorded + steps.replayed, kBases);
  if (test_device() == TestDevice::emulated && type() == at::kBFloat16) {
    // 11 around three Hyena blocks with 7 and two copies of their states, and two attention blocks with 13,
    // or with 16 where queries, inputs and positions are kept.
    EXPECT_EQ(testing::recorded_launches(), shape().name == "full" ? 64 : 70);
  }

  const auto twin = model_on(at::kCPU);
  const auto stream = begin(twin);
  Tensor hidden = stream->forward(testing::random_bases(2, kPrompt, 3)).narrow(1, kPrompt - 1, 1);
  for (int64_t i = 0; i < kBases; ++i) hidden = stream->forward(tokens.narrow(1, i, 1));
  const Tensor expected = stream->forward(testing::random_bases(2, 40, 4));
  EXPECT_LE(testing::relative_rms(after(replayed, device()), expected), type() == at::kFloat ? 1e-5 : 0x1p-5);
  if (type() == at::kFloat) {
    EXPECT_TRUE(at::equal(decoder(twin, options).next(kBases), tokens));
  }
}

TEST_P(DecodeOnDeviceTest, TheHostAsksForNothingWithinABlock) {
  if (test_device() == TestDevice::cuda) GTEST_SKIP() << "nothing is counted on a card";
  const auto model = model_on(device());
  const auto of_block = [&](bool record, int64_t bases) {
    Decoder decoder = this->decoder(model, {.allowed = kLetters, .record = record});
    decoder.next(25);  // up to base 66, two after a window has closed
    testing::reset_card_counts();
    decoder.next(bases);
    return testing::card_counts();
  };
  for (const bool record : {true, false}) {
    if (record && shape().recorded == 0) continue;
    const testing::CardCounts few = of_block(record, 2), more = of_block(record, 12);
    EXPECT_EQ(few.reads, 1) << "the tokens";
    EXPECT_EQ(few.uploads, 1) << "the numbers that they are drawn by";
    EXPECT_EQ(more.reads, 1);
    EXPECT_EQ(more.uploads, 1);
    // In the middle of a window, save where buffers move there.
    if (record && shape().name != "rolling" && shape().name != "tail") {
      EXPECT_EQ(more.allocations, few.allocations);
      EXPECT_EQ(more.operators, few.operators);
    }
  }
}

const auto kMemories = ::testing::Values(
    Memory{"full, length known", 1, 1}, Memory{"full", 4, 4}, Memory{"fitted", 4, 9}, Memory{"tail", 4, 61},
    Memory{"state_only", 4, 9}, Memory{"kv_quant_int8", 4, 9}, Memory{"rolling", 7, 22});
INSTANTIATE_TEST_SUITE_P(Fp32, DecodeOnDeviceTest,
                         ::testing::Combine(kMemories, testing::kCards, ::testing::Values(at::kFloat)));
INSTANTIATE_TEST_SUITE_P(Bf16, DecodeOnDeviceTest,
                         ::testing::Combine(::testing::Values(Memory{"full", 4, 4}, Memory{"fitted", 4, 9}),
                                            testing::kCards, ::testing::Values(at::kBFloat16)));

TEST(DecodeOnTwoCardsTest, EachStepIsTheHosts) {
  if (const std::string reason = testing::missing(TestDevice::emulated); !reason.empty())
    GTEST_SKIP() << reason;
  const at::NoGradGuard no_grad;
  const auto decoded = [](const std::vector<at::Device>& places) {
    const auto model = testing::small_model(at::kFloat);
    model->place(places);
    auto stream = plain_stream(*model)(0);
    const Tensor hidden = stream->forward(testing::random_bases(1, 20, 3).to(places[0]));
    Decoder decoder(*model, std::move(stream), hidden.narrow(1, 19, 1), {.seed = 2, .allowed = kLetters});
    const Tensor tokens = decoder.next(40);
    EXPECT_EQ(decoder.steps().plain, 40);
    return tokens;
  };
  const at::Device first = testing::emulated_card(0), second = testing::emulated_card(1);
  EXPECT_TRUE(at::equal(decoded({first, first, first, second, second}),
                        decoded(std::vector<at::Device>(5, at::kCPU))));
}

class BakedInTest : public ::testing::TestWithParam<TestDevice> {};

/// A call that passes its position, its place in the buffers and its number of keys by the host is replayed
/// wrongly, which shows that the test above would notice one of them.
TEST_P(BakedInTest, APositionOfTheHostIsFound) {
  if (const std::string reason = testing::missing(GetParam()); !reason.empty()) GTEST_SKIP() << reason;
  const at::NoGradGuard no_grad;
  const at::Device device = testing::device_of(GetParam());
  const auto model = testing::small_model(at::kFloat);
  model->place(std::vector<at::Device>(static_cast<std::size_t>(model->num_blocks()), device));
  const Tensor token = at::full({1, 1}, 'C', at::kLong).to(device);
  const auto differs = [&](bool steps) {
    const auto replayed = plain_stream(*model)(64), launched = plain_stream(*model)(64);
    const auto read = [&](Stream& stream) { return steps ? stream.step(token) : stream.forward(token); };
    for (int i = 0; i < 2; ++i) read(*replayed);
    Tensor out = at::empty({1, 1, 16}, at::TensorOptions().device(device)), expected;
    const auto work = ops::recorded_work(device);
    work->record([&] { out.copy_(read(*replayed)); });
    for (int i = 0; i < 5; ++i) work->replay();
    for (int i = 0; i < 7; ++i) expected = read(*launched);
    return testing::max_difference(out.cpu(), expected.cpu());
  };
  EXPECT_EQ(differs(/*steps=*/true), 0);
  EXPECT_GT(differs(/*steps=*/false), 1e-3);
}

INSTANTIATE_TEST_SUITE_P(Devices, BakedInTest, testing::kCards);

}  // namespace
}  // namespace focus::infer
