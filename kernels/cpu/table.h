// One table of function pointers per instruction set.
#pragma once

#include <cstdint>

#include "focus/kernels/attention.h"
#include "focus/kernels/fir.h"
#include "focus/kernels/hyena.h"
#include "focus/kernels/linear.h"
#include "focus/kernels/modal_scan.h"
#include "focus/kernels/rms_norm.h"
#include "focus/kernels/rotary.h"

namespace focus::kernels {

template <class T>
struct Table {
  void (*fir_forward)(const FirForward<T>&, int64_t, int64_t);
  void (*fir_taps_gradient)(const FirTapsGradient<T>&, int64_t, int64_t);
  void (*modal_scan)(const ModalScan<T>&, int64_t, int64_t);
  void (*modal_scan_gradient)(const ModalScanGradient<T>&, int64_t, int64_t);
};
template <class W>
struct LinearTable {
  void (*pack_f32)(const float*, int64_t, float*);
  void (*pack_bf16)(const Bf16*, int64_t, float*);
  void (*linear)(const Linear<W>&, int64_t, int64_t);
};
struct Tables {
  Table<float> f32;
  Table<double> f64;
  LinearTable<float> linear_f32;
  LinearTable<Bf16> linear_bf16;
  void (*rms_norm_f32)(const RmsNorm<float>&);
  void (*rms_norm_bf16)(const RmsNorm<Bf16>&);
  void (*rotate_f32)(const float*, float*, const float*, const float*, int64_t);
  void (*rotate_bf16)(const Bf16*, Bf16*, const float*, const float*, int64_t);
  void (*attention_f32)(const Attention<float>&, int64_t, int64_t);
  void (*attention_bf16)(const Attention<Bf16>&, int64_t, int64_t);
  void (*attention_gradient_f32)(const AttentionGradient<float>&, int64_t, int64_t, int64_t, int64_t);
  void (*attention_gradient_bf16)(const AttentionGradient<Bf16>&, int64_t, int64_t, int64_t, int64_t);
  void (*hyena_f32)(const HyenaForward<float>&, int64_t, int64_t);
  void (*hyena_bf16)(const HyenaForward<Bf16>&, int64_t, int64_t);
  void (*hyena_gradient_f32)(const HyenaGradient<float>&, int64_t, int64_t);
  void (*hyena_gradient_bf16)(const HyenaGradient<Bf16>&, int64_t, int64_t);
};

const Tables& tables_baseline();
const Tables& tables_avx2();
const Tables& tables_avx512();
const Tables& tables_amx();

}  // namespace focus::kernels
