// Models whose input projections run in FP8: the scales of the golden checkpoint's `_extra_state` entries,
// which the recordings ignore.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "focus/core/error.h"
#include "focus/core/file.h"
#include "focus/formats/fp8_state.h"
#include "focus/formats/safetensors_writer.h"
#include "focus/model/striped_hyena.h"
#include "focus/weights/load_model.h"
#include "support/golden.h"
#include "support/tensors.h"

namespace focus::testing {
namespace {

using at::Tensor;

class Fp8ModelTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string yaml = read_file(golden_path("configs/tiny1b.yml"));
    const std::string off = "use_fp8_input_projections: False";
    ASSERT_NE(yaml.find(off), std::string::npos);
    yaml.replace(yaml.find(off), off.size(), "use_fp8_input_projections: True");
    config_ = (std::filesystem::path(::testing::TempDir()) / "tiny1b-fp8.yml").string();
    std::ofstream(config_) << yaml;
  }
  weights::LoadedModel load(const std::string& checkpoint, weights::Fp8 fp8,
                            at::ScalarType dtype = at::kFloat) const {
    return weights::load_model(config_, checkpoint, dtype, "cpu", fp8);
  }
  std::string config_, checkpoint_ = golden_path("checkpoints/tiny1b.pt");
  at::NoGradGuard guard_;
};

TEST_F(Fp8ModelTest, TakesItsScalesFromTheCheckpointAndSaysSo) {
  const auto loaded = load(checkpoint_, weights::Fp8::emulate);
  EXPECT_NE(loaded.precision.find("FP8 (e4m3, emulated)"), std::string::npos) << loaded.precision;
  const auto file = formats::TensorFile::open(checkpoint_);
  const auto& model = dynamic_cast<const model::StripedHyena&>(*loaded.model);
  for (std::size_t i = 0; i < model.blocks->items.size(); ++i) {
    const auto& projections = model.blocks->items[i]->projections;
    if (!projections) continue;
    std::string why;
    const auto state = formats::read_fp8_state(
        *file->opaque(concat("blocks.", i, ".projections._extra_state")), "test", why);
    ASSERT_TRUE(state.has_value()) << why;
    ASSERT_TRUE(projections->fp8().has_value());
    EXPECT_EQ(projections->fp8()->input, static_cast<double>(state->scale_fwd[0]));
    EXPECT_EQ(projections->fp8()->weight, static_cast<double>(state->scale_fwd[1]));
  }
}

TEST_F(Fp8ModelTest, RoundingIsNeverLeftOutSilently) {
  const Golden golden("tiny1b.logits.fp32");
  const Tensor tokens = golden["tokens.len64"], recorded = golden["logits.len64"];
  const auto off = load(checkpoint_, weights::Fp8::off);
  EXPECT_NE(off.precision.find("OFF"), std::string::npos) << off.precision;
  EXPECT_LT(relative_rms(off.model->forward(tokens), recorded), 2e-5);
  const double rounding =
      relative_rms(load(checkpoint_, weights::Fp8::emulate).model->forward(tokens), recorded);
  EXPECT_GT(rounding, 1e-3) << "e4m3 has three bits of mantissa";
  EXPECT_LT(rounding, 1.0);
}

TEST_F(Fp8ModelTest, ChunkedEqualsWhole) {
  const auto model = load(checkpoint_, weights::Fp8::emulate).model;
  const Tensor tokens = Golden("tiny1b.logits.fp32")["tokens.len64"];
  const Tensor whole = model->forward(tokens);
  cache::StreamState state;
  const Tensor parts = at::cat(
      {model->forward(tokens.narrow(1, 0, 21), &state), model->forward(tokens.narrow(1, 21, 43), &state)}, 1);
  // A base whose input falls on a rounding boundary of e4m3 may land on the other side; nothing else may
  // move.
  EXPECT_LT(relative_rms(parts, whole), 2e-2);
}

TEST_F(Fp8ModelTest, ACheckpointWithoutScalesIsRefused) {
  const auto file = formats::TensorFile::open(checkpoint_);
  const std::string bare = (std::filesystem::path(::testing::TempDir()) / "no-scales.safetensors").string();
  formats::write_safetensors(bare, file->tensors());
  try {
    load(bare, weights::Fp8::emulate);
    FAIL() << "loaded";
  } catch (const WeightsError& e) {
    EXPECT_NE(std::string(e.what()).find("--fp8 off"), std::string::npos) << e.what();
  }
  EXPECT_NO_THROW(load(bare, weights::Fp8::off));
}

}  // namespace
}  // namespace focus::testing
