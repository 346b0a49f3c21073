// Agreement with the reference's recordings (tests/golden/llama, made by scripts/make_llama_golden.py). fp32:
// within 2e-5 relative rms. bf16: no farther from the fp32 recording than 1.5 times the reference's own bf16
// run.
#include "focus/model/llama.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "focus/core/error.h"
#include "focus/formats/safetensors_writer.h"
#include "focus/weights/load_model.h"
#include "focus/weights/tensor_view.h"
#include "support/golden.h"
#include "support/tensors.h"

namespace focus::testing {
namespace {

using at::Tensor;

const std::vector<std::string> kCases = {"len1",   "len2",    "len7",       "len129",
                                         "len300", "len2100", "batch2_300", "any64"};

std::shared_ptr<model::Llama> load(const std::string& name, at::ScalarType dtype) {
  const std::string folder = golden_path("llama/" + name);
  return std::dynamic_pointer_cast<model::Llama>(weights::load_model(folder, folder, dtype, "cpu").model);
}

class LlamaTest : public ::testing::TestWithParam<std::string> {
 protected:
  at::NoGradGuard guard_;
  Golden golden_{"llama/" + GetParam()};
};

TEST_P(LlamaTest, Fp32LogitsOfAllInputs) {
  const auto model = load(GetParam(), at::kFloat);
  for (const auto& name : kCases) {
    const Tensor logits =
        model->forward(golden_["tokens." + name]).index_select(1, golden_["positions." + name]);
    EXPECT_LT(relative_rms(logits, golden_["logits." + name]), 2e-5) << name;
  }
}

TEST_P(LlamaTest, Bf16NoFartherFromFp32ThanTheReference) {
  const auto model = load(GetParam(), at::kBFloat16);
  for (const auto& name : kCases) {
    const Tensor logits =
        model->forward(golden_["tokens." + name]).index_select(1, golden_["positions." + name]);
    EXPECT_LE(relative_rms(logits.to(at::kFloat), golden_["logits." + name]),
              1.5 * golden_["bf16_error." + name].item<double>())
        << name;
  }
}

TEST_P(LlamaTest, HiddenStatesAfterEveryLayer) {
  const auto model = load(GetParam(), at::kFloat);
  const Tensor expected = golden_["hidden"], positions = golden_["positions.len300"];
  Tensor x = model->embed(golden_["tokens.len300"]);
  ASSERT_EQ(expected.size(0), model->num_blocks() + 1);
  for (int64_t i = 0; i < model->num_blocks(); ++i) {
    EXPECT_LT(relative_rms(x[0].index_select(0, positions), expected[i]), 2e-5) << "before layer " << i;
    x = model->block(i).forward(x, 0, nullptr, nullptr);
  }
  const Tensor last = model->model->norm->forward(x);
  EXPECT_LT(relative_rms(last[0].index_select(0, positions), expected[model->num_blocks()]), 2e-5);
}

TEST_P(LlamaTest, TwentyCachedSteps) {
  const auto model = load(GetParam(), at::kFloat);
  cache::StreamState state;
  model->forward(golden_["prompt"], &state);
  const Tensor steps = golden_["steps"], expected = golden_["step_logits"];
  for (int64_t s = 0; s < steps.size(1); ++s)
    EXPECT_LT(relative_rms(model->forward(steps.narrow(1, s, 1), &state).select(1, 0), expected.select(1, s)),
              2e-5)
        << s;
  EXPECT_EQ(state.position, 60);
}

TEST_P(LlamaTest, ChunksOfAnySizeEqualOnePass) {
  const auto model = load(GetParam(), at::kFloat);
  const Tensor tokens = golden_["tokens.batch2_300"], whole = model->forward(tokens);
  for (const int64_t chunk : {1, 3, 128, 129}) {
    cache::StreamState state;
    std::vector<Tensor> parts;
    for (int64_t t = 0; t < 300; t += chunk)
      parts.push_back(model->forward(tokens.narrow(1, t, std::min<int64_t>(chunk, 300 - t)), &state));
    EXPECT_LT(relative_rms(at::cat(parts, 1), whole), 2e-6) << "chunk " << chunk;
  }
}

TEST_P(LlamaTest, AForkedStreamLeavesItsOriginAlone) {
  const auto model = load(GetParam(), at::kFloat);
  const Tensor tokens = golden_["tokens.len300"];
  cache::StreamState state;
  model->forward(tokens.narrow(1, 0, 50), &state);
  cache::StreamState fork = state.clone();
  const Tensor first = model->forward(tokens.narrow(1, 50, 30), &fork);
  model->forward(tokens.narrow(1, 100, 30), &fork);
  EXPECT_TRUE(at::equal(model->forward(tokens.narrow(1, 50, 30), &state), first));
}

INSTANTIATE_TEST_SUITE_P(Models, LlamaTest, ::testing::Values("bytes", "letters"),
                         [](const auto& model) { return model.param; });

TEST(LlamaShapeTest, FromTheFiles) {
  const auto bytes = load("bytes", at::kBFloat16), letters = load("letters", at::kFloat);
  EXPECT_EQ(bytes->shape().num_kv_heads, 2);
  EXPECT_EQ(bytes->shape().head_dim, 16);
  EXPECT_EQ(bytes->shape().width, 48);
  EXPECT_EQ(bytes->shape().name, "bytes");
  EXPECT_EQ(bytes->vocabulary().bases, (std::array<int32_t, 4>{'A', 'C', 'G', 'T'}));
  EXPECT_EQ(letters->vocabulary().bases, (std::array<int32_t, 4>{5, 6, 7, 8}));
  EXPECT_EQ(letters->lm_head, nullptr);
  EXPECT_EQ(letters->shape().num_kv_heads, 1);
  EXPECT_EQ(bytes->attention_blocks().size(), 4U);
  EXPECT_FALSE(bytes->parameters()[0].requires_grad());
}

// ---- Checkpoints that do not fit.

class LlamaCheckpointTest : public ::testing::Test {
 protected:
  LlamaCheckpointTest()
      : folder_(std::filesystem::temp_directory_path() / ("focus-llama-" + std::to_string(::getpid()))) {
    std::filesystem::remove_all(folder_);
    std::filesystem::copy(golden_path("llama/letters"), folder_);
  }
  ~LlamaCheckpointTest() override { std::filesystem::remove_all(folder_); }

