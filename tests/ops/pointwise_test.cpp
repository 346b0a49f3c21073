// Norms, rotary positions and gates: on a card, and the first two on the CPU, kernels of focus's own.
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>

#include "focus/core/error.h"
#include "focus/ops/attention.h"
#include "focus/ops/gate.h"
#include "focus/ops/rms_norm.h"
#include "support/devices.h"
#include "support/tensors.h"

namespace focus::ops {
namespace {

using at::Tensor;
using testing::error_in_roundings;

const auto kTypes = ::testing::Values(at::kFloat, at::kBFloat16);

/// Runs f, which takes tensors of the device and returns some, forward and backward with random weights;
/// returns the outputs and the gradients of all inputs.
std::vector<Tensor> both_ways(const std::function<std::vector<Tensor>(const std::vector<Tensor>&)>& f,
                              const std::vector<Tensor>& inputs, const std::vector<Tensor>& weights) {
  std::vector<Tensor> leaves;
  for (const Tensor& x : inputs) leaves.push_back(x.detach().clone().set_requires_grad(true));
  std::vector<Tensor> out = f(leaves);
  std::vector<Tensor> by;
  for (std::size_t i = 0; i < out.size(); ++i) by.push_back(weights[i].to(out[i].options()));
  for (const Tensor& g : torch::autograd::grad(out, leaves, by)) out.push_back(g);
  return out;
}

struct Case {
  std::function<std::vector<Tensor>(const std::vector<Tensor>&)> f;
  std::vector<Tensor> inputs;   // fp64, rounded to the type
  std::vector<Tensor> weights;  // of the outputs in the gradient
};

/// Outputs and gradients of the device within `roundings` of those in fp64, at the size of the largest of
/// them in a row: intermediate values may be rounded, and what cancels does so within a row.
void expect_exact_up_to_rounding(const Case& c, at::Device device, at::ScalarType type, double roundings) {
  std::vector<Tensor> there;
  for (const Tensor& x : c.inputs) there.push_back(x.to(type).to(device));
  const auto got = both_ways(c.f, there, c.weights), exact = both_ways(c.f, c.inputs, c.weights);
  ASSERT_EQ(got.size(), exact.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(got[i].scalar_type(), type) << i;
    EXPECT_EQ(got[i].device(), device) << i;
    const Tensor size = std::get<0>(exact[i].abs().max(-1, true)).expand_as(exact[i]);
    EXPECT_LE(error_in_roundings(got[i], exact[i], size), roundings) << "output or gradient " << i;
  }
  // Without gradients another path is taken.
  const at::NoGradGuard no_grad;
  const auto plain = c.f(there);
  for (std::size_t i = 0; i < plain.size(); ++i)
    EXPECT_LE(
        error_in_roundings(plain[i], exact[i], std::get<0>(exact[i].abs().max(-1, true)).expand_as(exact[i])),
        roundings)
        << "without gradients, output " << i;
}

Tensor draw(at::IntArrayRef sizes, at::ScalarType type) { return at::randn(sizes).to(type).to(at::kDouble); }

struct NormCase {
  std::vector<int64_t> sizes;
  Epsilon place;
};
void PrintTo(const NormCase& c, std::ostream* out) {
  *out << at::IntArrayRef(c.sizes) << (c.place == Epsilon::inside ? " inside" : " outside");
}
const auto kNorms =
    ::testing::Values(NormCase{{3, 8}, Epsilon::outside}, NormCase{{2, 5, 24}, Epsilon::inside},
                      NormCase{{2, 3, 7}, Epsilon::outside}, NormCase{{1, 130, 40}, Epsilon::inside},
                      NormCase{{1, 1, 9}, Epsilon::inside}, NormCase{{2, 2100}, Epsilon::outside},
                      NormCase{{4, 100}, Epsilon::inside});

class NormOnDeviceTest : public testing::OnDeviceTest<NormCase> {};

TEST_P(NormOnDeviceTest, NormOfXAndOfASumAreExactUpToRounding) {
  at::manual_seed(1);
  const auto& [sizes, place] = shape();
  const Tensor x = draw(sizes, type()), delta = draw(sizes, type()), scale = draw({sizes.back()}, type()),
               dy = draw(sizes, type()), dsum = draw(sizes, type());
  // The gradient of the scale sums rows, up to 130 of them, each of a size of its own.
  const double roundings = 12;
  expect_exact_up_to_rounding({[place = place](const std::vector<Tensor>& in) {
                                 return std::vector<Tensor>{rms_norm(in[0], in[1], 0.01, place)};
                               },
                               {x, scale},
                               {dy}},
                              device(), type(), roundings);
  expect_exact_up_to_rounding({[place = place](const std::vector<Tensor>& in) {
                                 const auto [sum, normed] = add_rms_norm(in[0], in[1], in[2], 0.01, place);
                                 return std::vector<Tensor>{sum, normed};
                               },
                               {x, delta, scale},
                               {dsum, dy}},
                              device(), type(), roundings);
}

INSTANTIATE_TEST_SUITE_P(OddSizes, NormOnDeviceTest, ::testing::Combine(kNorms, testing::kDevices, kTypes));

class NormDeviceTest : public ::testing::TestWithParam<testing::TestDevice> {
 protected:
  void SetUp() override {
    if (const std::string reason = testing::missing(GetParam()); !reason.empty()) GTEST_SKIP() << reason;
  }
};

TEST_P(NormDeviceTest, EitherOutputOfASumAloneCarriesGradient) {
  const auto device = testing::device_of(GetParam());
  at::manual_seed(2);
  const Tensor x = at::randn({3, 8}).to(device), delta = at::randn({3, 8}).to(device),
               scale = at::ones({8}).to(device);
  for (const bool normed : {false, true}) {
    const Tensor a = x.clone().set_requires_grad(true), b = delta.clone().set_requires_grad(true);
    const auto out = add_rms_norm(a, b, scale, 1e-6);
    const auto grads = torch::autograd::grad({normed ? out.normed.square().sum() : out.sum.sum()}, {a, b});
    EXPECT_TRUE(at::equal(grads[0].cpu(), grads[1].cpu()));
    // The square of a normed row sums to its width whatever x is.
    const Tensor expected = normed ? at::zeros({3, 8}) : at::ones({3, 8});
    EXPECT_LT(testing::max_difference(grads[0].cpu(), expected), normed ? 1e-4 : 1e-30);
  }
}
INSTANTIATE_TEST_SUITE_P(Devices, NormDeviceTest, testing::kDevices);

class RowsOnCpuTest : public ::testing::TestWithParam<std::tuple<at::ScalarType, int>> {
 protected:
  void SetUp() override { at::set_num_threads(std::get<1>(GetParam())); }
  void TearDown() override { at::set_num_threads(threads_); }
  static Tensor rows(at::IntArrayRef sizes) { return at::randn(sizes).to(std::get<0>(GetParam())); }

