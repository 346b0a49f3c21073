#include "focus/weights/model_shape.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <numeric>
#include <set>

#include "focus/formats/safetensors_writer.h"
#include "focus/model/parameter_list.h"
#include "focus/weights/random_weights.h"
#include "support/golden.h"

namespace focus::weights {

using formats::DType;
using formats::TensorFile;
using formats::TensorView;

namespace {

std::vector<TensorView> llama(const std::vector<float>& memory) {
  const auto view = [&](const std::string& name, std::vector<int64_t> shape) {
    return TensorView{name, DType::float32, std::move(shape),
                      reinterpret_cast<const std::byte*>(memory.data())};
  };
  return {view("model.embed_tokens.weight", {40, 32}),
          view("model.layers.0.self_attn.q_proj.weight", {32, 32}),
          view("model.layers.0.self_attn.k_proj.weight", {16, 32}),
          view("model.layers.0.self_attn.q_norm.weight", {8}),
          view("model.layers.0.mlp.gate_proj.weight", {24, 32}),
          view("model.layers.11.mlp.gate_proj.weight", {24, 32}),
          view("lm_head.weight", {40, 32})};
}

std::shared_ptr<TensorFile> written(const std::vector<TensorView>& tensors,
                                    const std::map<std::string, std::string>& metadata = {}) {
  const auto path =
      std::filesystem::temp_directory_path() / ("focus-shape-" + std::to_string(::getpid()) + ".safetensors");
  write_safetensors(path, tensors, metadata);
  auto file = TensorFile::open(path);
  std::filesystem::remove(path);
  return file;
}

TEST(ModelShapeTest, ReadsEvo2ShapesOffTheTensors) {
  for (const std::string name : {"tiny7b", "tiny7b-1m"}) {
    const auto config = model::read_model_config(testing::golden_path("configs/" + name + ".yml"));
    const auto file = TensorFile::open(testing::golden_path("checkpoints/" + name + ".pt"));
    const ModelShape shape = guess_shape(*file);
    EXPECT_EQ(shape.kind, ModelKind::evo2);
    EXPECT_EQ(shape.vocab_size, config.vocab_size);
    EXPECT_EQ(shape.hidden_size, config.hidden_size);
    EXPECT_EQ(shape.num_layers, config.num_layers);
    EXPECT_EQ(shape.num_heads, config.num_heads);
    EXPECT_EQ(shape.head_dim, config.hidden_size / config.num_heads);
    EXPECT_EQ(shape.inner_mlp_size, config.inner_mlp_size);
    EXPECT_EQ(shape.input_taps, config.input_taps);
    EXPECT_EQ(shape.hcs_groups, config.hcs_groups);
    EXPECT_EQ(shape.hcs_taps, config.hcs_taps);
    EXPECT_EQ(shape.hcm_groups, config.hcm_groups);
    EXPECT_EQ(shape.hcm_taps, config.hcm_taps);
    EXPECT_EQ(shape.state_size, config.state_size);
    EXPECT_NEAR(shape.rotary_base, config.rotary_base, 1);
    EXPECT_TRUE(shape.own_unembedding);
    EXPECT_EQ(shape.num_parameters, model::StripedHyena(config).num_parameters());
    ASSERT_EQ(shape.blocks.size(), config.blocks.size());
    for (std::size_t i = 0; i < shape.blocks.size(); ++i)
      EXPECT_EQ(shape.blocks[i], model::name_of(config.blocks[i])) << i;
    EXPECT_TRUE(mismatches(*file, config).empty());
  }
}

TEST(ModelShapeTest, NamesEveryMismatch) {
  auto config = model::read_model_config(testing::golden_path("configs/tiny7b.yml"));
  const auto file = TensorFile::open(testing::golden_path("checkpoints/tiny7b.pt"));
  config.inner_mlp_size = 176;
  EXPECT_EQ(mismatches(*file, config).size(), 3U * 8U);
  EXPECT_NE(
      mismatches(*file, config).front().find("blocks.0.mlp.l1.weight: [172, 64] in the file, [176, 64]"),
      std::string::npos);
  config.inner_mlp_size = 172;
  // Frequencies are values: same shape, another model.
  config.rotary_base = 1e6;
  ASSERT_EQ(mismatches(*file, config).size(), 2U);
  EXPECT_NE(mismatches(*file, config).front().find("rotary base 10000 in the file"), std::string::npos);
  config.rotary_base = 1e4;
  config.attention_out_bias = false;
  ASSERT_EQ(mismatches(*file, config).size(), 2U);
  EXPECT_NE(mismatches(*file, config).front().find("out_proj.bias: not in the configuration"),
            std::string::npos);
  config.attention_out_bias = true;
  config.qkv_bias = true;
  ASSERT_EQ(mismatches(*file, config).size(), 2U);
  EXPECT_NE(mismatches(*file, config).front().find("missing in the file"), std::string::npos);
}

/// The tensors of a configuration without their numbers, but for the rotary frequencies.
class ShapesOnly final : public TensorFile {
 public:
  explicit ShapesOnly(const model::ModelConfig& config) {
    for (auto& spec : model::parameter_list(config)) {
      TensorView view{spec.name, spec.fp32 ? DType::float32 : DType::bfloat16, spec.shape};
      if (spec.buffer) {
        const double size = static_cast<double>(spec.shape[0]);
        for (int64_t i = 0; i < spec.shape[0]; ++i)
          frequencies_.push_back(
              static_cast<float>(std::pow(config.rotary_base, -static_cast<double>(i) / size)));
        place_.emplace_back(spec.name, frequencies_.size() - static_cast<std::size_t>(spec.shape[0]));
        continue;
      }
      add_tensor(view, "test");
    }
    for (const auto& [name, at] : place_)
      add_tensor({name,
                  DType::float32,
                  {config.hidden_size / config.num_heads / 2},
                  reinterpret_cast<const std::byte*>(frequencies_.data() + at)},
                 "test");
  }