  /// Writes the weights again after `change`.
  void rewrite(const std::function<void(std::map<std::string, Tensor>&)>& change) const {
    std::map<std::string, Tensor> tensors;
    {
      const auto file = formats::TensorFile::open(folder_);
      for (const auto& view : file->tensors()) tensors.emplace(view.name, weights::as_tensor(view).clone());
    }
    change(tensors);
    std::vector<formats::TensorView> views;
    for (const auto& [name, tensor] : tensors) views.push_back(weights::as_view(name, tensor));
    formats::write_safetensors(folder_ / "model.safetensors", views);
  }
  std::string refusal() const {
    try {
      weights::load_model("", folder_.string(), at::kFloat, "cpu");
    } catch (const WeightsError& e) {
      return e.what();
    }
    return "";
  }
  std::filesystem::path folder_;
};

TEST_F(LlamaCheckpointTest, MissingUnexpectedAndMisshapenTensorsAreListed) {
  EXPECT_EQ(refusal(), "");
  rewrite([](auto& tensors) {
    tensors.erase("model.norm.weight");
    tensors.erase("model.layers.1.self_attn.k_proj.bias");
    tensors["model.layers.0.extra"] = at::ones({2});
    tensors["model.layers.2.mlp.up_proj.weight"] = at::ones({3, 4});
  });
  const std::string message = refusal();
  for (const char* part :
       {"missing from the file (2)", "model.norm.weight", "k_proj.bias", "unexpected in the file (1)",
        "model.layers.0.extra", "model.layers.2.mlp.up_proj.weight: file [3, 4], config [64, 32]"})
    EXPECT_NE(message.find(part), std::string::npos) << part << " in: " << message;
}

TEST_F(LlamaCheckpointTest, StoredRotaryFrequenciesAreIgnored) {
  rewrite([](auto& tensors) { tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = at::zeros({4}); });
  EXPECT_EQ(refusal(), "");
  at::NoGradGuard guard;
  const Golden golden("llama/letters");
  const auto model = weights::load_model("", folder_.string(), at::kFloat, "cpu").model;
  EXPECT_LT(relative_rms(model->forward(golden["tokens.len7"]).index_select(1, golden["positions.len7"]),
                         golden["logits.len7"]),
            2e-5);
}

TEST_F(LlamaCheckpointTest, ATiedUnembeddingMayBeStoredIfItIsTheEmbedding) {
  rewrite([](auto& tensors) { tensors["lm_head.weight"] = tensors.at("model.embed_tokens.weight").clone(); });
  EXPECT_EQ(refusal(), "");
  rewrite([](auto& tensors) { tensors["lm_head.weight"][0][0] += 1; });
  EXPECT_NE(refusal().find("tie_word_embeddings"), std::string::npos);
}

TEST_F(LlamaCheckpointTest, TheConfigurationIsFoundOrAskedFor) {
  EXPECT_THROW(weights::load_model("", (folder_ / "model.safetensors").string(), at::kFloat, "cpu"),
               ConfigError);
  const auto by_file = weights::load_model((folder_ / "config.json").string(),
                                           (folder_ / "model.safetensors").string(), at::kFloat, "cpu");
  EXPECT_EQ(by_file.model->shape().vocab_size, 12);
  std::filesystem::remove(folder_ / "config.json");
  EXPECT_THROW(weights::load_model(folder_.string(), folder_.string(), at::kFloat, "cpu"), ConfigError);
}

}  // namespace
}  // namespace focus::testing
