// Agreement with the reference's recordings (tests/golden/README.md). fp32: every stored logit within 2e-4 of the largest logit and 2e-5
// relative rms. bf16: no farther from the fp32 recording than 1.5 times the reference's own bf16 run.
#include <gtest/gtest.h>

#include "support/golden.h"
#include "support/tensors.h"

namespace focus::testing {
namespace {

using at::Tensor;
using at::indexing::Slice;

const std::vector<std::string> kCases = {"len1", "len2", "len3", "len7", "len64", "len300", "len1100", "len2500", "batch2_300", "bytes256"};

struct Stored {
  Tensor logits, acgt, logsumexp, tokens, positions;
};

Stored stored(const Golden& golden, const Golden& tokens_from, const std::string& name) {
  Stored out;
  out.tokens = tokens_from["tokens." + name];
  if (golden.has("logits." + name)) {
    out.logits = golden["logits." + name];
  } else {
    out.logits = golden["logits_at." + name];
    out.positions = tokens_from["pos." + name];
    out.acgt = golden["acgt." + name];
    out.logsumexp = golden["logsumexp." + name];
  }
  return out;
}

Tensor at_positions(const Tensor& logits, const Tensor& positions) {
  return positions.defined() ? logits.index_select(1, positions) : logits;
}

Tensor acgt_of(const Tensor& logits) {
  return logits.index_select(-1, at::tensor({int64_t{'A'}, int64_t{'C'}, int64_t{'G'}, int64_t{'T'}}));
}

class GoldenTest : public ::testing::TestWithParam<std::string> {};

TEST_P(GoldenTest, Fp32LogitsOfAllInputs) {
  at::NoGradGuard guard;
  const auto model = golden_model(GetParam(), at::kFloat);
  const Golden golden(GetParam() + ".logits.fp32");
  for (const auto& name : kCases) {
    const Stored expected = stored(golden, golden, name);
    const Tensor logits = model->forward(expected.tokens);
    const double largest = expected.logits.abs().max().item<double>();
    EXPECT_LT(max_difference(at_positions(logits, expected.positions), expected.logits), 2e-4 * largest) << name;
    EXPECT_LT(relative_rms(at_positions(logits, expected.positions), expected.logits), 2e-5) << name;
    if (expected.acgt.defined()) {
      EXPECT_LT(max_difference(acgt_of(logits), expected.acgt), 2e-4 * largest) << name;
      EXPECT_LT(max_difference(at::logsumexp(logits, -1), expected.logsumexp), 2e-4 * largest) << name;
    }
  }
}

TEST_P(GoldenTest, Bf16NoFartherFromFp32ThanTheReference) {
  at::NoGradGuard guard;
  const auto model = golden_model(GetParam(), at::kBFloat16);
  const Golden exact(GetParam() + ".logits.fp32"), rounded(GetParam() + ".logits.bf16");
  for (const auto& name : kCases) {
    const Stored truth = stored(exact, exact, name), reference = stored(rounded, exact, name);
    const Tensor logits = at_positions(model->forward(truth.tokens), truth.positions).to(at::kFloat);
    EXPECT_LE(relative_rms(logits, truth.logits), 1.5 * relative_rms(reference.logits.to(at::kFloat), truth.logits)) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenTest, ::testing::Values("tiny7b", "tiny7b-1m"),
                         [](const auto& model) { return model.param == "tiny7b" ? "tiny7b" : "tiny7b_1m"; });

TEST(GoldenBlocksTest, HiddenStatesAfterEveryBlock) {
  at::NoGradGuard guard;
  const auto model = golden_model("tiny7b", at::kFloat);
  const Golden hidden("tiny7b.hidden.fp32"), logits("tiny7b.logits.fp32");
  const Tensor expected = hidden["hidden"], positions = hidden["pos"];
  Tensor x = model->embed(logits["tokens.len300"]);
  const auto check = [&](const Tensor& got, int64_t row) {
    EXPECT_LT(max_difference(got[0].index_select(0, positions), expected[row]), 5e-4) << "row " << row;
  };
  check(x, 0);
  const auto& blocks = model->blocks->items;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    x = blocks[i]->forward(x, 0, nullptr, nullptr);
    check(x, static_cast<int64_t>(i) + 1);
  }
  check(model->norm->forward(x), expected.size(0) - 1);
}

TEST(GoldenBlocksTest, InsideOneBlockOfEachKind) {
  at::NoGradGuard guard;
  const auto model = golden_model("tiny7b", at::kFloat);
  const Golden golden("tiny7b.blocks.fp32"), logits("tiny7b.logits.fp32");
  Tensor x = model->embed(logits["tokens.len300"]);
  const Tensor positions = golden.has("pos") ? golden["pos"] : at::arange(300);
  const auto compare = [&](const std::string& name, const Tensor& got) {
    EXPECT_LT(max_difference(got[0].index_select(0, positions), golden[name]), 1e-3) << name;
  };
  for (int64_t i = 0; i < 4; ++i) {
    auto& block = *model->blocks->items[static_cast<std::size_t>(i)];
    const std::string at = std::to_string(i) + ".";
    compare(at + "in", x);
    const Tensor u = block.pre_norm->forward(x);
    compare(at + "pre_norm", u);
    if (i < 3) {
      compare(at + "projections", block.projections->forward(u));
    } else {
      const auto p = block.inner_mha_cls->project(u, at::arange(300));
      compare(at + "q_rope", p.q.transpose(1, 2).flatten(2));
      compare(at + "k_rope", p.k.transpose(1, 2).flatten(2));
    }
    x = block.forward(x, 0, nullptr, nullptr);
    compare(at + "out", x);
  }
}

class GoldenDecodeTest : public ::testing::Test {
 protected:
  at::NoGradGuard guard_;
  std::shared_ptr<model::StripedHyena> model_ = golden_model("tiny7b", at::kFloat);
  Golden golden_{"tiny7b.decode.fp32"};
};

TEST_F(GoldenDecodeTest, FortyGreedyAndForcedStepsAfterThePrompt) {
  for (const std::string kind : {"greedy", "forced"}) {
    cache::StreamState state;
    Tensor last = model_->forward(golden_["prompt"], &state).select(1, -1);
    EXPECT_LT(max_difference(last, golden_["prefill_last_logits"]), 1e-3);
    const Tensor tokens = golden_[kind + "_tokens"];
    const Tensor expected = golden_[kind == "greedy" ? "step_logits" : "forced_step_logits"];
    for (int64_t s = 0; s < tokens.size(1); ++s) {
      if (kind == "greedy") {
        EXPECT_EQ(last.argmax(-1).item<int64_t>(), tokens[0][s].item<int64_t>()) << s;
      }
      last = model_->forward(tokens.narrow(1, s, 1), &state).select(1, -1);
      EXPECT_LT(max_difference(last, expected.select(1, s)), 1e-3) << kind << " step " << s;
    }
  }
}

TEST_F(GoldenDecodeTest, StatesAfterThePromptAndAfterTheSteps) {
  cache::StreamState state;
  model_->forward(golden_["prompt"], &state);
  const auto compare = [&](const std::string& when) {
    for (std::size_t i = 0; i < state.layers.size(); ++i) {
      const std::string at = when + "." + std::to_string(i) + ".";
      if (const auto* hyena = dynamic_cast<const cache::HyenaLayerState*>(state.layers[i].get())) {
        EXPECT_LT(max_difference(hyena->tensors.fir.transpose(1, 2), golden_[at + "fir_state"]), 1e-3) << at;
        if (golden_.has(at + "iir_state")) {
          EXPECT_LT(max_difference(hyena->tensors.inner, golden_[at + "iir_state"]), 1e-3) << at;
        } else {
          EXPECT_LT(max_difference(hyena->tensors.inner.transpose(1, 2), golden_[at + "fir_inner_state"]), 1e-3) << at;
        }
      } else if (golden_.has(at + "kv")) {
        const auto* kv = dynamic_cast<const cache::KeyValueState*>(state.layers[i].get());
        const Tensor expected = golden_[at + "kv"];  // [B, 340, 2, heads, dim]
        EXPECT_LT(max_difference(kv->keys().transpose(1, 2), expected.select(2, 0)), 1e-3) << at;
        EXPECT_LT(max_difference(kv->values().transpose(1, 2), expected.select(2, 1)), 1e-3) << at;
      }
    }
  };
  compare("prefill");
  const Tensor tokens = golden_["greedy_tokens"];
  for (int64_t s = 0; s < tokens.size(1); ++s) model_->forward(tokens.narrow(1, s, 1), &state);
  compare("final");
}

// The reference's own cached path is wrong for prompts shorter than a filter; the recording is of its stateless path.
TEST_F(GoldenDecodeTest, ShortPromptsDecodeRight) {
  for (const int64_t prompt : {1, 2, 3, 5, 6}) {
    const std::string at = "short" + std::to_string(prompt);
    const Tensor tokens = golden_[at + ".tokens"], expected = golden_[at + ".stateless_logits"];
    cache::StreamState state;
    model_->forward(tokens.narrow(1, 0, prompt), &state);
    for (int64_t s = 0; s < 12; ++s) {
      const Tensor logits = model_->forward(tokens.narrow(1, prompt + s, 1), &state).select(1, 0);
      EXPECT_LT(max_difference(logits, expected.select(1, s)), 1e-3) << at << " step " << s;
    }
  }
}

// Here the reference broadcasts one output over the call's rows.
TEST_F(GoldenDecodeTest, SeveralTokensAfterAPrefill) {
  cache::StreamState state;
  model_->forward(golden_["prompt"], &state);
  const Tensor logits = model_->forward(golden_["forced_tokens"], &state);
  EXPECT_LT(max_difference(logits, golden_["forced_stateless_logits"]), 1e-3);
}

}  // namespace
}  // namespace focus::testing
