#include "focus/kernels/cuda/rotary.h"

#include "focus/core/error.h"
#include "kernels/buffer.h"

namespace focus::testing {
namespace {

enum class Layout {
  projection,  // queries and keys in place, in [batch, length, head, q|k|v, dim]
  buffer       // keys to [batch, head, capacity, dim], queries to an array of their own
};
struct RotaryShape {
  int64_t batch, heads, key_heads, length, dim;
  Layout layout;
};
void PrintTo(const RotaryShape& s, std::ostream* out) {
  *out << "B" << s.batch << " H" << s.heads << " G" << s.key_heads << " L" << s.length << " E" << s.dim
       << (s.layout == Layout::projection ? " in place" : " to a buffer");
}

class RotaryKernelTest : public KernelTestWithParam<RotaryShape> {};

template <class T, class P>
void check(const RotaryShape& shape, float scaling, bool backwards) {
  const auto [batch, heads, key_heads, length, dim, layout] = shape;
  const bool in_place = layout == Layout::projection;
  const int64_t half = dim / 2, slots = in_place ? 3 : 1, capacity = length + 3;
  const int64_t row[2] = {heads * slots * dim, key_heads * slots * dim};
  // In place both parts lie in one array; they do so only where they have as many heads.
  Buffer<T> q(batch * length * row[0]), k(in_place ? 0 : batch * length * row[1]), q_in(q.size()),
      k_in(k.size()), q_out(in_place ? 0 : batch * heads * length * dim),
      k_out(in_place ? 0 : batch * key_heads * capacity * dim);
  Buffer<P> positions(length);
  Buffer<float> inv_freq(half);
  q.randomise(1);
  k.randomise(2);
  std::copy(q.get(), q.get() + q.size(), q_in.get());
  std::copy(k.get(), k.get() + k.size(), k_in.get());
  for (int64_t i = 0; i < half; ++i)
    inv_freq[i] = static_cast<float>(std::pow(1e6, -2.0 * static_cast<double>(i) / static_cast<double>(dim)));
  for (int64_t t = 0; t < length; ++t)  // the last ones beyond a million
    positions[t] = static_cast<P>(t < 3 ? t : 1048576 * (t % 5) + t);
  const kernels::cuda::HeadStrides q_in_strides{length * row[0], slots * dim, row[0]},
      k_in_strides{length * row[1], slots * dim, row[1]};
  kernels::cuda::Rotary<T, P> args{
      .part = {{q, in_place ? q.get() : q_out.get(), q_in_strides,
                in_place ? q_in_strides : kernels::cuda::HeadStrides{heads * length * dim, length * dim, dim},
                heads},
               {in_place ? q.get() + dim : k.get(), in_place ? q.get() + dim : k_out.get() + 2 * dim,
                k_in_strides,
                in_place ? k_in_strides
                         : kernels::cuda::HeadStrides{key_heads * capacity * dim, capacity * dim, dim},
                key_heads}},
      .positions = positions,
      .inv_freq = inv_freq,
      .batch = batch,
      .length = length,
      .dim = dim,
      .scaling = scaling,
      .backwards = backwards};
  kernels::cuda::rotary(args, nullptr);
  finish_kernels();
  for (int part = 0; part < 2; ++part)
    for (int64_t b = 0; b < batch; ++b)
      for (int64_t h = 0; h < args.part[part].heads; ++h)
        for (int64_t t = 0; t < length; ++t)
          for (int64_t i = 0; i < half; ++i) {
            const auto& p = args.part[part];
            const Buffer<T>& source = in_place || part == 0 ? q_in : k_in;
            const int64_t from = b * p.in_strides.batch + h * p.in_strides.head + t * p.in_strides.position +
                                 i + (in_place && part == 1 ? dim : 0);
            const T* to =
                p.out + b * p.out_strides.batch + h * p.out_strides.head + t * p.out_strides.position + i;
            const float angle =
                static_cast<float>(positions[t]) / scaling * inv_freq[i];  // as the CPU rounds it
            const double c = std::cos(double{angle}), s = std::sin(double{angle}) * (backwards ? -1 : 1);
            const double x = value(source[from]), y = value(source[from + half]);
            // Sine and cosine of an angle that is rounded to 2^-24 of a turn of pi, and three roundings.
            const double bound = 4e-7 + 3 * kRounding<float>;
            const std::string where = concat("part ", part, " [", b, ", ", h, ", ", t, ", ", i, "]");
            expect_within(value(to[0]), x * c - y * s, bound + kRounding<T> * std::abs(x * c - y * s), where);
            expect_within(value(to[half]), x * s + y * c, bound + kRounding<T> * std::abs(x * s + y * c),
                          where);
          }
  if (in_place) {  // the values stay as they are
    for (int64_t i = 0; i < q.size(); ++i) {
      if (i / dim % 3 == 2) {
        EXPECT_EQ(q[i], q_in[i]) << i;
      }
    }
  } else {  // and so does the rest of the buffer
    for (int64_t i = 0; i < k_out.size(); ++i) {
      const int64_t slot = i / dim % capacity;
      EXPECT_EQ(std::isnan(value(k_out[i])), slot < 2 || slot >= 2 + length) << i;
    }
  }
}

TEST_P(RotaryKernelTest, TurnsByTheAngleThatTheCpuRounds) {
  check<float, int64_t>(GetParam(), 1.f, false);
  check<Bf16, int64_t>(GetParam(), 16.f, false);
  check<float, float>(GetParam(), 3.f, true);
  check<Bf16, float>(GetParam(), 1.f, true);
}

INSTANTIATE_TEST_SUITE_P(OddSizes, RotaryKernelTest,
                         ::testing::Values(RotaryShape{1, 1, 1, 1, 2, Layout::projection},
                                           RotaryShape{2, 5, 5, 7, 16, Layout::projection},
                                           RotaryShape{1, 4, 4, 33, 128, Layout::projection},
                                           RotaryShape{2, 6, 6, 3, 6, Layout::projection},
                                           RotaryShape{2, 9, 3, 35, 16, Layout::buffer},
                                           RotaryShape{1, 8, 2, 5, 128, Layout::buffer},
                                           RotaryShape{3, 2, 1, 4, 10, Layout::buffer},
                                           RotaryShape{1, 1, 1, 2, 528, Layout::buffer}));

class RotaryKernelEdgeTest : public KernelTest {};

TEST_F(RotaryKernelEdgeTest, ALargerBatchThanAGridHasBlocks) {
  check<Bf16, int64_t>({65537, 1, 1, 2, 2, Layout::projection}, 1.f, false);
}

}  // namespace
}  // namespace focus::testing