 private:
  std::vector<float> frequencies_;
  std::vector<std::pair<std::string, std::size_t>> place_;
};

TEST(ModelShapeTest, ReleasedModelsFitTheirOwnConfigurationsOnly) {
  const std::vector<std::string> names = {"1b_base", "7b_base", "7b_262k",  "7b_microviridae",
                                          "7b",      "20b",     "40b_base", "40b"};
  const auto read = [](const std::string& name) {
    return model::read_model_config(std::string(FOCUS_SOURCE_DIR) + "/configs/models/evo2_" + name + ".yml");
  };
  for (const std::string& name : names) {
    const ShapesOnly file(read(name));
    std::set<std::string> fits;
    for (const std::string& other : names) {
      if (mismatches(file, read(other)).empty()) fits.insert(other);
    }
    const std::set<std::string> alike = {"7b_base", "7b_262k", "7b_microviridae"};
    EXPECT_EQ(fits, alike.contains(name) ? alike : std::set<std::string>{name}) << name;
    const ModelShape shape = guess_shape(file);
    EXPECT_EQ(shape.head_dim, 128);
    EXPECT_NEAR(shape.rotary_base, read(name).rotary_base, 1e-3 * read(name).rotary_base);
    int64_t parameters = 0;
    for (const auto& spec : model::parameter_list(read(name))) {
      if (!spec.buffer)
        parameters += std::accumulate(spec.shape.begin(), spec.shape.end(), int64_t{1}, std::multiplies<>());
    }
    EXPECT_EQ(shape.num_parameters, parameters);
  }
}

TEST(ModelShapeTest, ABlockOfNoKindIsSaid) {
  const auto config = model::read_model_config(testing::golden_path("configs/tiny7b.yml"));
  const RandomWeights checkpoint(config, {});
  std::vector<TensorView> tensors = checkpoint.tensors();
  std::erase_if(tensors, [](const TensorView& t) { return t.name.starts_with("blocks.4.filter."); });
  const ModelShape shape = guess_shape(*written(tensors));
  EXPECT_EQ(shape.blocks.at(4), "?");
  EXPECT_EQ(shape.blocks.at(0), "hcs");
}

TEST(ModelShapeTest, TellsLlamaAdapterAndUnknownApart) {
  const std::vector<float> memory(2000, 0.5F);
  const ModelShape shape = guess_shape(*written(llama(memory)));
  EXPECT_EQ(shape.kind, ModelKind::llama);
  EXPECT_EQ(shape.vocab_size, 40);
  EXPECT_EQ(shape.hidden_size, 32);
  EXPECT_EQ(shape.num_layers, 12);
  EXPECT_EQ(shape.num_heads, 4);
  EXPECT_EQ(shape.num_key_value_heads, 2);
  EXPECT_EQ(shape.inner_mlp_size, 24);
  EXPECT_TRUE(shape.own_unembedding);
  const TensorView one{"x", DType::float32, {3}, reinterpret_cast<const std::byte*>(memory.data())};
  EXPECT_EQ(guess_shape(*written({one})).kind, ModelKind::unknown);
  EXPECT_EQ(guess_shape(*written({one}, {{"format", "focus-adapter-1"}})).kind, ModelKind::focus_adapter);
}

}  // namespace
}  // namespace focus::weights
