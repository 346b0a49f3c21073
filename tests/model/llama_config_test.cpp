#include "focus/model/llama_config.h"

#include <gtest/gtest.h>

#include "focus/core/error.h"
#include "focus/model/llama.h"

namespace focus::model {
namespace {

/// A configuration as version 4 of the reference writes it, with more keys.
std::string llama(const std::string& more = "") {
  return R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 256, "hidden_size": 64, "intermediate_size": 128,
             "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 8192, "torch_dtype": "bfloat16",
             "hidden_act": "silu", "use_cache": true, "initializer_range": 0.02, "transformers_version": "4.40.0")" +
         (more.empty() ? "" : ", " + more) + "}";
}

std::string other(const std::string& architecture, const std::string& more = "") {
  return R"({"architectures": [")" + architecture +
         R"("], "vocab_size": 256, "hidden_size": 64, "intermediate_size": 128,
             "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 8192)" +
         (more.empty() ? "" : ", " + more) + "}";
}

LlamaConfig read(const std::string& json) { return parse_llama_config(json, "config.json"); }

std::string refusal(const std::string& json) {
  try {
    read(json);
  } catch (const ConfigError& e) {
    return e.what();
  }
  return "accepted";
}

#define EXPECT_REFUSED(json, part) EXPECT_NE(refusal(json).find(part), std::string::npos) << refusal(json)

TEST(LlamaConfigTest, ReadsEachArchitecture) {
  const LlamaConfig c = read(llama());
  EXPECT_EQ(c.num_kv_heads, 4);
  EXPECT_EQ(c.head_dim, 16);
  EXPECT_DOUBLE_EQ(c.eps, 1e-6);
  EXPECT_DOUBLE_EQ(c.rotary_base, 10000.0);
  EXPECT_FALSE(c.tied || c.qkv_bias || c.out_bias || c.mlp_bias);
  const LlamaConfig biased =
      read(llama(R"("attention_bias": true, "mlp_bias": true, "head_dim": 24, "tie_word_embeddings": true)"));
  EXPECT_TRUE(biased.qkv_bias && biased.out_bias && biased.mlp_bias && biased.tied);
  EXPECT_EQ(biased.head_dim, 24);
  const LlamaConfig qwen = read(other(
      "Qwen2ForCausalLM", R"("sliding_window": 128, "use_sliding_window": false, "max_window_layers": 1)"));
  EXPECT_TRUE(qwen.qkv_bias && !qwen.out_bias);
  EXPECT_EQ(qwen.num_kv_heads, 2);
  EXPECT_FALSE(read(other("MistralForCausalLM", R"("sliding_window": null)")).qkv_bias);
}

TEST(LlamaConfigTest, UnknownMissingRepeatedAndMistypedKeysAreErrors) {
  EXPECT_REFUSED(llama(R"("rotary_pct": 0.5)"), "unknown key 'rotary_pct'");
  EXPECT_REFUSED("{\"architectures\": [\"LlamaForCausalLM\"]}", "'vocab_size' is missing");
  EXPECT_REFUSED(llama(R"("hidden_size": 64)"), "'hidden_size' appears twice");
  EXPECT_REFUSED(llama(R"("rms_norm_eps": "small")"), "'rms_norm_eps' must be a number");
  EXPECT_REFUSED(llama(R"("num_key_value_heads": 2.5)"), "'num_key_value_heads' must be a whole number");
  EXPECT_REFUSED("[]", "expected an object");
  EXPECT_REFUSED("{", "not valid JSON");
  EXPECT_THROW(read_llama_config("no/such/config.json"), ConfigError);
}

TEST(LlamaConfigTest, WhatWouldComputeOtherNumbersIsRefused) {
  EXPECT_REFUSED(other("GPTNeoXForCausalLM"), "GPTNeoXForCausalLM");
  EXPECT_REFUSED(llama(R"("hidden_act": "gelu")").replace(llama().find("\"hidden_act\": \"silu\", "), 22, ""),
                 "hidden_act");
  EXPECT_REFUSED(llama(R"("pretraining_tp": 2)"), "pretraining_tp");
  EXPECT_REFUSED(llama(R"("quantization_config": {"bits": 4})"), "quantization_config");
  EXPECT_REFUSED(llama(R"("auto_map": {"AutoModel": "x.py"})"), "auto_map");
  EXPECT_REFUSED(llama(R"("partial_rotary_factor": 0.5)"), "partial_rotary_factor");
  EXPECT_REFUSED(llama(R"("num_key_value_heads": 3)"), "multiple of num_key_value_heads");
  EXPECT_REFUSED(llama(R"("head_dim": 15)"), "even number");
  EXPECT_REFUSED(other("MistralForCausalLM", R"("attention_bias": true)"), "attention_bias");
  EXPECT_REFUSED(other("MistralForCausalLM", R"("sliding_window": 4096)"), "sliding_window");
  EXPECT_EQ(refusal(other("MistralForCausalLM", R"("sliding_window": 8192)")), "accepted");
  EXPECT_REFUSED(other("Qwen2ForCausalLM", R"("use_sliding_window": true)"), "use_sliding_window");
  EXPECT_REFUSED(other("Qwen2ForCausalLM", R"("layer_types": ["full_attention", "sliding_attention"])"),
                 "layer_types");
  EXPECT_EQ(refusal(other("Qwen2ForCausalLM", R"("layer_types": ["full_attention", "full_attention"])")),
            "accepted");
}

TEST(LlamaConfigTest, RotaryScalingInBothSpellings) {
  const std::string details =
      R"("factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 512)";
  const LlamaConfig old_style =
      read(llama(R"("rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", )" + details + "}"));
  const LlamaConfig new_style =
      read(llama(R"("rope_parameters": {"rope_theta": 500000.0, "rope_type": "llama3", )" + details + "}"));
  EXPECT_DOUBLE_EQ(new_style.rotary_base, 500000.0);
  EXPECT_EQ(new_style.rotary_scaling, RotaryScaling::llama3);
  EXPECT_TRUE(at::equal(llama_frequencies(old_style), llama_frequencies(new_style)));
  const LlamaConfig linear = read(llama(R"("rope_scaling": {"type": "linear", "factor": 4.0})"));
  EXPECT_TRUE(at::equal(llama_frequencies(linear), llama_frequencies(read(llama())) / 4.0));
  EXPECT_EQ(read(llama(R"("rope_scaling": null)")).rotary_scaling, RotaryScaling::none);
  EXPECT_REFUSED(llama(R"("rope_scaling": {"type": "dynamic", "factor": 4.0})"),
                 "'dynamic' is not supported");
  EXPECT_REFUSED(llama(R"("rope_scaling": {"rope_type": "yarn", "factor": 4.0})"), "'yarn' is not supported");
  EXPECT_REFUSED(llama(R"("rope_scaling": {"rope_type": "linear", "factor": 4.0, "beta_fast": 1})"),
                 "unknown key 'beta_fast'");
  EXPECT_REFUSED(llama(R"("rope_scaling": {"rope_type": "linear"})"), "'factor' is missing");
  EXPECT_REFUSED(llama(R"("rope_theta": 1e4, "rope_parameters": {"rope_theta": 5e5})"),
                 "two different values");
  EXPECT_REFUSED(
      llama(R"("rope_scaling": {"type": "linear", "factor": 2}, "rope_parameters": {"rope_theta": 5e5})"),
      "keep one");
  EXPECT_REFUSED(llama(R"("rope_parameters": {"full_attention": {"rope_theta": 5e5}})"),
                 "unknown key 'full_attention'");
}

}  // namespace
}  // namespace focus::model
