#include "focus/weights/random_weights.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <set>

#include "focus/core/error.h"
#include "focus/formats/fp8_state.h"
#include "focus/formats/safetensors_writer.h"
#include "focus/formats/torch_archive_writer.h"
#include "focus/weights/load_model.h"
#include "focus/weights/tensor_view.h"
#include "support/golden.h"

namespace focus::weights {

using formats::DType;
using formats::TensorFile;
using formats::TensorView;

namespace {

using at::Tensor;
using model::BlockKind;
using model::ModelConfig;

ModelConfig tiny() { return model::read_model_config(testing::golden_path("configs/tiny7b.yml")); }

/// All kinds of layers in turn, as many as the largest released model has.
ModelConfig deep() {
  ModelConfig c = tiny();
  c.num_layers = 50;
  c.blocks.clear();
  for (int64_t i = 0; i < c.num_layers; ++i) c.blocks.push_back(static_cast<BlockKind>(i % 4));
  return c;
}

/// Through a file, as a user's program reads it: strictly.
std::shared_ptr<model::StripedHyena> loaded(const ModelConfig& config, const RandomWeights& checkpoint,
                                            const std::string& extension) {
  const auto path = std::filesystem::temp_directory_path() / concat("focus-random-", ::getpid(), extension);
  extension == ".pt" ? write_torch_archive(path, checkpoint.tensors())
                     : write_safetensors(path, checkpoint.tensors());
  auto model = std::make_shared<model::StripedHyena>(config);
  const auto report = load_weights(*model, TensorFile::open(path), {});
  std::filesystem::remove(path);
  EXPECT_TRUE(report.ignored.empty());
  return model;
}

TEST(RandomWeightsTest, AModelWithoutAFileHasTheFilesNumbers) {
  const auto expected = loaded(tiny(), RandomWeights(tiny(), {.seed = 5}), ".pt")->named_parameters();
  for (const bool writable : {true, false}) {
    const LoadedModel made =
        random_model(testing::golden_path("configs/tiny7b.yml"), 5, {.writable = writable}, "cpu");
    EXPECT_EQ(made.precision, "fp32");
    const auto parameters = made.model->named_parameters();
    ASSERT_EQ(parameters.size(), expected.size());
    for (const auto& item : expected) {
      EXPECT_TRUE(at::equal(parameters[item.key()], item.value())) << item.key();
      EXPECT_FALSE(parameters[item.key()].requires_grad());
    }
  }
}

TEST(RandomWeightsTest, ACheckpointIsReadIntoOwnMemoryWhereThatIsAskedFor) {
  const auto path =
      std::filesystem::temp_directory_path() / concat("focus-random-", ::getpid(), ".safetensors");
  const RandomWeights checkpoint(tiny(), {.seed = 5, .dtype = DType::bfloat16});
  write_safetensors(path, checkpoint.tensors());
  const auto load = [&](bool own_memory) {
    return load_model(testing::golden_path("configs/tiny7b.yml"), path, at::kBFloat16, "cpu", Fp8::off,
                      own_memory);
  };
  const LoadedModel own = load(true), mapped = load(false);
  std::filesystem::remove(path);
  const at::NoGradGuard guard;
  const auto expected = mapped.model->named_parameters();
  for (const auto& item : own.model->named_parameters()) {
    ASSERT_TRUE(at::equal(item.value(), expected[item.key()])) << item.key();
    item.value().add_(1);  // the mapping may not be written to
    EXPECT_FALSE(at::equal(item.value(), expected[item.key()])) << item.key();
  }
}

TEST(RandomWeightsTest, FiftyLayersStayFiniteAndSayDifferentThings) {
  const at::NoGradGuard guard;
  for (const ModelConfig& config :
       {tiny(), model::read_model_config(testing::golden_path("configs/tiny7b-1m.yml")), deep()}) {
    for (const DType dtype : {DType::bfloat16, DType::float32}) {
      const auto model = loaded(config, RandomWeights(config, {.seed = 1, .dtype = dtype}),
                                dtype == DType::bfloat16 ? ".pt" : ".safetensors");
      at::manual_seed(3);
      const Tensor tokens =
          at::tensor({65, 67, 71, 84}, at::kLong).index({at::randint(0, 4, {1, 700}, at::kLong)});
      for (const auto type : {at::kFloat, at::kBFloat16}) {
        model->cast(type);
        const Tensor logits = model->forward(tokens).to(at::kFloat)[0];
        ASSERT_TRUE(at::isfinite(logits).all().item<bool>()) << config.num_layers;
        const double spread = logits.std().item<double>();
        EXPECT_GT(spread, 0.5) << config.num_layers;
        EXPECT_LT(spread, 8.0) << config.num_layers;
        // They depend on the position and on what came before, not only on the last base.
        EXPECT_GT((logits.slice(0, 1) - logits.slice(0, 0, -1)).abs().mean().item<double>(), 0.1);
        Tensor other = tokens.clone();
        other.narrow(1, 0, 350).copy_(tokens.narrow(1, 0, 350).flip(1));
        EXPECT_GT((model->forward(other).to(at::kFloat)[0].narrow(0, 351, 20) - logits.narrow(0, 351, 20))
                      .abs()
                      .mean()
                      .item<double>(),
                  0.01);
      }
    }
  }
}

TEST(RandomWeightsTest, ResidualStreamGrowsSlowly) {
  const at::NoGradGuard guard;
  const ModelConfig config = deep();
  const RandomWeights checkpoint(config, {});
  const auto model = loaded(config, checkpoint, ".pt");
  at::manual_seed(3);
  Tensor x = model->embed(at::randint(65, 85, {1, 300}, at::kLong));
  for (const auto& block : model->blocks->items) {
    x = block->forward(x, 0, nullptr, nullptr);
    EXPECT_LT(x.square().mean().sqrt().item<double>(), 12.0)
        << "after a block of kind " << model::name_of(block->kind());
  }
  EXPECT_GT(x.square().mean().sqrt().item<double>(), 0.5);
}

TEST(RandomWeightsTest, SameSeedSameNumbersAndNoSharedStorage) {
  const ModelConfig config = tiny();
  const RandomWeights a(config, {.seed = 5}), b(config, {.seed = 5}), c(config, {.seed = 6});
  std::set<const std::byte*> places;
  bool differs = false;
  for (std::size_t i = 0; i < a.tensors().size(); ++i) {
    const TensorView &first = a.tensors()[i], &again = b.tensors()[i], &other = c.tensors()[i];
    EXPECT_EQ(std::memcmp(first.data, again.data, static_cast<std::size_t>(first.num_bytes())), 0)
        << first.name;
    differs =
        differs || std::memcmp(first.data, other.data, static_cast<std::size_t>(first.num_bytes())) != 0;
    EXPECT_TRUE(places.insert(first.data).second) << first.name << " shares its storage";
  }
  EXPECT_TRUE(differs);
  // Layers differ from each other as well.
  const auto named = [&](const std::string& name) {
    for (const TensorView& view : a.tensors()) {
      if (view.name == name) return as_tensor(view).to(at::kFloat);
    }
    fail<InternalError>(name);
  };
  EXPECT_FALSE(at::equal(named("blocks.0.mlp.l1.weight"), named("blocks.1.mlp.l1.weight")));
  EXPECT_NEAR(named("blocks.0.mlp.l1.weight").std().item<double>(), 0.7 / 8.0, 0.005);
  EXPECT_TRUE((named("blocks.2.filter.log_poles") < 0).all().item<bool>());
  EXPECT_TRUE((named("blocks.5.pre_norm.scale") == 1).all().item<bool>());
  EXPECT_THROW(RandomWeights(config, {.dtype = DType::float16}), ConfigError);
}

TEST(RandomWeightsTest, ShapesWithFp8ProjectionsGetScales) {
  ModelConfig config = tiny();
  config.fp8_input_projections = true;
  const auto scratch = std::filesystem::temp_directory_path() / concat("focus-random-state-", ::getpid());
  EXPECT_THROW(RandomWeights(config, {}), ConfigError);
  const RandomWeights checkpoint(config, {.scratch = scratch});
  EXPECT_FALSE(std::filesystem::exists(scratch));
  ASSERT_EQ(checkpoint.opaque().size(), 6U);
  EXPECT_EQ(checkpoint.opaque()[5].name, "blocks.6.projections._extra_state");
  std::string why_not;
  const auto state = formats::read_fp8_state(checkpoint.opaque()[0].content, "test", why_not);
  ASSERT_TRUE(state) << why_not;
  ASSERT_EQ(state->scale_fwd.size(), 3U);
  float largest = 0;
  for (const TensorView& view : checkpoint.tensors()) {
    if (view.name.ends_with("projections.weight"))
      largest = std::max(largest, as_tensor(view).to(at::kFloat).abs().max().item<float>());
  }
  // No weight leaves the range of E4M3, and most of it is used.
  EXPECT_LE(largest * state->scale_fwd[1], 448.0F);
  EXPECT_GT(largest * state->scale_fwd[1], 300.0F);
  EXPECT_TRUE(RandomWeights(tiny(), {}).opaque().empty());
}

}  // namespace
}  // namespace focus::weights
