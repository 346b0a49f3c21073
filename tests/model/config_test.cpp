#include "focus/model/config.h"

#include <gtest/gtest.h>

#include "focus/core/error.h"
#include "focus/core/file.h"
#include "support/golden.h"

namespace focus::model {
namespace {

std::string tiny() { return read_file(testing::golden_path("configs/tiny7b.yml")); }

std::string message_of(const std::string& yaml) {
  try {
    parse_model_config(yaml, "test.yml");
  } catch (const ConfigError& e) {
    return e.what();
  }
  return "";
}

TEST(ModelConfigTest, ReadsEvo2Yaml) {
  const ModelConfig c = parse_model_config(tiny(), "tiny7b.yml");
  EXPECT_EQ(c.hidden_size, 64);
  EXPECT_EQ(c.num_heads, 4);
  EXPECT_EQ(c.blocks.at(1), BlockKind::hcm);
  EXPECT_EQ(c.blocks.at(7), BlockKind::attention);
  EXPECT_EQ(c.inner_mlp_size, 172);
  EXPECT_TRUE(c.evo2_activations);
  EXPECT_DOUBLE_EQ(c.rotary_scaling, 1.0);
  EXPECT_DOUBLE_EQ(read_model_config(testing::golden_path("configs/tiny7b-1m.yml")).rotary_scaling, 128.0);
}

TEST(ModelConfigTest, UnknownMissingDuplicateAndUnsupportedKeysAreErrors) {
  EXPECT_NE(message_of(tiny() + "hiden_size: 3\n").find("hiden_size"), std::string::npos);
  EXPECT_NE(message_of("vocab_size: 512\n").find("hidden_size"), std::string::npos);
  EXPECT_NE(message_of(tiny() + "vocab_size: 512\n").find("twice"), std::string::npos);
  std::string fp8 = tiny();
  fp8.replace(fp8.find("use_fp8_input_projections: False"), 32, "use_fp8_input_projections: True ");
  EXPECT_NE(message_of(fp8).find("use_fp8_input_projections"), std::string::npos);
  std::string type = tiny();
  type.replace(type.find("hidden_size: 64"), 15, "hidden_size: xy");
  EXPECT_NE(message_of(type).find("wrong type"), std::string::npos);
  EXPECT_NE(message_of("[1, 2").find("YAML"), std::string::npos);
  EXPECT_THROW(read_model_config("no/such.yml"), ConfigError);
}

TEST(ModelConfigTest, EveryLayerHasOneKind) {
  std::string missing = tiny(), twice = tiny();
  missing.replace(missing.find("hcl_layer_idxs: [2,6]"), 21, "hcl_layer_idxs: [2]  ");
  EXPECT_NE(message_of(missing).find("layer 6"), std::string::npos);
  twice.replace(twice.find("hcl_layer_idxs: [2,6]"), 21, "hcl_layer_idxs: [2,3]");
  EXPECT_NE(message_of(twice).find("layer 3"), std::string::npos);
}

}  // namespace
}  // namespace focus::model