 private:
  int threads_ = at::get_num_threads();
};

// Recorded scores were made by these operations.
TEST_P(RowsOnCpuTest, NormsGiveTheNumbersOfLibTorchsOperations) {
  at::manual_seed(4);
  const int64_t width = 136;
  const Tensor x = rows({3, 130, width}), delta = rows({3, 130, width}), scale = rows({width});
  const Tensor sum = x + delta, wide = sum.to(at::kFloat);
  const Tensor rms = at::linalg_vector_norm(wide, 2, at::IntArrayRef{-1}, true) * (1.0 / std::sqrt(136.0));
  const Tensor expected = (wide * (rms + 0.01).reciprocal() * scale.to(at::kFloat)).to(x.scalar_type());
  const auto out = add_rms_norm(x, delta, scale, 0.01);
  EXPECT_TRUE(at::equal(out.sum, sum));
  EXPECT_TRUE(at::equal(out.normed, expected));
  const Tensor tracked = rms_norm(sum.clone().set_requires_grad(true), scale, 0.01).detach();
  EXPECT_TRUE(at::equal(tracked, out.normed));
}

TEST_P(RowsOnCpuTest, RotationsGiveTheBitsOfLibTorchsOperations) {
  at::manual_seed(5);
  const int64_t dim = 24, length = 517;
  const Tensor positions = at::arange(length) + 70000, freq = at::rand({dim / 2});
  const auto expected = [&](const Tensor& x) {
    const Tensor angle = (positions.to(at::kFloat) / 4.0).unsqueeze(-1) * freq;
    const auto halves = x.to(at::kFloat).chunk(2, -1);
    return at::cat({halves[0] * angle.cos() - halves[1] * angle.sin(),
                    halves[0] * angle.sin() + halves[1] * angle.cos()},
                   -1)
        .to(x.scalar_type());
  };
  const Tensor qkv = rows({2, length, 3, 3, dim});
  const Tensor q = qkv.select(2, 0).transpose(1, 2), k = qkv.select(2, 1).transpose(1, 2);
  const Tensor expected_q = expected(q), expected_k = expected(k);
  const auto out = rotate_in_place(q, k, positions, freq, 4.0);
  EXPECT_TRUE(at::equal(out.first, expected_q));
  EXPECT_TRUE(at::equal(out.second, expected_k));
  const Tensor weights = rows({2, 3, length, dim});
  const auto gradient = [&](const std::function<Tensor(const Tensor&)>& f) {
    const Tensor leaf = q.detach().clone().set_requires_grad(true);
    return torch::autograd::grad({f(leaf)}, {leaf}, {weights})[0];
  };
  EXPECT_TRUE(at::equal(gradient([&](const Tensor& x) { return rotate(x, positions, freq, 4.0); }),
                        gradient(expected)));
}

INSTANTIATE_TEST_SUITE_P(TypesAndThreads, RowsOnCpuTest, ::testing::Combine(kTypes, ::testing::Values(1, 3)));

struct RotaryCase {
  int64_t batch, heads, key_heads, length, dim;
  bool fused;  // views of one projection
};
void PrintTo(const RotaryCase& s, std::ostream* out) {
  *out << "B" << s.batch << " H" << s.heads << " G" << s.key_heads << " L" << s.length << " E" << s.dim;
}
const auto kRotaries = ::testing::Values(RotaryCase{2, 3, 3, 5, 16, true}, RotaryCase{1, 4, 2, 7, 16, false},
                                         RotaryCase{2, 2, 2, 3, 6, true}, RotaryCase{1, 1, 1, 1, 128, true});

class RotaryOnDeviceTest : public testing::OnDeviceTest<RotaryCase> {};

TEST_P(RotaryOnDeviceTest, QueriesAndKeysAreExactUpToRounding) {
  at::manual_seed(3);
  const auto& s = shape();
  const Tensor positions = at::arange(s.length) * 200003,
               freq = at::pow(1e4, at::arange(0, s.dim, 2) / -static_cast<double>(s.dim)).to(at::kFloat);
  // Rotated exactly by the angle as fp32 rounds it.
  const auto turn = [&](const Tensor& x) {
    if (x.scalar_type() != at::kDouble) return rotate(x, positions.to(x.device()), freq.to(x.device()), 4.0);
    const Tensor angle = ((positions.to(at::kFloat) / 4.0).unsqueeze(-1) * freq).to(at::kDouble);
    const auto halves = x.chunk(2, -1);
    return at::cat({halves[0] * angle.cos() - halves[1] * angle.sin(),
                    halves[0] * angle.sin() + halves[1] * angle.cos()},
                   -1);
  };
  const auto both = [&](const Tensor& q, const Tensor& k) -> std::vector<Tensor> {
    if (q.scalar_type() == at::kDouble) return {turn(q), turn(k)};
    const auto out = rotate_in_place(q, k, positions.to(q.device()), freq.to(q.device()), 4.0);
    return {out.first, out.second};
  };
  const auto heads = [&](int64_t count) { return draw({s.batch, count, s.length, s.dim}, type()); };
  const Tensor q = heads(s.heads), k = heads(s.key_heads), dq = heads(s.heads), dk = heads(s.key_heads);
  // One rounding of each product, sum and result, and sine and cosine to 2^-22.
  expect_exact_up_to_rounding(
      {[&](const std::vector<Tensor>& in) { return std::vector<Tensor>{turn(in[0])}; }, {q}, {dq}}, device(),
      type(), 8);
  if (s.fused) {
    const auto views = [&](const Tensor& qkv) {
      const Tensor parts = qkv.unflatten(-1, {s.heads, 3, s.dim}).permute({3, 0, 2, 1, 4});
      return both(parts.select(0, 0), parts.select(0, 1));
    };
    expect_exact_up_to_rounding({[&](const std::vector<Tensor>& in) { return views(in[0]); },
                                 {draw({s.batch, s.length, 3 * s.heads * s.dim}, type())},
                                 {dq, dk}},
                                device(), type(), 8);
  } else {
    expect_exact_up_to_rounding(
        {[&](const std::vector<Tensor>& in) { return both(in[0], in[1]); }, {q, k}, {dq, dk}}, device(),
        type(), 8);
  }
}

INSTANTIATE_TEST_SUITE_P(OddSizes, RotaryOnDeviceTest,
                         ::testing::Combine(kRotaries, testing::kDevices, kTypes));

struct GateCase {
  std::vector<int64_t> sizes;
  Gate act;
  bool views;  // both factors are halves of one tensor
};
void PrintTo(const GateCase& c, std::ostream* out) {
  *out << at::IntArrayRef(c.sizes) << " act " << static_cast<int>(c.act) << (c.views ? " halves" : "");
}
const auto kGates =
    ::testing::Values(GateCase{{3, 8}, Gate::gelu, false}, GateCase{{2, 5, 24}, Gate::silu, true},
                      GateCase{{2, 3, 7}, Gate::identity, true}, GateCase{{5, 16}, Gate::gelu, true},
                      GateCase{{4}, Gate::silu, false}, GateCase{{0, 8}, Gate::gelu, false},
                      GateCase{{1, 1}, Gate::identity, false});

class GateOnDeviceTest : public testing::OnDeviceTest<GateCase> {};

TEST_P(GateOnDeviceTest, ProductAndGradientsAreExactUpToRounding) {
  at::manual_seed(4);
  const auto& [sizes, act, views] = shape();
  if (at::empty(sizes).numel() == 0) {
    const Tensor none = at::empty(sizes, at::TensorOptions().dtype(type()).device(device()));
    EXPECT_EQ(gated(none, none, act).sizes(), at::IntArrayRef(sizes));
    return;
  }
  const Tensor dy = draw(sizes, type());
  // act(a) and its slope are rounded on the way on the CPU.
  const double roundings = 8;
  if (views) {
    auto whole = sizes;
    whole.back() *= 2;
    expect_exact_up_to_rounding({[act = act](const std::vector<Tensor>& in) {
                                   const auto halves = in[0].chunk(2, -1);
                                   return std::vector<Tensor>{gated(halves[0], halves[1], act)};
                                 },
                                 {draw(whole, type())},
                                 {dy}},
                                device(), type(), roundings);
  } else {
    expect_exact_up_to_rounding(
        {[act = act](const std::vector<Tensor>& in) { return std::vector<Tensor>{gated(in[0], in[1], act)}; },
         {draw(sizes, type()), draw(sizes, type())},
         {dy}},
        device(), type(), roundings);
  }
}

INSTANTIATE_TEST_SUITE_P(OddSizes, GateOnDeviceTest, ::testing::Combine(kGates, testing::kDevices, kTypes));

}  // namespace
}  // namespace focus::ops
