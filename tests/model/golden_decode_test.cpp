// A prompt read with state, then steps of one token: logits and states against the reference's recordings.
#include "support/golden.h"
#include "support/tensors.h"

namespace focus::testing {
namespace {

using at::Tensor;

class GoldenDecodeTest : public GoldenTest {
 protected:
  Tensor step(const Tensor& tokens) { return model_->forward(tokens, &state_); }
  /// Logits [B, steps, V] of steps through `tokens` [B, steps] after the prompt.
  Tensor steps_after_prompt(const Tensor& tokens) {
    last_ = step(golden_["prompt"]).select(1, -1);
    std::vector<Tensor> out;
    for (int64_t s = 0; s < tokens.size(1); ++s) out.push_back(step(tokens.narrow(1, s, 1)).select(1, 0));
    return at::stack(out, 1);
  }
  /// Every state recorded under `when`, and that every layer recorded has one.
  void check_states(const std::string& when) const {
    int64_t checked = 0;
    for (std::size_t i = 0; i < state_.layers.size(); ++i) {
      const std::string at = when + "." + std::to_string(i) + ".";
      const auto check = [&](const std::string& tensor, const Tensor& got) {
        if (!golden_.has(at + tensor)) return;
        check_("decode/" + at + tensor, got, golden_[at + tensor]);
        ++checked;
      };
      if (const auto* hyena = dynamic_cast<const cache::HyenaLayerState*>(state_.layers[i].get())) {
        check("fir_state", hyena->tensors.fir.transpose(1, 2));
        check("fir_inner_state", hyena->tensors.inner.transpose(1, 2));
        check("iir_state", hyena->tensors.inner);
      } else {
        const auto& kv = dynamic_cast<const cache::KeyValueState&>(*state_.layers[i]);
        check("kv",
              at::stack({kv.keys().transpose(1, 2), kv.values().transpose(1, 2)}, 2));  // [B, L, 2, H, E]
      }
    }
    const auto names = golden_.names();
    EXPECT_EQ(checked, std::count_if(names.begin(), names.end(),
                                     [&](const auto& name) { return name.starts_with(when + "."); }));
    EXPECT_GE(checked, 6);
  }

  Golden golden_ = recorded("decode");
  cache::StreamState state_;
  Tensor last_;  // logits after the prompt
};

TEST_P(GoldenDecodeTest, PromptAndItsStates) {
  const Tensor last = step(golden_["prompt"]).select(1, -1);
  // One position's rounding error is chance; the prompt's as a whole is a measure.
  check_("decode/prefill_last_logits", last, golden_["prefill_last_logits"], "logits/logits_at.len300");
  check_states("prefill");
}

// In bf16 the recorded tokens are those that the fp32 run chose: two bf16 runs part ways at the first near
// tie.
TEST_P(GoldenDecodeTest, FortyGreedyStepsAndTheStatesAfterThem) {
  const Tensor tokens = golden_["greedy_tokens"], logits = steps_after_prompt(tokens);
  check_("decode/step_logits", logits, golden_["step_logits"]);
  check_("decode/stateless_logits", logits, golden_["stateless_logits"]);
  check_states("final");
  if (exact()) {
    const Tensor chosen =
        at::cat({last_.unsqueeze(1), logits.narrow(1, 0, tokens.size(1) - 1)}, 1).argmax(-1);
    EXPECT_TRUE(at::equal(chosen, tokens)) << "got " << chosen << "\nexpected " << tokens;
  }
}

TEST_P(GoldenDecodeTest, FortyForcedSteps) {
  const Tensor logits = steps_after_prompt(golden_["forced_tokens"]);
  check_("decode/forced_step_logits", logits, golden_["forced_step_logits"]);
  check_("decode/forced_stateless_logits", logits, golden_["forced_stateless_logits"]);
}

// Here the reference repeats its last row's mixer output in every row.
TEST_P(GoldenDecodeTest, SeveralTokensAfterAPrompt) {
  step(golden_["prompt"]);
  check_("decode/one_call", step(golden_["forced_tokens"]), golden_["forced_stateless_logits"],
         "decode/forced_stateless_logits");
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenDecodeTest, golden_models(), golden_test_name);

// The reference's own steps are wrong after a prompt shorter than a filter; the recording is of its stateless
// pass.
class GoldenShortPromptTest : public GoldenTest {};

TEST_P(GoldenShortPromptTest, DecodesRight) {
  const Golden golden = recorded("decode");
  for (const int64_t prompt : {1, 2, 3, 5, 6}) {
    const std::string at = "short" + std::to_string(prompt);
    const Tensor tokens = golden[at + ".tokens"];
    cache::StreamState state;
    model_->forward(tokens.narrow(1, 0, prompt), &state);
    std::vector<Tensor> logits;
    for (int64_t s = 0; s < 12; ++s)
      logits.push_back(model_->forward(tokens.narrow(1, prompt + s, 1), &state).select(1, 0));
    check_("decode/" + at + ".stateless_logits", at::stack(logits, 1), golden[at + ".stateless_logits"]);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenShortPromptTest, golden_models({"tiny7b"}),
                         golden_test_name);  // recorded for this one only

}  // namespace
}  // namespace focus::testing
