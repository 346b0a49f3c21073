// What streams ask of the host: nothing, once the tables of a plan are made. On a card each of these would be
// a wait, so they are counted here.
#include <gtest/gtest.h>

#include "focus/compress/memory/memory_factory.h"
#include "support/host_traffic.h"
#include "support/small_model.h"

namespace focus::compress {
namespace {

using at::Tensor;
using testing::HostTraffic;

constexpr int64_t kWindow = 64, kWindowBytes = 2 * kWindow * 8 * 4;  // keys of one window at one layer, fp32

struct Kind {
  const char* name;  // of a memory; "adapter": the configuration's own units
  const char* overrides = "";
};

MemoryConfig config_of(const std::string& overrides) {
  MemoryConfig config;
  config.window.size = kWindow;
  config.focus.k = 8;
  const auto has = [&](const char* word) { return overrides.find(word) != std::string::npos; };
  if (has("paper")) config.focus.unit = UnitKind::paper;
  if (has("inline")) config.focus.stream = Stream::inline_tokens;
  if (has("rolling")) config.focus.eviction = Eviction::rolling;
  if (has("tail")) config.focus.tail = 8;
  if (has("kmer")) config.focus.local = Local::kmer;
  if (has("several")) config.focus.entries_per_kmer = 3;
  if (has("tables")) {
    config.kind = MemoryKind::tables;
  } else if (has("quantised")) {
    config.kind = MemoryKind::quantised;
  } else {
    config.focus.rank = 4;
  }
  return config;
}

class HostTrafficTest : public ::testing::TestWithParam<Kind> {
 protected:
  HostTrafficTest() {
    const MemoryConfig config = config_of(GetParam().overrides);
    model_ =
        std::string(GetParam().name) == "adapter"
            ? std::make_shared<CompressedModel>(backbone_, testing::perturbed_adapter(*backbone_, config))
            : make_memory(GetParam().name, backbone_, config);
  }
  static bool has(const char* word) {
    return std::string(GetParam().overrides).find(word) != std::string::npos;
  }
  static bool is_inline() { return has("inline"); }
  void feed(int64_t count) { model_->forward(tokens_.narrow(1, stream_.bases, count), stream_); }

  at::NoGradGuard guard_;
  std::shared_ptr<model::Backbone> backbone_ = testing::small_model(at::kFloat);
  std::shared_ptr<const CompressedModel> model_;
  CompressedStream stream_;
  Tensor tokens_ = testing::random_bases(1, 20 * kWindow, 3);
};

TEST_P(HostTrafficTest, PrefillWaitsForNothing) {
  feed(4 * kWindow);
  const HostTraffic traffic(kWindowBytes);
  for (int window = 0; window < 8; ++window) feed(kWindow);
  EXPECT_EQ(traffic.reads(), 0) << traffic.names();
  // Where the Focus tokens of an inline stream stand among a call's tokens: three lists for all layers.
  EXPECT_EQ(traffic.writes(), is_inline() ? 3 * 8 : 0) << traffic.names();
}

TEST_P(HostTrafficTest, DecodingCopiesNoPast) {
  feed(8 * kWindow + kWindow / 2 + 1);
  const HostTraffic traffic(kWindowBytes / 2);
  for (int base = 0; base < 6; ++base) feed(1);  // in the midst of a k-mer
  EXPECT_EQ(traffic.reads(), 0) << traffic.names();
  EXPECT_EQ(traffic.writes(), 0) << traffic.names();
  // Base tables make keys of all letters for each call.
  if (!has("tables")) {
    EXPECT_EQ(traffic.large_copies(), 0) << traffic.names();
  }
}

INSTANTIATE_TEST_SUITE_P(Memories, HostTrafficTest,
                         ::testing::Values(Kind{"full"}, Kind{"state_only"}, Kind{"sliding"}, Kind{"sinks"},
                                           Kind{"mean_pool"}, Kind{"snapkv"}, Kind{"fitted"},
                                           Kind{"fitted", "several"}, Kind{"adapter", "fitted"},
                                           Kind{"adapter", "fitted rolling"}, Kind{"adapter", "fitted tail"},
                                           Kind{"adapter", "paper"}, Kind{"adapter", "paper kmer"},
                                           Kind{"adapter", "paper inline"}, Kind{"adapter", "tables"},
                                           Kind{"adapter", "quantised"}, Kind{"quantised_int4"}),
                         [](const auto& p) {
                           std::string name = std::string(p.param.name) + "_" + p.param.overrides;
                           for (char& c : name) c = c == ' ' ? '_' : c;
                           return name;
                         });

}  // namespace
}  // namespace focus::compress
