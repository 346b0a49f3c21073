// Checkpoints of one model may hold norms and medium filters in bf16 or fp32; what they compute does not
// depend on it.
#include <functional>

#include "focus/weights/load_model.h"
#include "focus/weights/tensor_view.h"
#include "support/golden.h"
#include "support/tensors.h"

namespace focus::testing {
namespace {

using at::Tensor;
using formats::TensorFile;

/// A golden checkpoint whose tensors went through `convert`, in memory.
class ConvertedFile final : public TensorFile {
 public:
  ConvertedFile(const std::string& name,
                const std::function<Tensor(const std::string&, const Tensor&)>& convert) {
    const auto source = TensorFile::open(golden_path("checkpoints/" + name + ".pt"));
    format_ = source->format();
    for (const auto& entry : source->opaque()) add_opaque({entry.name, entry.kind, {}}, name);
    for (const auto& view : source->tensors()) {
      alive_.push_back(convert(view.name, weights::as_tensor(view)).clone());
      add_tensor(weights::as_view(view.name, alive_.back()), name);
    }
  }

 private:
  std::vector<Tensor> alive_;
};

std::shared_ptr<model::StripedHyena> loaded(const std::string& name, const std::shared_ptr<TensorFile>& file,
                                            at::ScalarType dtype = at::kFloat) {
  auto model = std::make_shared<model::StripedHyena>(
      model::read_model_config(golden_path("configs/" + name + ".yml")));
  weights::load_weights(*model, file, {.dtype = dtype});
  model->set_trainable(false);
  return model;
}

Tensor tokens() { return Golden("tiny7b.logits.fp32")["tokens.len300"]; }
bool is_frequency(const std::string& name) { return name.ends_with("inv_freq"); }

class CheckpointTypesTest : public ::testing::TestWithParam<std::string> {};

TEST_P(CheckpointTypesTest, NormsAndMediumFiltersMayHaveEither) {
  at::NoGradGuard guard;
  const Tensor expected = golden_model(GetParam(), at::kFloat)->forward(tokens());
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    int64_t converted = 0;
    const auto file =
        std::make_shared<ConvertedFile>(GetParam(), [&](const std::string& name, const Tensor& value) {
          if (!name.ends_with("norm.scale") && !name.ends_with("filter.h")) return value;
          converted += value.scalar_type() != type ? 1 : 0;
          return value.to(type);
        });
    EXPECT_GT(converted, 0) << "to " << type;  // each file has one of the two in fp32
    EXPECT_TRUE(at::equal(loaded(GetParam(), file)->forward(tokens()), expected)) << "to " << type;
  }
}

TEST_P(CheckpointTypesTest, RotaryFrequenciesAreReadAndUsedAsTheyAre) {
  at::NoGradGuard guard;
  const auto original = golden_model(GetParam(), at::kFloat);
  const Tensor stored = original->blocks->items[3]->inner_mha_cls->rotary_emb->inv_freq;
  const Tensor changed = stored * 0.75 + 0.01, rounded = stored.to(at::kBFloat16);
  ASSERT_FALSE(at::equal(rounded.to(at::kFloat), stored));
  const auto with = [&](const Tensor& frequencies, at::ScalarType dtype) {
    return loaded(GetParam(),
                  std::make_shared<ConvertedFile>(GetParam(),
                                                  [&](const auto& name, const auto& value) {
                                                    return is_frequency(name) ? frequencies : value;
                                                  }),
                  dtype);
  };
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    for (const Tensor& frequencies : {changed, rounded}) {
      const Tensor used = with(frequencies, dtype)->blocks->items[3]->inner_mha_cls->rotary_emb->inv_freq;
      EXPECT_EQ(used.scalar_type(), at::kFloat);
      EXPECT_TRUE(at::equal(used, frequencies.to(at::kFloat)));
    }
  }
  const Tensor expected = original->forward(tokens()), got = with(rounded, at::kFloat)->forward(tokens());
  EXPECT_TRUE(at::equal(got, with(rounded.to(at::kFloat), at::kFloat)->forward(tokens())));
  EXPECT_GT(max_difference(got, expected),
            GetParam() == "tiny7b" ? 1e-2 : 1e-4);  // rounded ones are used, not recomputed
}

INSTANTIATE_TEST_SUITE_P(Models, CheckpointTypesTest, ::testing::Values("tiny7b", "tiny40b"),
                         [](const auto& model) { return model.param; });

// Released files hold medium filters of 256 or 512 groups; the reference rounds them to bf16 whatever the
// file says.
TEST(CheckpointRoundingTest, MediumFiltersAreRoundedOnLoad) {
  const auto file = TensorFile::open(golden_path("checkpoints/tiny7b.pt"));
  const Tensor stored = weights::as_tensor(*file->find("blocks.1.filter.h"));
  ASSERT_EQ(stored.scalar_type(), at::kFloat);
  const Tensor used = golden_model("tiny7b", at::kFloat)->blocks->items[1]->filter->h;
  EXPECT_FALSE(at::equal(used, stored));
  EXPECT_TRUE(at::equal(used, stored.to(at::kBFloat16).to(at::kFloat)));
}

// Counted in the manifest of the released evo2_40b.pt.
TEST(CheckpointRoundingTest, Tiny40bHasAsManyEntriesAsEvo240b) {
  const auto file = TensorFile::open(golden_path("checkpoints/tiny40b.pt"));
  EXPECT_EQ(file->tensors().size(), 537U);
  EXPECT_EQ(file->opaque_entries().size(), 258U);
  int64_t in_fp32 = 0;
  for (const auto& view : file->tensors()) in_fp32 += view.dtype == formats::DType::float32 ? 1 : 0;
  EXPECT_EQ(in_fp32, 137);
}

}  // namespace
}  // namespace focus::testing
