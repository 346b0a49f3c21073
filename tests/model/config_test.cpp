#include "focus/model/config.h"

#include <gtest/gtest.h>

#include "focus/core/error.h"
#include "focus/core/file.h"
#include "support/golden.h"

namespace focus::model {
namespace {

std::string tiny() { return read_file(testing::golden_path("configs/tiny7b.yml")); }

/// tiny7b's file with one line's value replaced, or without that line where `value` is empty.
std::string with(const std::string& key, const std::string& value) {
  std::string text = tiny();
  const std::size_t begin = ("\n" + text).find("\n" + key + ":");
  EXPECT_NE(begin, std::string::npos) << key;
  const std::size_t end = text.find('\n', begin) + 1;
  return text.replace(begin, end - begin, value.empty() ? "" : key + ": " + value + "\n");
}

std::string message_of(const std::string& yaml) {
  try {
    parse_model_config(yaml, "test.yml");
  } catch (const ConfigError& e) {
    return e.what();
  }
  return "";
}

int64_t line_of(const std::string& yaml, const std::string& key) {
  const std::size_t at = ("\n" + yaml).find("\n" + key + ":");
  return std::count(yaml.begin(), yaml.begin() + static_cast<std::ptrdiff_t>(at), '\n') + 1;
}

void expect_refused(const std::string& key, const std::string& value, const std::string& why) {
  const std::string yaml = with(key, value), message = message_of(yaml);
  EXPECT_EQ(message.find(concat("test.yml:", line_of(yaml, key), ": key '", key, "': ")), 0U)
      << key << ": " << value << " -> " << message;
  EXPECT_NE(message.find(why), std::string::npos) << key << ": " << value << " -> " << message;
}

TEST(ModelConfigTest, CraftedFilesAreRefusedInPlainWords) {
  EXPECT_NE(message_of(with("hidden_size", std::string(200'000, '['))).find("test.yml"), std::string::npos);
  EXPECT_NE(message_of(with("hidden_size", std::string(200'000, '{'))).find("test.yml"), std::string::npos);
  std::string bomb = "&a0 [1, 1, 1, 1, 1, 1, 1, 1]";
  for (int i = 1; i < 30; ++i) {
    bomb += concat("\nx", i, ": &a", i, " [");
    for (int j = 0; j < 8; ++j) bomb += concat("*a", i - 1, j < 7 ? ", " : "]");
  }
  EXPECT_NE(message_of(with("attn_layer_idxs", bomb)).find("test.yml"), std::string::npos);
  EXPECT_NE(message_of(with("attn_layer_idxs", "&a [*a, *a]")).find("test.yml"), std::string::npos);
  expect_refused("rotary_emb_base", "1e-400", "1e-400 is too small");
}

TEST(ModelConfigTest, UnknownMissingAndRepeatedKeysAreErrorsWithTheirLine) {
  const std::string text = tiny();
  const int64_t lines = std::count(text.begin(), text.end(), '\n');
  EXPECT_NE(message_of(tiny() + "hiden_size: 3\n")
                .find(concat("test.yml:", lines + 1, ": unknown key 'hiden_size'")),
            std::string::npos);
  EXPECT_NE(message_of(tiny() + "vocab_size: 512\n")
                .find(concat("test.yml:", lines + 1, ": key 'vocab_size' appears twice, first on line 3")),
            std::string::npos);
  EXPECT_NE(message_of("vocab_size: 512\n").find("required key 'hidden_size' is missing"), std::string::npos);
  EXPECT_NE(message_of("vocab_size: 512\n? [1]\n: 2\n").find("test.yml:2"), std::string::npos);
  EXPECT_NE(message_of("a: 1\nb: [1, 2").find("test.yml:2:"), std::string::npos);
  EXPECT_NE(message_of("").find("expected a YAML mapping"), std::string::npos);
  EXPECT_NE(message_of("- 1\n").find("expected a YAML mapping"), std::string::npos);
  EXPECT_NE(message_of(tiny() + "---\na: 1\n").find("2 YAML documents"), std::string::npos);
  EXPECT_THROW(read_model_config("no/such.yml"), ConfigError);
}

TEST(ModelConfigTest, WrongTypesAndRangesAreErrorsWithTheirLine) {
  expect_refused("hidden_size", "wide", "expected an integer, got wide");
  expect_refused("hidden_size", "64.5", "expected an integer, got 64.5");
  expect_refused("hidden_size", "0", "must lie in 1..");
  expect_refused("num_layers", "99999999999", "must lie in 1..");
  expect_refused("hcl_layer_idxs", "[2, x]", "expected a list of layer numbers, got [2, x]");
  expect_refused("final_norm", "1.5", "expected True or False, got 1.5");
  expect_refused("eps", "[1]", "expected a number, got [1]");
  expect_refused("eps", "-1", "at least 0");
  expect_refused("eps", ".nan", "at least 0");
  expect_refused("rotary_emb_base", ".inf", "above 1");
  expect_refused("num_attention_heads", "5", "heads of an even dimension");
  expect_refused("num_attention_heads", "64", "heads of an even dimension");
  expect_refused("hcm_filter_groups", "5", "hidden_size 64 is no multiple of 5");
  expect_refused("hcs_filter_groups", "128", "must lie in 1..64");
}

TEST(ModelConfigTest, EveryLayerHasOneKind) {
  EXPECT_NE(message_of(with("hcl_layer_idxs", "[2]")).find("layer 6 is in none of"), std::string::npos);
  expect_refused("hcl_layer_idxs", "[2, 5]", "layer 5 is listed already, as hcm");
  expect_refused("hcl_layer_idxs", "[2, 2, 6]", "layer 2 is listed already, as hcl");
  expect_refused("attn_layer_idxs", "[3, 8]", "layer 8 does not exist; num_layers allows 0..7");
  expect_refused("attn_layer_idxs", "[-1]", "layer -1 does not exist");
}

TEST(ModelConfigTest, ValuesThatWouldComputeAnotherModelAreRefused) {
  const std::vector<std::pair<std::string, std::string>> others = {{"mlp_activation", "silu"},
                                                                   {"interleave", "False"},
                                                                   {"column_split_hyena", "True"},
                                                                   {"tie_embeddings", "False"},
                                                                   {"hyena_flip_x1x2", "True"},
                                                                   {"short_filter_bias", "True"},
                                                                   {"qkv_proj_bias", "True"},
                                                                   {"proj_groups", "2"},
                                                                   {"num_filters", "32"},
                                                                   {"hcl_filter_groups", "32"},
                                                                   {"hyena_filter_groups", "4"},
                                                                   {"use_flash_rmsnorm", "True"},
                                                                   {"use_flash_depthwise", "True"},
                                                                   {"use_flashfft", "True"},
                                                                   {"use_laughing_hyena", "True"},
                                                                   {"prefill_style", "recurrence"},
                                                                   {"tokenizer_type", "HFAutoTokenizer"},
                                                                   {"print_activations", "True"},
                                                                   {"log_intermediate_values", "True"}};
  for (const auto& [key, value] : others) expect_refused(key, value, "is supported, got " + value);
  const std::string scaled = tiny() + "rotary_emb_scaling_factor: 2\n";
  EXPECT_NE(message_of(scaled).find("has no effect unless use_interpolated_rotary_pos_emb is True"),
            std::string::npos);
  EXPECT_NE(message_of(scaled + "use_interpolated_rotary_pos_emb: False\n").find("has no effect"),
            std::string::npos);
  EXPECT_DOUBLE_EQ(parse_model_config(scaled + "use_interpolated_rotary_pos_emb: True\n", "").rotary_scaling,
                   2.0);
}

// Where these are missing the reference assumes another value than the released models have.
TEST(ModelConfigTest, KeysWithADangerousDefaultMustBeThere) {
  for (const std::string key : {"interleave", "column_split_hyena", "tie_embeddings", "qkv_proj_bias",
                                "hyena_out_proj_bias", "rotary_emb_base"})
    EXPECT_NE(message_of(with(key, "")).find("required key '" + key + "' is missing"), std::string::npos)
        << key;
}

TEST(ModelConfigTest, InnerMlpSizeIsDerivedWhereItIsMissing) {
  std::string text = with("inner_mlp_size", "");
  EXPECT_EQ(parse_model_config(text, "").inner_mlp_size, 176);  // 170 rounded up to a multiple of 16
  text.replace(text.find("model_parallel_size: 1"), 22, "model_parallel_size: 3");
  EXPECT_EQ(parse_model_config(text, "").inner_mlp_size, 192);  // of 48
  EXPECT_EQ(parse_model_config(with("model_parallel_size", "3"), "").inner_mlp_size, 172);
}

}  // namespace
}  // namespace focus::model
