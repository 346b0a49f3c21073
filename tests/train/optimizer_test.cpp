#include "focus/train/loop/optimizer.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "focus/core/error.h"

namespace focus::train {
namespace {

/// AdamW as the paper writes it, one scalar at a time in double.
struct ScalarAdamW {
  AdamWConfig config;
  double p, m = 0, v = 0;
  int t = 0;
  void step(double g, double lr, bool decay) {
    ++t;
    m = config.beta1 * m + (1 - config.beta1) * g;
    v = config.beta2 * v + (1 - config.beta2) * g * g;
    const double m_hat = m / (1 - std::pow(config.beta1, t)), v_hat = v / (1 - std::pow(config.beta2, t));
    if (decay) p -= lr * config.weight_decay * p;
    p -= lr * m_hat / (std::sqrt(v_hat) + config.eps);
  }
};

double gradient_at(int step, int64_t element) {
  return std::sin(1.0 + 3.7 * step + 0.9 * static_cast<double>(element)) * std::pow(10, element % 5 - 3);
}

at::Tensor gradient_tensor(int step, const at::Tensor& like) {
  const at::Tensor out = at::empty({like.numel()}, at::kDouble);
  for (int64_t i = 0; i < out.numel(); ++i) out[i] = gradient_at(step, i);
  return out.view(like.sizes()).to(like.scalar_type());
}

at::Tensor ramp(at::IntArrayRef shape, at::ScalarType dtype) {
  int64_t size = 1;
  for (const int64_t n : shape) size *= n;
  return at::linspace(-1.5, 2.5, size, at::kDouble).view(shape).to(dtype).requires_grad_(true);
}

std::map<std::string, at::Tensor> cloned(const std::vector<std::pair<std::string, at::Tensor>>& tensors) {
  std::map<std::string, at::Tensor> out;
  for (const auto& [name, tensor] : tensors) out.emplace(name, tensor.clone());
  return out;
}

class AdamWReference : public ::testing::TestWithParam<at::ScalarType> {};

TEST_P(AdamWReference, MatchesTheFormula) {
  AdamWConfig config;
  config.weight_decay = 0.1;
  const at::Tensor decayed = ramp({3, 5}, GetParam()), plain = ramp({7}, GetParam());
  AdamW optimizer({{"decayed", decayed, true}, {"plain", plain, false}}, config);
  std::vector<ScalarAdamW> expected;
  for (const at::Tensor& tensor : {decayed, plain}) {
    for (int64_t i = 0; i < tensor.numel(); ++i)
      expected.push_back({config, tensor.detach().view({-1})[i].item<double>()});
  }
  for (int step = 0; step < 8; ++step) {
    const double lr = 1e-2 / (1 + step);
    decayed.mutable_grad() = gradient_tensor(step, decayed);
    plain.mutable_grad() = gradient_tensor(step, plain);
    std::size_t at = 0;
    for (const at::Tensor& tensor : {decayed, plain}) {
      for (int64_t i = 0; i < tensor.numel(); ++i, ++at) {
        expected[at].step(tensor.grad().view({-1})[i].item<double>(), lr, tensor.is_same(decayed));
      }
    }
    optimizer.step(lr);
  }
  // fp32 rounding over 8 steps of values up to 2.5; a bf16 parameter is the rounded fp32 master.
  const double tolerance = GetParam() == at::kDouble ? 1e-14 : GetParam() == at::kFloat ? 2e-6 : 2.6 / 256;
  std::size_t at = 0;
  for (const at::Tensor& tensor : {decayed, plain}) {
    for (int64_t i = 0; i < tensor.numel(); ++i)
      EXPECT_NEAR(tensor.detach().view({-1})[i].item<double>(), expected[at++].p, tolerance);
  }
}
INSTANTIATE_TEST_SUITE_P(DTypes, AdamWReference, ::testing::Values(at::kDouble, at::kFloat, at::kBFloat16),
                         [](const auto& tested) { return std::string(at::toString(tested.param)); });

TEST(AdamW, ShortParametersKeepUpdatesBelowTheirSpacing) {
  const at::Tensor parameter = at::ones({4}, at::kBFloat16).requires_grad_(true);
  AdamWConfig config;
  config.weight_decay = 0;
  AdamW optimizer({{"p", parameter, true}}, config);
  for (int step = 0; step < 100; ++step) {
    parameter.mutable_grad() = at::ones({4}, at::kBFloat16);
    optimizer.step(1e-4);  // each update is 40 times smaller than bf16's spacing at 1
  }
  EXPECT_NEAR(parameter.detach()[0].item<double>(), 0.99, 0.002);
  for (const auto& [name, tensor] : optimizer.state_tensors())
    EXPECT_EQ(tensor.scalar_type(), name == "p.updates" ? at::kLong : at::kFloat) << name;
}

TEST(AdamW, SavedAndRestoredMidRunContinuesBitEqual) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kDouble}) {
    const at::Tensor a = ramp({6, 7}, dtype), b = ramp({5}, dtype);
    AdamW optimizer({{"a", a, true}, {"b", b, false}}, {});
    const auto run = [&](AdamW& on, const at::Tensor& first, const at::Tensor& second, int begin, int end) {
      for (int step = begin; step < end; ++step) {
        first.mutable_grad() = gradient_tensor(step, first);
        // b misses every third step, as a layer that was not drawn does.
        second.mutable_grad() = step % 3 == 0 ? at::Tensor() : gradient_tensor(step + 100, second);
        clip_grad_norm(on.gradients(), 1.0);
        on.step(1e-3 * (step + 1));
      }
    };
    run(optimizer, a, b, 0, 7);
    const auto state = cloned(optimizer.state_tensors());
    const at::Tensor a_then = a.detach().clone().requires_grad_(true),
                     b_then = b.detach().clone().requires_grad_(true);
    run(optimizer, a, b, 7, 20);

    AdamW resumed({{"a", a_then, true}, {"b", b_then, false}}, {});
    resumed.load_state(state);
    run(resumed, a_then, b_then, 7, 20);
    EXPECT_TRUE(at::equal(a, a_then)) << dtype;
    EXPECT_TRUE(at::equal(b, b_then)) << dtype;
    const auto end = cloned(optimizer.state_tensors());
    for (const auto& [name, tensor] : resumed.state_tensors())
      EXPECT_TRUE(at::equal(tensor, end.at(name))) << name;
    EXPECT_EQ(end.at("a.updates").item<int64_t>(), 20);
    EXPECT_EQ(end.at("b.updates").item<int64_t>(), 13);
  }
}

