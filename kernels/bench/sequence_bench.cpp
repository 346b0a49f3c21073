// FIR, modal scan and attention against what LibTorch offers: conv1d, FFT convolution, its own attention and
// its matrix products; attention of one query over keys and values in bf16, and in 8 and 4 bits. Reports
// billions of multiply-adds and bytes per second.
#include <ATen/Parallel.h>
#include <benchmark/benchmark.h>
#include <torch/csrc/autograd/autograd.h>

#include "focus/core/error.h"
#include "focus/kernels/isa.h"
#include "focus/ops/attention.h"
#include "focus/ops/fir.h"
#include "focus/ops/modal_scan.h"

namespace {

using at::Tensor;

void check(const Tensor& got, const Tensor& expected, double tolerance) {
  const double difference = (got - expected).abs().max().item<double>();
  if (!(difference < tolerance))
    focus::fail<focus::CheckFailed>("kernel differs from its reference by ", difference);
}

Tensor fft_convolution(const Tensor& p_BLD, const Tensor& h_DL) {
  const int64_t n = 2 * p_BLD.size(1);
  const Tensor product = at::fft_rfft(p_BLD.transpose(1, 2), n) * at::fft_rfft(h_DL, n);
  return at::fft_irfft(product, n).narrow(-1, 0, p_BLD.size(1)).transpose(1, 2);
}

void set_rates(benchmark::State& state, double multiply_adds, double bytes) {
  state.counters["GMAC/s"] = benchmark::Counter(multiply_adds, benchmark::Counter::kIsIterationInvariantRate,
                                                benchmark::Counter::OneK::kIs1000);
  state.SetBytesProcessed(static_cast<int64_t>(bytes) * state.iterations());
}

void fir(benchmark::State& state, bool kernel) {
  const int64_t length = 4096, channels = state.range(0), taps = state.range(1);
  at::manual_seed(1);
  const Tensor x = at::randn({1, length + taps - 1, channels}), w = at::randn({taps, channels});
  check(focus::ops::causal_fir(x, w), focus::ops::causal_fir_reference(x, w), 1e-3);
  for (auto _ : state)
    benchmark::DoNotOptimize(
        (kernel ? focus::ops::causal_fir(x, w) : focus::ops::causal_fir_reference(x, w)).data_ptr());
  set_rates(state, static_cast<double>(length * channels * taps),
            static_cast<double>(2 * length * channels * 4));
}

void scan(benchmark::State& state, bool kernel) {
  const int64_t length = state.range(1), channels = state.range(0), modes = 16;
  at::manual_seed(1);
  const Tensor p = at::randn({1, length, channels}), poles = -at::rand({channels, modes}) - 1e-3,
               residues = at::randn({channels, modes});
  const Tensor h =
      (residues.unsqueeze(-1) * (poles.unsqueeze(-1) * at::arange(length, at::kFloat)).exp()).sum(1);
  check(focus::ops::modal_scan(p, poles, residues, {}).first, fft_convolution(p, h), 5e-2);
  for (auto _ : state)
    benchmark::DoNotOptimize(
        (kernel ? focus::ops::modal_scan(p, poles, residues, {}).first : fft_convolution(p, h)).data_ptr());
  set_rates(state, static_cast<double>(length * channels * modes * 2),
            static_cast<double>(2 * length * channels * 4));
}

/// `bits` 0: bf16.
void attention(benchmark::State& state, int64_t bits) {
  const int64_t heads = 4, dim = state.range(0), keys = state.range(1), queries = state.range(2);
  at::manual_seed(1);
  const Tensor q = at::randn({1, heads, queries, dim}).to(at::kBFloat16);
  focus::ops::MemoryPart memory;
  Tensor k = at::randn({1, heads, keys, dim}).to(at::kBFloat16),
         v = at::randn({1, heads, keys, dim}).to(at::kBFloat16);
  double bytes = static_cast<double>(k.nbytes() + v.nbytes());
  if (bits > 0) {
    memory.k_codes = focus::ops::quantise(k, bits, 64);
    memory.v_codes = focus::ops::quantise(v, bits, 0);
    bytes = 0;
    for (const auto* x : {&memory.k_codes, &memory.v_codes})
      bytes += static_cast<double>(x->codes.nbytes() + x->low.nbytes() + x->step.nbytes());
  } else {
    memory.k = k, memory.v = v;
  }
  const Tensor got = focus::ops::memory_attention(q, memory, {}, {});
  check(got, focus::ops::memory_attention_reference(q, memory, {}, {}), 2e-2);
  for (auto _ : state) benchmark::DoNotOptimize(focus::ops::memory_attention(q, memory, {}, {}).data_ptr());
  set_rates(state, static_cast<double>(2 * heads * keys * dim * queries), bytes);
}

enum class By { kernel, libtorch, products, kernel_with_gradients, libtorch_with_gradients };

/// Queries over keys with masses, all of which they see; `products`: the two matrix products alone.
void attention_beside(benchmark::State& state, at::ScalarType type, By by) {
  const int64_t dim = state.range(0), keys = state.range(1), queries = state.range(2);
  const bool gradients = by == By::kernel_with_gradients || by == By::libtorch_with_gradients;
  at::manual_seed(1);
  const auto rows = [&](int64_t count) {
    return at::randn({1, 1, count, dim}).to(type).set_requires_grad(gradients);
  };
  const Tensor q = rows(queries), k = rows(keys), v = rows(keys), beta = at::randn({1, 1, keys}),
               bias = beta.unsqueeze(2).to(type).expand({1, 1, queries, keys}), grad = at::randn_like(q);
  const auto kernel = [&] { return focus::ops::memory_attention(q, {k, v, beta}, {}, {}); };
  check(kernel(),
        focus::ops::attention(q.to(at::kFloat), k.to(at::kFloat), v.to(at::kFloat), beta.unsqueeze(2)),
        type == at::kFloat ? 1e-4 : 2e-2);
  const auto libtorch = [&] { return at::scaled_dot_product_attention(q, k, v, bias); };
  const Tensor weights = at::matmul(q.detach()[0][0], k.detach()[0][0].t());
  for (auto _ : state) {
    Tensor out;
    if (by == By::products) {
      benchmark::DoNotOptimize(at::matmul(q[0][0], k[0][0].t()).data_ptr());
      out = at::matmul(weights, v[0][0]);
    } else {
      out = by == By::kernel || by == By::kernel_with_gradients ? kernel() : libtorch();
    }
    if (gradients) out = torch::autograd::grad({out}, {q, k, v}, {grad})[0];
    benchmark::DoNotOptimize(out.data_ptr());
  }
  set_rates(state, static_cast<double>((gradients ? 7 : 2) * keys * dim * queries),
            static_cast<double>(k.nbytes() + v.nbytes()));
}

}  // namespace

