#include "focus/model/work.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "focus/model/striped_hyena.h"
#include "focus/nn/parameter.h"

namespace focus::model {
namespace {

ModelConfig shipped(const std::string& name) {
  return read_model_config(std::string(FOCUS_SOURCE_DIR) + "/configs/models/" + name + ".yml");
}

double total(const std::vector<Operation>& operations, Unit unit) {
  double flop = 0;
  for (const Operation& o : operations) flop += o.unit == unit ? o.flop : 0;
  return flop;
}

const Operation& named(const std::vector<Operation>& operations, const std::string& name) {
  return *std::find_if(operations.begin(), operations.end(), [&](const auto& o) { return o.name == name; });
}

TEST(WorkTest, DenseProductsOf7BAreThoseOfItsMatrices) {
  // 32 blocks of four width x width matrices and three of width x 11008, and the unembedding.
  const double by_hand = 2.0 * (32.0 * (4 * 4096.0 * 4096 + 3 * 4096.0 * 11008) + 512 * 4096.0);
  EXPECT_EQ(dense_flop(shipped("evo2_7b_base")), by_hand);
  EXPECT_NEAR(by_hand, 12.96e9, 0.01e9);
}

TEST(WorkTest, ProductsOfAPassAreThoseOfTheModelsOwnMatrices) {
  for (const char* name : {"evo2_1b_base", "evo2_7b_base", "evo2_40b_base", "focus-small"}) {
    const ModelConfig config = shipped(name);
    const nn::DeferAllocation no_memory;
    const StripedHyena model(config);
    double matrices = 0, elements = 0;
    for (const auto& item : model.named_parameters()) {
      if (item.value().dim() == 2 && item.key().ends_with(".weight"))
        matrices += static_cast<double>(item.value().numel());
      elements += static_cast<double>(item.value().numel());
    }
    EXPECT_EQ(dense_flop(config), 2 * matrices) << name;
    const auto pass = forward_work(config, {.batch = 3, .length = 50, .predicted = 50});
    EXPECT_DOUBLE_EQ(total(pass, Unit::gemm), 150 * dense_flop(config)) << name;
    EXPECT_LT(matrices, elements);
  }
}

TEST(WorkTest, OneBaseReadsTheWeightsOnce) {
  const ModelConfig config = shipped("evo2_7b_base");
  double bytes = 0;
  for (const Operation& o : forward_work(config, {.predicted = 1}))
    bytes += o.unit == Unit::gemm ? o.bytes : 0;
  // bf16, and a few rows of activations beside them.
  EXPECT_GT(bytes, dense_flop(config));
  EXPECT_LT(bytes, 1.001 * dense_flop(config));
  double cut = 0;
  for (const Operation& o : forward_work(config, {.length = 4, .calls = 4, .predicted = 4}))
    cut += o.unit == Unit::gemm ? o.bytes : 0;
  EXPECT_DOUBLE_EQ(cut, 4 * bytes);
}

TEST(WorkTest, AttentionCountsWhatItIsShown) {
  const ModelConfig config = shipped("evo2_7b_base");
  const double length = 1e6, pairs = length * (length + 1) / 2;
  const auto pass = forward_work(
      config, {.length = static_cast<int64_t>(length), .pairs = pairs, .key_bytes = 2 * 4096 * 2 * length});
  // Five layers: a product with keys and one with values over half of length squared.
  EXPECT_NEAR(named(pass, "attention").flop, 5 * 2 * length * length * 4096, 1e12);
  EXPECT_EQ(named(pass, "attention").bytes, 5 * (4 * 4096 * 2 * length));
}

TEST(WorkTest, HyenaMixersMoveFourRowsAndTheScanSeven) {
  const ModelConfig config = shipped("evo2_7b_base");
  const double length = 8192, row = 4096 * 2;
  const auto pass = forward_work(config, {.length = 8192});
  EXPECT_EQ(named(pass, "hcs mixer").bytes, 9 * 4 * length * row);
  EXPECT_EQ(named(pass, "hcm mixer").bytes, 9 * 4 * length * row);
  EXPECT_EQ(named(pass, "hcl mixer").bytes, 9 * (7 * length * row + 4 * 16 * 4096 * 4 * length / 256));
  EXPECT_EQ(named(pass, "hcm mixer").flop, 9 * length * 4096 * (2 * 9 + 3 + 2 + 2 * 144));
}

TEST(WorkTest, BackwardLeavesFrozenWeightsAndTheFirstBlocksOut) {
  const ModelConfig config = shipped("evo2_7b_base");
  const Pass pass{.length = 1000, .predicted = 1000, .pairs = 5e5};
  const double unembedding = 2.0 * 512 * 4096 * 1000, block = (dense_flop(config) * 1000 - unembedding) / 32;
  // The first attention block is the fourth: 29 blocks have something to train below them.
  EXPECT_DOUBLE_EQ(total(backward_work(config, pass, false), Unit::gemm), 29 * block + unembedding);
  EXPECT_DOUBLE_EQ(total(backward_work(config, pass, true), Unit::gemm), 58 * block + unembedding);
  EXPECT_EQ(named(backward_work(config, pass, false), "backward: attention").flop,
            2.5 * named(forward_work(config, pass), "attention").flop);
  // Per base and Hyena block: two inputs of norms, three projections, two halves of the gate.
  EXPECT_EQ(saved_bytes(config, 2, false), 2.0 * (24 * (5 * 4096 + 2 * 11008) + 5 * (6 * 4096 + 2 * 11008)));
  EXPECT_EQ(saved_bytes(config, 2, true), 2.0 * (29 * 4096 + 6 * 4096 + 2 * 11008));
}

}  // namespace
}  // namespace focus::model
