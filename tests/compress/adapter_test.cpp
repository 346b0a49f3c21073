#include <gtest/gtest.h>

#include <filesystem>

#include "focus/compress/compressed_model.h"
#include "focus/compress/focus/adapter_file.h"
#include "focus/compress/memory/memory_factory.h"
#include "focus/core/error.h"
#include "focus/formats/safetensors_writer.h"
#include "support/small_model.h"

namespace focus::compress {
namespace {

class AdapterFileTest : public ::testing::Test {
 protected:
  AdapterFileTest()
      : folder_(std::filesystem::temp_directory_path() / ("focus-adapter-" + std::to_string(::getpid()))) {
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
  save_adapter(*adapter, {backbone, {}, {}}, "digest", folder_ / "a.safetensors");
  const auto file = load_adapter(folder_ / "a.safetensors", backbone, "digest");
  EXPECT_EQ(file.adapted.backbone, backbone) << "nothing of it was changed";
  const auto& loaded = file.adapter;
  EXPECT_EQ(loaded->config().focus.k, 7);
  EXPECT_EQ(loaded->config().focus.unit, UnitKind::paper);
  const auto a = adapter->named_parameters(), b = loaded->named_parameters();
  ASSERT_EQ(a.size(), b.size());
  for (const auto& item : a) EXPECT_TRUE(at::equal(item.value(), b[item.key()])) << item.key();
}

TEST_F(AdapterFileTest, TheDigestIsOfWhatItComputes) {
  const auto backbone = testing::small_model(at::kFloat);
  MemoryConfig config;
  const auto digest = [&](const FocusAdapter& adapter, const std::string& training) {
    save_adapter(adapter, {backbone, {}, {}}, "digest", folder_ / "a.safetensors", training);
    return load_adapter(folder_ / "a.safetensors", backbone, "digest").digest;
  };
  const auto adapter = testing::perturbed_adapter(*backbone, config);
  const std::string one = digest(*adapter, "");
  EXPECT_EQ(digest(*adapter, R"({"steps": 3})"), one);
  EXPECT_NE(digest(*FocusAdapter(*backbone, config, 1).with(config), ""), one);
  config.focus.tail = 100;  // the same parameters
  EXPECT_NE(digest(*std::make_shared<FocusAdapter>(*backbone, config, 1), ""),
            digest(FocusAdapter(*backbone, {}, 1), ""));
}

TEST_F(AdapterFileTest, AnotherBackboneIsRefused) {
  const auto backbone = testing::small_model(at::kFloat);
  save_adapter(*testing::perturbed_adapter(*backbone, MemoryConfig()), {backbone, {}, {}},
               "one backbone's digest", folder_ / "a.safetensors");
  EXPECT_THROW(load_adapter(folder_ / "a.safetensors", backbone, "another backbone's digest"),
               CheckpointError);
}

TEST_F(AdapterFileTest, AFileOfBeforeTheCheckedFitRunsAsItWasTrained) {
  const auto read = [&](const std::string& memory) {
    formats::write_safetensors(folder_ / "old.safetensors", {},
                               {{"format", "focus-adapter-1"}, {"memory", memory}});
    return read_adapter_config(folder_ / "old.safetensors");
  };
  const FittedUnitConfig old =
      read(R"({"focus": {"k": 50, "fitted": {"ridge": 3, "corrections": true}}})").focus.fitted;
  EXPECT_EQ(old.leave_out, 0);
  EXPECT_FALSE(old.check);
  const FittedUnitConfig named =
      read(R"({"focus": {"fitted": {"leave_out": 5, "check": true}}})").focus.fitted;
  EXPECT_EQ(named.leave_out, 5);
  EXPECT_TRUE(named.check);
  // Where the settings mean nothing they keep their defaults, and the configuration stays valid.
  for (const char* memory : {R"({"focus": {"unit": "paper"}})", R"({"memory": {"kind": "tables"}})"}) {
    const MemoryConfig other = read(memory);
    EXPECT_TRUE(other.focus.fitted.check);
    EXPECT_NO_THROW(other.validate());
    EXPECT_NO_THROW(closed_form(other));
  }
  // What is trained today says so in its file.
  const auto backbone = testing::small_model(at::kFloat);
  save_adapter(*testing::perturbed_adapter(*backbone, MemoryConfig()), {backbone, {}, {}}, "digest",
               folder_ / "new.safetensors");
  EXPECT_TRUE(read_adapter_config(folder_ / "new.safetensors").focus.fitted.check);
}

TEST_F(AdapterFileTest, OneUnitMayServeAllLayers) {
  const auto backbone = testing::small_model(at::kFloat);
  MemoryConfig config;
  const auto own = FocusAdapter(*backbone, config, 1).parameters().size();
  config.focus.share = Share::all;
  const auto adapter = testing::perturbed_adapter(*backbone, config);
  EXPECT_EQ(2 * adapter->parameters().size(), own);
  EXPECT_TRUE(adapter->unit(2)->named_parameters()["beta_bias"].is_same(
      adapter->unit(4)->named_parameters()["beta_bias"]));
  EXPECT_EQ(adapter->unit(3), nullptr);
  save_adapter(*adapter, {backbone, {}, {}}, "digest", folder_ / "a.safetensors");
  const auto loaded = load_adapter(folder_ / "a.safetensors", backbone, "digest").adapter;
  const at::Tensor tokens = testing::random_bases(1, 2100, 4);
  EXPECT_TRUE(at::equal(CompressedModel(backbone, adapter).parallel(tokens).bases,
                        CompressedModel(backbone, loaded).parallel(tokens).bases));
  config.focus.fitted.corrections = false;
  EXPECT_THROW(config.validate(), ConfigError) << "nothing would be shared";
}

TEST(AdapterTest, OnlyAttentionBlocksCanBeCompressed) {
  const auto backbone = testing::small_model(at::kFloat);
  MemoryConfig config;
  config.focus.layers = {1};
  EXPECT_THROW(FocusAdapter(*backbone, config, 0), ConfigError);
}

}  // namespace
}  // namespace focus::compress