TEST(AdamW, ParametersWithoutGradientAreLeftAlone) {
  const at::Tensor a = ramp({3}, at::kFloat), b = ramp({3}, at::kFloat);
  const at::Tensor b_before = b.detach().clone();
  AdamW optimizer({{"a", a, true}, {"b", b, true}}, {});
  a.mutable_grad() = at::ones({3});
  EXPECT_EQ(optimizer.gradients().size(), 1u);
  optimizer.step(0.1);
  EXPECT_TRUE(at::equal(b, b_before));
  optimizer.zero_grad();
  EXPECT_FALSE(a.grad().defined());
  EXPECT_TRUE(optimizer.gradients().empty());
}

TEST(AdamW, LoadStateListsEveryMismatchAndChangesNothing) {
  const at::Tensor a = ramp({3}, at::kFloat), b = ramp({2, 2}, at::kFloat);
  AdamW optimizer({{"a", a, true}, {"b", b, true}}, {});
  a.mutable_grad() = at::ones({3});
  optimizer.step(0.1);
  const auto before = cloned(optimizer.state_tensors());
  auto state = before;
  state.erase("a.exp_avg");
  state["c.exp_avg"] = at::zeros({1});
  state["b.exp_avg_sq"] = at::zeros({4});
  state["b.exp_avg"] = at::zeros({2, 2}, at::kDouble);
  try {
    optimizer.load_state(state);
    FAIL() << "expected CheckpointError";
  } catch (const CheckpointError& error) {
    const std::string message = error.what();
    for (const char* part :
         {"missing (1):\n    a.exp_avg Float [3]", "unexpected (1):\n    c.exp_avg Float [1]",
          "different shape or type (2):", "b.exp_avg_sq: expected Float [2, 2], got Float [4]",
          "b.exp_avg: expected Float [2, 2], got Double [2, 2]"}) {
      EXPECT_NE(message.find(part), std::string::npos) << part << " in " << message;
    }
  }
  for (const auto& [name, tensor] : optimizer.state_tensors())
    EXPECT_TRUE(at::equal(tensor, before.at(name))) << name;
}

