#include <gtest/gtest.h>

#include <filesystem>

#include "focus/compress/unit.h"
#include "focus/core/error.h"
#include "support/small_model.h"

namespace focus::compress {
namespace {

class AdapterFileTest : public ::testing::Test {
 protected:
  AdapterFileTest() : folder_(std::filesystem::temp_directory_path() / ("focus-adapter-" + std::to_string(::getpid()))) {
    std::filesystem::create_directories(folder_);
  }
  ~AdapterFileTest() override { std::filesystem::remove_all(folder_); }
  std::filesystem::path folder_;
};

TEST_F(AdapterFileTest, RoundTripKeepsParametersAndConfiguration) {
  const auto backbone = testing::small_model(at::kFloat);
  MemoryConfig config;
  config.window.size = 64;
  config.focus.k = 7;
  config.focus.unit = UnitKind::paper;
  config.focus.rank = 3;
  const auto adapter = testing::perturbed_adapter(*backbone, config);
  save_adapter(*adapter, "digest", folder_ / "a.safetensors");
  const auto loaded = load_adapter(folder_ / "a.safetensors", *backbone, "digest");
  EXPECT_EQ(loaded->config().focus.k, 7);
  EXPECT_EQ(loaded->config().focus.unit, UnitKind::paper);
  const auto a = adapter->named_parameters(), b = loaded->named_parameters();
  ASSERT_EQ(a.size(), b.size());
  for (const auto& item : a) EXPECT_TRUE(at::equal(item.value(), b[item.key()])) << item.key();
}

TEST_F(AdapterFileTest, AnotherBackboneIsRefused) {
  const auto backbone = testing::small_model(at::kFloat);
  save_adapter(*testing::perturbed_adapter(*backbone, MemoryConfig()), "one backbone's digest", folder_ / "a.safetensors");
  EXPECT_THROW(load_adapter(folder_ / "a.safetensors", *backbone, "another backbone's digest"), CheckpointError);
}

TEST(AdapterTest, OnlyAttentionBlocksCanBeCompressed) {
  const auto backbone = testing::small_model(at::kFloat);
  MemoryConfig config;
  config.focus.layers = {1};
  EXPECT_THROW(FocusAdapter(*backbone, config, 0), ConfigError);
}

}  // namespace
}  // namespace focus::compress
