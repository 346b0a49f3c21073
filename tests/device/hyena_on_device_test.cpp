// The Hyena mixer in one pass over memory, on the CPU and on a card, against plain operations in fp64.
#include "focus/nn/hyena.h"

#include <torch/csrc/autograd/autograd.h>

#include "support/devices.h"
#include "support/tensors.h"

namespace focus::nn {
namespace {

using at::Tensor;
using testing::error_in_roundings;

struct MixerShape {
  HyenaKind kind;
  int64_t batch, length, width, groups, taps = 7;
  std::vector<int64_t> chunks;  // of a stream; the rest in one
};
void PrintTo(const MixerShape& s, std::ostream* out) {
  *out << (s.kind == HyenaKind::hcs   ? "hcs"
           : s.kind == HyenaKind::hcm ? "hcm"
                                      : "hcl")
       << " B" << s.batch << " L" << s.length << " D" << s.width << " G" << s.groups << " K" << s.taps
       << " chunks " << s.chunks.size();
}

/// The parameters by name, the inputs, and what is made of them.
struct Numbers {
  std::vector<Tensor> parameters;
  Tensor z, dy;
  HyenaState before;

  template <class F>
  Numbers each(const F& f) const {
    Numbers out{{}, f(z), f(dy), {f(before.fir), f(before.inner)}};
    for (const Tensor& p : parameters) out.parameters.push_back(f(p));
    return out;
  }
};
struct Results {
  Tensor y, fir, inner;
  std::vector<Tensor> gradients;  // of z, fir, inner, the parameters
};

class HyenaOnDeviceTest : public testing::OnDeviceTest<MixerShape> {
 protected:
  HyenaOptions options() const { return {shape().kind, shape().width, 3, shape().taps, shape().groups, 16}; }
  Numbers draw() const {
    at::manual_seed(7);
    const auto& s = shape();
    Numbers n;
    for (const auto& p : HyenaFilter(options()).named_parameters()) {
      Tensor values = at::randn(p.value().sizes());
      if (p.key() == "log_poles") values = -(values.exp() * 0.05);
      const bool modes = p.key() == "log_poles" || p.key() == "residues";
      n.parameters.push_back(values.to(modes ? at::kFloat : type()));
    }
    n.z = at::randn({s.batch, s.length, 3 * s.width}).to(type());
    n.dy = at::randn({s.batch, s.length, s.width}).to(type());
    n.before.fir = at::randn({s.batch, 2, 3 * s.width}).to(type());
    n.before.inner = s.kind == HyenaKind::hcl ? at::randn({s.batch, s.width, 16})
                                              : at::randn({s.batch, s.taps - 1, s.width}).to(type());
    return n;
  }
  /// The loss is <y, dy> and the sum of what is carried on.
  Results run(const Numbers& n, const std::vector<int64_t>& chunks) const {
    auto filter = std::make_shared<HyenaFilter>(options());
    std::vector<Tensor> leaves{n.z.detach().requires_grad_(), n.before.fir.detach().requires_grad_(),
                               n.before.inner.detach().requires_grad_()};
    std::size_t i = 0;
    for (auto& p : filter->named_parameters()) {
      p.value().set_data(n.parameters[i++]);
      leaves.push_back(p.value());
    }
    const HyenaMixer mixer(options(), filter);
    HyenaState state{leaves[1], leaves[2]};
    std::vector<Tensor> y;
    int64_t done = 0;
    const auto step = [&](int64_t size) {
      y.push_back(mixer.forward(leaves[0].narrow(1, done, size), &state));
      done += size;
    };
    for (const int64_t size : chunks) step(size);
    step(shape().length - done);
    const Tensor all = at::cat(y, 1);
    const auto wide = n.z.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    const Tensor loss =
        (all.to(wide) * n.dy.to(wide)).sum() + state.fir.to(wide).sum() + state.inner.to(wide).sum();
    return {all.detach(), state.fir.detach(), state.inner.detach(), torch::autograd::grad({loss}, leaves)};
  }
};

TEST_P(HyenaOnDeviceTest, EqualsPlainOperationsInFp64) {
  const Numbers drawn = draw();
  const auto exactly = [](const Tensor& x) { return x.to(at::kDouble); };
  const Results exact = run(drawn.each(exactly), {});
  // With all numbers positive each result is the sum of its terms' sizes; a pole's decay is as it is.
  Numbers sizes = drawn.each([&](const Tensor& x) { return exactly(x).abs(); });
  if (shape().kind == HyenaKind::hcl) sizes.parameters[1] = exactly(drawn.parameters[1]);
  const Results size = run(sizes, {});
  // Roundings on the way to a result: x2, x1, v, p, filter, y; back, y's gradient by x2 too, p's and the
  // input filter's. fp32 rounds each term of the sums besides.
  const double terms =
      static_cast<double>(shape().kind == HyenaKind::hcl ? 4 * shape().length + 16 : shape().taps);
  const double bound = type() == at::kFloat ? 16 + terms : 16;
  for (const auto& chunks : {std::vector<int64_t>{}, shape().chunks}) {
    const Results got = run(drawn.each([&](const Tensor& x) { return x.to(device()); }), chunks);
    EXPECT_EQ(got.y.scalar_type(), type());
    EXPECT_LE(error_in_roundings(got.y, exact.y, size.y), bound);
    EXPECT_EQ(error_in_roundings(got.fir, exact.fir, size.fir), 0);
    EXPECT_LE(error_in_roundings(got.inner.to(type()), exact.inner, size.inner), bound);
    // A chunk's part of a parameter's gradient is rounded to its type.
    const double parts = static_cast<double>(1 + chunks.size());
    for (std::size_t i = 0; i < got.gradients.size(); ++i)
      EXPECT_LE(error_in_roundings(got.gradients[i].to(type()), exact.gradients[i], size.gradients[i].abs()),
                bound + parts + (type() == at::kFloat ? static_cast<double>(shape().length) : 0))
          << "gradient " << i;
  }
}

TEST_P(HyenaOnDeviceTest, ThreadsDoNotMatter) {
  if (test_device() != testing::TestDevice::cpu) GTEST_SKIP() << "a card has no threads of the host's";
  const Numbers drawn = draw();
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const Results one = run(drawn, shape().chunks);
  at::set_num_threads(3);
  const Results three = run(drawn, shape().chunks);
  at::set_num_threads(threads);
  EXPECT_TRUE(at::equal(one.y, three.y));
  EXPECT_TRUE(at::equal(one.inner, three.inner));
  for (std::size_t i = 0; i < one.gradients.size(); ++i)
    EXPECT_TRUE(at::equal(one.gradients[i], three.gradients[i])) << "gradient " << i;
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, HyenaOnDeviceTest,
    ::testing::Combine(::testing::Values(MixerShape{HyenaKind::hcs, 2, 45, 24, 6, 7, {1, 3, 20, 1}},
                                         MixerShape{HyenaKind::hcs, 1, 9, 5, 1, 3, {2, 2}},
                                         MixerShape{HyenaKind::hcm, 2, 150, 32, 2, 128, {1, 1, 70, 5}},
                                         MixerShape{HyenaKind::hcm, 1, 40, 6, 3, 20, {7, 16}},
                                         MixerShape{HyenaKind::hcm, 1, 131, 90, 9, 33, {64, 3}},
                                         MixerShape{HyenaKind::hcl, 2, 300, 24, 1, 7, {1, 256, 2}},
                                         MixerShape{HyenaKind::hcl, 1, 40, 7, 1, 7, {1, 16, 9}}),
                       testing::kDevices, ::testing::Values(at::kFloat, at::kBFloat16)));

}  // namespace
}  // namespace focus::nn