TEST(AdamW, RefusesBadParameters) {
  const at::Tensor a = ramp({3}, at::kFloat);
  EXPECT_THROW(AdamW({{"a", a, true}, {"a", a, true}}, {}), InternalError);
  EXPECT_THROW(AdamW({{"a", at::Tensor(), true}}, {}), InternalError);
  EXPECT_THROW(AdamW({{"a", at::zeros({1}, at::kLong), true}}, {}), InternalError);
  AdamW optimizer({{"a", a, true}}, {});
  EXPECT_THROW(optimizer.step(std::nan("")), InternalError);
}

TEST(ClipGradNorm, ScalesOnlyAboveTheLimit) {
  const at::Tensor a = at::full({4}, 3.0f), b = at::full({4}, 4.0f, at::kDouble);
  EXPECT_DOUBLE_EQ(clip_grad_norm({a, at::Tensor(), b}, 0), 10);
  EXPECT_DOUBLE_EQ(clip_grad_norm({a, b}, 11), 10);
  EXPECT_EQ(a[0].item<float>(), 3.0f);
  EXPECT_DOUBLE_EQ(clip_grad_norm({a, b}, 1), 10);
  EXPECT_FLOAT_EQ(a[0].item<float>(), 0.3f);
  EXPECT_DOUBLE_EQ(b[0].item<double>(), 0.4);
  EXPECT_EQ(clip_grad_norm({}, 1), 0);
}

TEST(ClipGradNorm, NonFiniteNormChangesNothing) {
  const at::Tensor a = at::ones({3});
  const at::Tensor b = at::full({2}, std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isinf(clip_grad_norm({a, b}, 1)));
  EXPECT_EQ(a[0].item<float>(), 1.0f);
  b[0] = std::nanf("");
  EXPECT_TRUE(std::isnan(clip_grad_norm({a, b}, 1)));
  EXPECT_EQ(a[0].item<float>(), 1.0f);
}

TEST(ClipGradNorm, DoesNotDependOnTheNumberOfThreads) {
  const int threads = at::get_num_threads();
  const at::Tensor gradient = at::sin(at::arange(1'000'003, at::kFloat)).view({-1, 1}).expand({-1, 2});
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kDouble}) {
    at::set_num_threads(1);
    const double one = clip_grad_norm({gradient.to(dtype)}, 0);
    at::set_num_threads(3);
    EXPECT_EQ(clip_grad_norm({gradient.to(dtype)}, 0), one) << dtype;
  }
  at::set_num_threads(threads);
}

TEST(AdamW, ABoundHoldsAfterEachUpdateAndInTheMasterCopy) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor bounded = at::full({3}, -0.5, dtype).requires_grad_(true),
                     free = at::full({3}, -0.5, dtype).requires_grad_(true);
    AdamW optimizer({{"bounded", bounded, false, -0.25}, {"free", free, false}}, {});
    for (int step = 0; step < 40; ++step) {
      bounded.mutable_grad() = at::full({3}, -1, dtype);
      free.mutable_grad() = at::full({3}, -1, dtype);
      optimizer.step(0.01);
    }
    EXPECT_TRUE(bounded.eq(-0.25).all().item<bool>()) << dtype;
    EXPECT_TRUE(free.gt(-0.15).all().item<bool>()) << dtype;
    for (const auto& [name, tensor] : optimizer.state_tensors()) {
      if (name != "bounded.master") continue;
      EXPECT_TRUE(tensor.eq(-0.25).all().item<bool>());
    }
  }
}

TEST(AdamWConfig, Ranges) {
  AdamWConfig config;
  EXPECT_THROW(config::read_text(R"({"beta1": 1})", "c", {}, config), ConfigError);
  EXPECT_THROW(config::read_text(R"({"lr": -1})", "c", {}, config), ConfigError);
}

}  // namespace
}  // namespace focus::train
