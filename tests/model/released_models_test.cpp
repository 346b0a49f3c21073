// The shapes of the released Evo-2 models, and the tiny ones shaped like them.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "focus/core/error.h"
#include "focus/model/parameter_list.h"
#include "focus/model/striped_hyena.h"
#include "support/golden.h"

namespace focus::model {
namespace {

std::string models_path(const std::string& file) {
  return std::string(FOCUS_SOURCE_DIR) + "/configs/models/" + file;
}

const std::vector<int64_t> kAttention20 = {3, 10, 17}, kAttention1 = {3, 10, 17, 24},
                           kAttention7 = {3, 10, 17, 24, 31}, kAttention40 = {3, 10, 17, 24, 31, 35, 42, 49};

struct Released {
  const char* name;
  int64_t hidden, heads, groups, layers;
  std::vector<int64_t> attention;
  int64_t inner;
  double rotary_base, rotary_scaling;
  int64_t max_length;
  bool fp8;
  int64_t parameters;
};

const std::vector<Released> kReleased = {
    {"evo2_1b_base", 1920, 15, 128, 25, kAttention1, 5120, 1e4, 1, 8192, true, 1107989760},
    {"evo2_7b_base", 4096, 32, 256, 32, kAttention7, 11008, 1e4, 1, 32768, false, 6481059584},
    {"evo2_7b_microviridae", 4096, 32, 256, 32, kAttention7, 11008, 1e4, 1, 32768, false, 6481059584},
    {"evo2_7b_262k", 4096, 32, 256, 32, kAttention7, 11008, 1e4, 32, 262144, false, 6481059584},
    {"evo2_7b", 4096, 32, 256, 32, kAttention7, 11264, 1e4, 128, 1048576, false, 6581722880},
    {"evo2_20b", 8192, 64, 512, 24, kAttention20, 22528, 1e6, 128, 1048576, true, 19738780160},
    {"evo2_40b_base", 8192, 64, 512, 50, kAttention40, 21888, 1e6, 1, 8192, true, 40331142144},
    {"evo2_40b", 8192, 64, 512, 50, kAttention40, 22528, 1e6, 128, 1048576, true, 41117574144},
};

/// hcs, hcm, hcl in turn; every attention block starts the turn anew.
std::vector<BlockKind> in_turn(int64_t layers, const std::vector<int64_t>& attention) {
  std::vector<BlockKind> out;
  int64_t turn = 0;
  for (int64_t i = 0; i < layers; ++i) {
    const bool attends = std::find(attention.begin(), attention.end(), i) != attention.end();
    out.push_back(attends ? BlockKind::attention : static_cast<BlockKind>(turn % 3));
    turn = attends ? 0 : turn + 1;
  }
  return out;
}

int64_t num_parameters(const ModelConfig& config) {
  int64_t total = 0;
  for (const ParameterSpec& spec : parameter_list(config)) total += spec.buffer ? 0 : spec.num_elements();
  return total;
}

TEST(ReleasedModelsTest, ShapesAreThePublished) {
  for (const Released& expected : kReleased) {
    SCOPED_TRACE(expected.name);
    const ModelConfig c = read_model_config(models_path(std::string(expected.name) + ".yml"));
    EXPECT_EQ(c.name, expected.name);
    EXPECT_EQ(c.vocab_size, 512);
    EXPECT_EQ(c.hidden_size, expected.hidden);
    EXPECT_EQ(c.num_heads, expected.heads);
    EXPECT_EQ(c.hidden_size / c.num_heads, 128);
    EXPECT_EQ(c.hcs_groups, expected.groups);
    EXPECT_EQ(c.hcm_groups, expected.groups);
    EXPECT_EQ(c.num_layers, expected.layers);
    EXPECT_EQ(c.blocks, in_turn(expected.layers, expected.attention));
    EXPECT_EQ(c.inner_mlp_size, expected.inner);
    EXPECT_EQ(c.rotary_base, expected.rotary_base);
    EXPECT_EQ(c.rotary_scaling, expected.rotary_scaling);
    EXPECT_EQ(c.max_length, expected.max_length);
    EXPECT_EQ(c.fp8_input_projections, expected.fp8);
    EXPECT_EQ(std::tie(c.input_taps, c.hcs_taps, c.hcm_taps, c.state_size), std::make_tuple(3, 7, 128, 16));
    EXPECT_EQ(c.eps, 1e-6);
    EXPECT_TRUE(c.column_split && c.attention_out_bias && c.hyena_out_bias && c.final_norm &&
                c.evo2_activations);
    EXPECT_FALSE(c.qkv_bias);
    EXPECT_EQ(num_parameters(c), expected.parameters);
  }
}

// Its publisher's manifest counts 82,252,533,760 bytes of tensors in evo2_40b.pt.
TEST(ReleasedModelsTest, Evo240bHasTheBytesOfItsManifest) {
  const ModelConfig c = read_model_config(models_path("evo2_40b.yml"));
  const auto count = [&](BlockKind kind) { return std::count(c.blocks.begin(), c.blocks.end(), kind); };
  const int64_t in_bf16 =
      2 * (num_parameters(c) + c.vocab_size * c.hidden_size);  // with a copy of the embedding
  const int64_t norms = (2 * c.num_layers + 1) * c.hidden_size,
                modes = count(BlockKind::hcl) * 2 * c.hidden_size * c.state_size;
  const int64_t frequencies = count(BlockKind::attention) * c.hidden_size / c.num_heads / 2;
  EXPECT_EQ(in_bf16 + 2 * (norms + modes) + 4 * frequencies, 82252533760);  // these are fp32 in the file
}

TEST(ReleasedModelsTest, ParametersAreCountedAsTheModelHasThem) {
  for (const auto& entry : std::filesystem::directory_iterator(testing::golden_path("configs"))) {
    const ModelConfig c = read_model_config(entry.path().string());
    EXPECT_EQ(num_parameters(c), StripedHyena(c).num_parameters()) << entry.path();
  }
  ModelConfig c = read_model_config(models_path("focus-small.yml"));
  EXPECT_EQ(num_parameters(c), StripedHyena(c).num_parameters());
  c.final_norm = c.attention_out_bias = c.hyena_out_bias = false;
  c.qkv_bias = true;
  c.hcs_taps = 5;
  c.hcm_groups = 32;
  EXPECT_EQ(num_parameters(c), StripedHyena(c).num_parameters());
}

TEST(ReleasedModelsTest, EveryExpectationBelongsToAModel) {
  std::ifstream file(models_path("selftest.json"));
  const auto expected = nlohmann::json::parse(file, nullptr, true, /*ignore_comments=*/true);
  for (const auto& [name, figures] : expected.items()) {
    EXPECT_TRUE(std::filesystem::exists(models_path(name + ".yml"))) << name;
    EXPECT_EQ(figures.size(), 3U) << name;
    EXPECT_GT(figures.at("loss").get<double>(), 0.2) << name;
    EXPECT_LT(figures.at("loss").get<double>(), std::log(4.0)) << name;
    EXPECT_GT(figures.at("accuracy").get<double>(), 0.79) << name;
    EXPECT_LT(figures.at("accuracy").get<double>(), 0.92) << name;
    EXPECT_EQ(figures.at("tolerance").get<double>(), 1e-3) << name;
  }
  EXPECT_EQ(expected.size(), 6U);
  EXPECT_FALSE(expected.contains("evo2_7b_262k") ||
               expected.contains("evo2_7b_microviridae"));  // none is published
}

}  // namespace
}  // namespace focus::model