BENCHMARK_CAPTURE(fir, kernel, true)
    ->Args({384, 3})
    ->Args({128, 7})
    ->Args({128, 128})
    ->Args({1024, 128})
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(fir, conv1d, false)
    ->Args({384, 3})
    ->Args({128, 7})
    ->Args({128, 128})
    ->Args({1024, 128})
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(scan, kernel, true)
    ->Args({128, 4096})
    ->Args({128, 16384})
    ->Args({1024, 4096})
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(scan, fft_with_filter_ready, false)
    ->Args({128, 4096})
    ->Args({128, 16384})
    ->Args({1024, 4096})
    ->Unit(benchmark::kMillisecond);
#define FOCUS_ATTENTION_BENCH(name, bits)  \
  BENCHMARK_CAPTURE(attention, name, bits) \
      ->Args({64, 32768, 1})               \
      ->Args({128, 32768, 1})              \
      ->Args({128, 131072, 1})             \
      ->Args({128, 8192, 64})              \
      ->Unit(benchmark::kMillisecond)
FOCUS_ATTENTION_BENCH(bf16, 0);
FOCUS_ATTENTION_BENCH(int8, 8);
FOCUS_ATTENTION_BENCH(int4, 4);

#define FOCUS_BESIDE_BENCH(name, type, by)            \
  BENCHMARK_CAPTURE(attention_beside, name, type, by) \
      ->Args({64, 6000, 1024})                        \
      ->Args({128, 6000, 1024})                       \
      ->Args({64, 6000, 64})                          \
      ->Args({64, 6000, 16})                          \
      ->Args({64, 6000, 1})                           \
      ->Unit(benchmark::kMillisecond)
FOCUS_BESIDE_BENCH(fp32_kernel, at::kFloat, By::kernel);
FOCUS_BESIDE_BENCH(fp32_libtorch, at::kFloat, By::libtorch);
FOCUS_BESIDE_BENCH(fp32_products, at::kFloat, By::products);
FOCUS_BESIDE_BENCH(bf16_kernel, at::kBFloat16, By::kernel);
FOCUS_BESIDE_BENCH(bf16_libtorch, at::kBFloat16, By::libtorch);
FOCUS_BESIDE_BENCH(bf16_products, at::kBFloat16, By::products);
FOCUS_BESIDE_BENCH(fp32_kernel_gradients, at::kFloat, By::kernel_with_gradients);
FOCUS_BESIDE_BENCH(fp32_libtorch_gradients, at::kFloat, By::libtorch_with_gradients);

int main(int argc, char** argv) {
  at::set_num_threads(1);
  benchmark::AddCustomContext("instruction set", focus::kernels::cpu_isa());
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
