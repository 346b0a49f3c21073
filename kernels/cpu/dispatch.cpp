#include <cstdlib>
#include <string_view>
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "focus/core/error.h"
#include "focus/kernels/attention.h"
#include "focus/kernels/fir.h"
#include "focus/kernels/hyena.h"
#include "focus/kernels/isa.h"
#include "focus/kernels/linear.h"
#include "focus/kernels/modal_scan.h"
#include "focus/kernels/rms_norm.h"
#include "focus/kernels/rotary.h"
#include "table.h"

namespace focus::kernels {
namespace {

struct Chosen {
  const Tables* tables;
  const char* name;
  bool multiplies_bf16 = false;
};

#if defined(__x86_64__)
/// Whether the processor has AMX's bf16 products and the system lets this process use them.
bool amx() {
#if defined(__linux__)
  constexpr int kRequestState = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM
  return __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-bf16") &&
         __builtin_cpu_supports("avx512bf16") && syscall(SYS_arch_prctl, kRequestState, kTileData) == 0;
#else
  return false;
#endif
}
#endif

Chosen choose() {
  const char* wish = std::getenv("FOCUS_CPU_ISA");
  const std::string_view limit = wish == nullptr ? "" : wish;
  if (!limit.empty() && limit != "amx" && limit != "avx512" && limit != "avx2" && limit != "baseline")
    fail<ConfigError>(
        "FOCUS_CPU_ISA=", limit,
        ": unknown instruction set; use amx, avx512, avx2 or baseline, or unset it for the best");
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  if (avx512 && (limit.empty() || limit == "amx") && amx()) return {&tables_amx(), "amx", true};
  if (avx512 && limit != "avx2" && limit != "baseline") {
    return {&tables_avx512(), "avx512", limit.empty() && __builtin_cpu_supports("avx512bf16")};
  }
  if (avx2 && limit != "baseline") return {&tables_avx2(), "avx2"};
#endif
  return {&tables_baseline(), "baseline"};
}

const Chosen& chosen() {
  static const Chosen value = choose();
  return value;
}

template <class T>
const Table<T>& table() {
  if constexpr (sizeof(T) == sizeof(float)) {
    return chosen().tables->f32;
  } else {
    return chosen().tables->f64;
  }
}

}  // namespace

const char* cpu_isa() { return chosen().name; }
bool cpu_multiplies_bf16() { return chosen().multiplies_bf16; }

template <class T>
void fir_forward(const FirForward<T>& args, int64_t begin, int64_t end) {
  table<T>().fir_forward(args, begin, end);
}
template <class T>
void fir_taps_gradient(const FirTapsGradient<T>& args, int64_t begin, int64_t end) {
  table<T>().fir_taps_gradient(args, begin, end);
}
template <class T>
void modal_scan(const ModalScan<T>& args, int64_t begin, int64_t end) {
  table<T>().modal_scan(args, begin, end);
}
template <class T>
void modal_scan_gradient(const ModalScanGradient<T>& args, int64_t begin, int64_t end) {
  table<T>().modal_scan_gradient(args, begin, end);
}

template void fir_forward(const FirForward<float>&, int64_t, int64_t);
template void fir_forward(const FirForward<double>&, int64_t, int64_t);
template void fir_taps_gradient(const FirTapsGradient<float>&, int64_t, int64_t);
template void fir_taps_gradient(const FirTapsGradient<double>&, int64_t, int64_t);
template void modal_scan(const ModalScan<float>&, int64_t, int64_t);
template void modal_scan(const ModalScan<double>&, int64_t, int64_t);
template void modal_scan_gradient(const ModalScanGradient<float>&, int64_t, int64_t);
template void modal_scan_gradient(const ModalScanGradient<double>&, int64_t, int64_t);

template <>
void linear_pack<float, float>(const float* x, int64_t inputs, float* packed) {
  chosen().tables->linear_f32.pack_f32(x, inputs, packed);
}
template <>
void linear_pack<float, Bf16>(const Bf16* x, int64_t inputs, float* packed) {
  chosen().tables->linear_f32.pack_bf16(x, inputs, packed);
}
template <>
void linear_pack<Bf16, float>(const float* x, int64_t inputs, float* packed) {
  chosen().tables->linear_bf16.pack_f32(x, inputs, packed);
}
template <>
void linear_pack<Bf16, Bf16>(const Bf16* x, int64_t inputs, float* packed) {
  chosen().tables->linear_bf16.pack_bf16(x, inputs, packed);
}
template <>
void linear<float>(const Linear<float>& args, int64_t begin, int64_t end) {
  chosen().tables->linear_f32.linear(args, begin, end);
}
template <>
void linear<Bf16>(const Linear<Bf16>& args, int64_t begin, int64_t end) {
  chosen().tables->linear_bf16.linear(args, begin, end);
}

template <>
void rms_norm<float>(const RmsNorm<float>& args) {
  chosen().tables->rms_norm_f32(args);
}
template <>
void rms_norm<Bf16>(const RmsNorm<Bf16>& args) {
  chosen().tables->rms_norm_bf16(args);
}
template <>
void rotate<float>(const float* from, float* to, const float* cosine, const float* sine, int64_t half) {
  chosen().tables->rotate_f32(from, to, cosine, sine, half);
}
template <>
void rotate<Bf16>(const Bf16* from, Bf16* to, const float* cosine, const float* sine, int64_t half) {
  chosen().tables->rotate_bf16(from, to, cosine, sine, half);
}

template <>
void attention<float>(const Attention<float>& args, int64_t begin, int64_t end) {
  chosen().tables->attention_f32(args, begin, end);
}
template <>
void attention<Bf16>(const Attention<Bf16>& args, int64_t begin, int64_t end) {
  chosen().tables->attention_bf16(args, begin, end);
}
template <>
void attention_gradient<float>(const AttentionGradient<float>& args, int64_t begin, int64_t end,
                               int64_t first, int64_t last) {
  chosen().tables->attention_gradient_f32(args, begin, end, first, last);
}
template <>
void attention_gradient<Bf16>(const AttentionGradient<Bf16>& args, int64_t begin, int64_t end, int64_t first,
                              int64_t last) {
  chosen().tables->attention_gradient_bf16(args, begin, end, first, last);
}

template <>
void hyena<float>(const HyenaForward<float>& args, int64_t begin, int64_t end) {
  chosen().tables->hyena_f32(args, begin, end);
}
template <>
void hyena<Bf16>(const HyenaForward<Bf16>& args, int64_t begin, int64_t end) {
  chosen().tables->hyena_bf16(args, begin, end);
}
template <>
void hyena_gradient<float>(const HyenaGradient<float>& args, int64_t begin, int64_t end) {
  chosen().tables->hyena_gradient_f32(args, begin, end);
}
template <>
void hyena_gradient<Bf16>(const HyenaGradient<Bf16>& args, int64_t begin, int64_t end) {
  chosen().tables->hyena_gradient_bf16(args, begin, end);
}

}  // namespace focus::kernels
