#include "self_check.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <functional>

#include "focus/ops/attention.h"
#include "focus/ops/fir.h"
#include "focus/ops/linear.h"
#include "focus/ops/modal_scan.h"

namespace focus::tools {
namespace {

using at::Tensor;

double relative_rms(const Tensor& got, const Tensor& wanted) {
  const Tensor wide = wanted.to(at::kCPU, at::kDouble);
  return ((got.to(at::kCPU, at::kDouble) - wide).square().mean() / wide.square().mean())
      .sqrt()
      .item<double>();
}

class Checks {
 public:
  explicit Checks(const at::Device& device)
      : device_(device), generator_(at::make_generator<at::CPUGeneratorImpl>(uint64_t{20})) {}

  std::vector<SelfCheck> run() {
    // One rounding of the result to bf16 costs 2^-9 relative at most, about 1.7e-3 rms; fp32 sums of 512
    // products stay near 1e-7.
    check("matrix product, fp32", 1e-5, [&] { return product(at::kFloat); });
    check("matrix product, bf16", 4e-3, [&] { return product(at::kBFloat16); });
    check("few-row matrix kernel, fp32", 1e-5, [&] { return few_rows(at::kFloat); });
    check("few-row matrix kernel, bf16", 4e-3, [&] { return few_rows(at::kBFloat16); });
    check("short convolution kernel", 1e-5, [&] {
      const Tensor x = normal({2, 263, 48}), taps = normal({7, 48});
      return relative_rms(ops::causal_fir(x, taps),
                          ops::causal_fir_reference(x.cpu().to(at::kDouble), taps.cpu().to(at::kDouble)));
    });
    check("long convolution kernel", 1e-4, [&] {
      const Tensor p = normal({2, 300, 24}), residues = normal({24, 16});
      const Tensor log_poles = -at::logspace(-3, 0, 16).to(device_).expand({24, 16}).contiguous();
      const auto got = ops::modal_scan(p, log_poles, residues, Tensor()).first;
      const auto wide = [](const Tensor& t) { return t.cpu().to(at::kDouble); };
      return relative_rms(
          got, ops::modal_scan_reference(wide(p), wide(log_poles), wide(residues), Tensor()).first);
    });
    check("attention, fp32", 1e-5, [&] {
      const Tensor q = normal({1, 2, 40, 32}), k = normal({1, 2, 100, 32}), v = normal({1, 2, 100, 32});
      const auto wide = [](const Tensor& t) { return t.cpu().to(at::kDouble); };
      const Tensor scores = at::matmul(wide(q), wide(k).transpose(-1, -2)) / std::sqrt(32.0) +
                            ops::causal_bias(40, 100, at::kCPU).to(at::kDouble);
      return relative_rms(ops::causal_attention(q, k, v), at::matmul(at::softmax(scores, -1), wide(v)));
    });
    return std::move(out_);
  }

 private:
  Tensor normal(at::IntArrayRef sizes) { return at::randn(sizes, generator_).to(device_); }
  double product(at::ScalarType type) {
    const Tensor a = normal({256, 512}).to(type), b = normal({512, 384}).to(type);
    return relative_rms(at::matmul(a, b), at::matmul(a.cpu().to(at::kDouble), b.cpu().to(at::kDouble)));
  }
  double few_rows(at::ScalarType type) {
    const Tensor x = normal({2, 512}).to(type), weight = normal({384, 512}).to(type);
    return relative_rms(
        ops::linear(x, weight, Tensor()),
        ops::linear_reference(x.cpu().to(at::kDouble), weight.cpu().to(at::kDouble), Tensor()));
  }
  void check(const std::string& name, double limit, const std::function<double()>& measure) {
    SelfCheck result{.name = name + " on " + device_.str(), .error = 0, .limit = limit, .failure = ""};
    try {
      result.error = measure();
    } catch (const std::exception& e) {
      result.failure = std::string(e.what()).substr(0, std::string(e.what()).find('\n'));
    }
    out_.push_back(std::move(result));
  }

  at::Device device_;
  at::Generator generator_;
  std::vector<SelfCheck> out_;
};

}  // namespace

std::vector<SelfCheck> self_checks(const at::Device& device) {
  const at::NoGradGuard guard;
  return Checks(device).run();
}

}  // namespace focus::tools
