// A sum of decaying exponentials as a recurrence. Each channel has filters of its own, so there is no matrix
// product to make of it: 3 multiply-adds a mode and row, in registers. A sequence alone has too few channels
// for a card, so stretches of rows run beside each other (focus/kernels/cuda/modal_scan.h).
#include "focus/kernels/cuda/modal_scan.h"

#include "walk.h"

namespace focus::kernels::cuda {
namespace {

constexpr int kThreads = 128;

// A thread carries one mode from stretch to stretch. kBack: gradients, from the last stretch to the first.
template <bool kBack>
__global__ void __launch_bounds__(kThreads)
    carry_kernel(const float* __restrict__ log_poles, float* __restrict__ states, int64_t batch,
                 int64_t stretches, int64_t last_rows, int64_t num_modes, int64_t channels) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x,
                modes_of_all = num_modes * channels, mode = i % modes_of_all;
  if (i >= batch * modes_of_all) return;
  float* at = states + i / modes_of_all * stretches * modes_of_all + mode;
  if constexpr (kBack) at += (stretches - 1) * modes_of_all;
  const int64_t step = kBack ? -modes_of_all : modes_of_all;
  const auto log_pole = static_cast<double>(log_poles[mode % channels * num_modes + mode / channels]);
  const double decay = exp(log_pole * static_cast<double>(kScanStretch));
  double carried = *at;
  constexpr int kAtOnce = 8;  // loads that do not wait for each other
  for (int64_t k = 1; k < stretches; k += kAtOnce) {
    float ends[kAtOnce];
#pragma unroll
    for (int e = 0; e < kAtOnce; ++e) ends[e] = k + e < stretches ? at[(e + 1) * step] : 0.f;
#pragma unroll
    for (int e = 0; e < kAtOnce; ++e) {
      const bool short_stretch = kBack && k == 1 && e == 0;
      carried = (short_stretch ? exp(log_pole * static_cast<double>(last_rows)) : decay) * carried +
                static_cast<double>(ends[e]);
      if (k + e < stretches) at[(e + 1) * step] = static_cast<float>(carried);
    }
    at += kAtOnce * step;
  }
}

template <bool kBack>
void carry(const float* log_poles, float* states, int64_t batch, int64_t length, int64_t num_modes,
           int64_t channels, void* stream) {
  const int64_t stretches = scan_stretches(length);
  launch(carry_kernel<kBack>, dim3(static_cast<unsigned>(div_up(batch * num_modes * channels, kThreads))),
         dim3(kThreads), 0, static_cast<cudaStream_t>(stream), log_poles, states, batch, stretches,
         length - (stretches - 1) * kScanStretch, num_modes, channels);
  check_launch("modal_scan");
}

// The gradient: four threads a channel, each with kMine of the modes. A block has kAcross channels and a
// stretch.
constexpr int kAcross = 32, kQuarters = 4, kMine = kScanModes / kQuarters, kAll = kQuarters * kAcross,
              kPart = 16, kParts = static_cast<int>(kScanStretch) / kPart;

enum class Adjoint { ends, dp, all };  // of states alone; and of p; and of poles and residues

template <class T, Adjoint kWhat>
__global__ void __launch_bounds__(kAll, 3)
    adjoint_kernel(const __grid_constant__ ScanGradient<T> a, int64_t tiles, int64_t first_stretch,
                   int64_t stretches) {
  SHARED(parts, float[kWhat == Adjoint::ends ? 1 : kQuarters][kPart][kAcross]);
  SHARED_DYNAMIC(starts, float);  // the states before each part of the stretch
  const int thread = static_cast<int>(threadIdx.x), column = thread % kAcross, quarter = thread / kAcross;
  const int64_t block = blockIdx.x, launched = stretches - first_stretch, b = block / tiles / launched,
                stretch = first_stretch + block / tiles % launched, c = block % tiles * kAcross + column,
                first = stretch * kScanStretch;
  const int rows = static_cast<int>(min(kScanStretch, a.length - first));
  const bool inside = c < a.channels;
  const T* const dy = a.dy + (b * a.length + first) * a.channels + c;
  T* const dp_out = a.dp + (b * a.length + first) * a.channels + c;
  const T* const p = kWhat == Adjoint::all ? a.p + (b * a.length + first) * a.channels + c : nullptr;
  const auto row_of = [&](const T* from, int row) {
    return inside && row < rows ? widen(from[row * a.channels]) : 0.f;
  };
  const int mine = quarter * kMine;
  const int64_t modes_of_all = a.num_modes * a.channels, of_mode = mine * a.channels + c;
  const auto each = [&](const float* from, float(&to)[kMine]) {
    for (int m = 0; m < kMine; ++m)
      to[m] = inside && mine + m < a.num_modes ? from[of_mode + m * a.channels] : 0.f;
  };
  float pole[kMine], rest[kMine], residue[kMine], adjoint[kMine] = {};
  read_modes(a.log_poles, a.residues, c, a.num_modes, mine, inside, pole, rest, residue);

  if constexpr (kWhat == Adjoint::ends) {
#pragma unroll 4
    for (int row = rows - 1; row >= 0; --row) {
      const float g = row_of(dy, row);
#pragma unroll
      for (int m = 0; m < kMine; ++m) {
        const float l = fmaf(residue[m], g, adjoint[m]);
        adjoint[m] = fmaf(pole[m], l, rest[m] * l);
      }
    }
    float* const to = a.dstates + (b * stretches + stretch - 1) * modes_of_all + of_mode;
    for (int m = 0; m < kMine; ++m) {
      if (inside && mine + m < a.num_modes) to[m * a.channels] = adjoint[m];
    }
  } else {
    each(a.dstates + (b * stretches + stretch) * modes_of_all, adjoint);
    if constexpr (kWhat == Adjoint::all) {
      float state[kMine];
      each(a.states + (b * stretches + stretch) * modes_of_all, state);
      for (int part = 0; part * kPart < rows; ++part) {
#pragma unroll
        for (int m = 0; m < kMine; ++m) starts[(part * kMine + m) * kAll + thread] = state[m];
#pragma unroll 4
        for (int i = 0; i < kPart; ++i) {
          const float in = row_of(p, part * kPart + i);
#pragma unroll
          for (int m = 0; m < kMine; ++m) state[m] = fmaf(pole[m], state[m], fmaf(rest[m], state[m], in));
        }
      }
    }
    float dpole[kMine] = {}, dresidue[kMine] = {};
    for (int part = (rows - 1) / kPart; part >= 0; --part) {
      float g[kPart], dp[kPart] = {};
      [[maybe_unused]] float in[kPart];
      const auto read = [&](const T* from, float(&to)[kPart]) {
        from += part * kPart * a.channels;
#pragma unroll
        for (int i = 0; i < kPart; ++i, from += a.channels)
          to[i] = inside && part * kPart + i < rows ? widen(*from) : 0.f;
      };
      read(dy, g);
      if constexpr (kWhat == Adjoint::all) read(p, in);
#pragma unroll
      for (int m = 0; m < kMine; ++m) {
        [[maybe_unused]] float
            history[kPart + 1];  // the states before each row of the part, and after the last
        if constexpr (kWhat == Adjoint::all) {
          history[0] = starts[(part * kMine + m) * kAll + thread];
#pragma unroll
          for (int i = 0; i < kPart; ++i)
            history[i + 1] = fmaf(pole[m], history[i], fmaf(rest[m], history[i], in[i]));
        }
#pragma unroll
        for (int i = kPart - 1; i >= 0; --i) {
          if (part * kPart + i >= rows) continue;
          const float l = fmaf(residue[m], g[i], adjoint[m]);
          if constexpr (kWhat == Adjoint::all) {
            dresidue[m] = fmaf(g[i], history[i + 1], dresidue[m]);
            dpole[m] = fmaf(l, history[i], dpole[m]);
          }
          dp[i] += l;
          adjoint[m] = fmaf(pole[m], l, rest[m] * l);
        }
      }
#pragma unroll
      for (int i = 0; i < kPart; ++i) parts[quarter][i][column] = dp[i];
      __syncthreads();
      for (int i = quarter; i < kPart; i += kQuarters) {
        const int row = part * kPart + i;
        if (!inside || row >= rows) break;
        const float sum =
            (parts[0][i][column] + parts[1][i][column]) + (parts[2][i][column] + parts[3][i][column]);
        const float skip = a.skip != nullptr ? widen(a.skip[c]) : 0.f;
        dp_out[row * a.channels] = narrow<T>(fmaf(skip, row_of(dy, row), sum));
      }
      __syncthreads();
    }
    for (int m = 0; m < kMine; ++m) {
      if (!inside || mine + m >= a.num_modes) break;
      const int64_t at = (b * stretches + stretch) * modes_of_all + of_mode + m * a.channels;
      if (stretch == 0) a.dinitial[b * modes_of_all + of_mode + m * a.channels] = adjoint[m];
      if constexpr (kWhat == Adjoint::all) a.dpoles[at] = dpole[m], a.dresidues[at] = dresidue[m];
    }
  }
}

template <class T, Adjoint kWhat>
void run_adjoint(const ScanGradient<T>& args, int64_t first_stretch, void* stream) {
  const int64_t tiles = div_up(args.channels, kAcross), stretches = scan_stretches(args.length);
  const size_t shared = kWhat == Adjoint::all ? sizeof(float) * kParts * kMine * kAll : 0;
  launch(adjoint_kernel<T, kWhat>,
         dim3(static_cast<unsigned>(args.batch * tiles * (stretches - first_stretch))), dim3(kAll), shared,
         static_cast<cudaStream_t>(stream), args, tiles, first_stretch, stretches);
  check_launch("modal_scan_gradient");
}

void check_modes(int64_t num_modes) {
  if (num_modes > kScanModes)
    fail<InternalError>("modal_scan: ", num_modes, " modes of at most ", kScanModes);
}

}  // namespace

void carry_states(const Modes& modes, int64_t batch, int64_t length, int64_t channels, void* stream) {
  carry<false>(modes.log_poles, modes.states, batch, length, modes.num_modes, channels, stream);
}

template <class T>
void modal_scan(const Scan<T>& args, void* stream) {
  check_modes(args.modes.num_modes);
  Walk<T> a{};
  a.x = args.p, a.x_batch = args.p_batch, a.x_row = args.channels, a.skip = args.skip;
  a.y = args.y, a.y_batch = args.length * args.channels;
  a.batch = args.batch, a.length = args.length, a.channels = args.channels;
  walk_modes<T, false>(a, args.modes, stream);
}

template <class T>
void modal_scan_gradient(const ScanGradient<T>& args, void* stream) {
  check_modes(args.num_modes);
  if (args.batch == 0 || args.length == 0 || args.channels == 0) return;
  const int64_t stretches = scan_stretches(args.length);
  if (stretches > 1) {
    run_adjoint<T, Adjoint::ends>(args, 1, stream);
    carry<true>(args.log_poles, args.dstates, args.batch, args.length, args.num_modes, args.channels, stream);
  }
  args.dpoles != nullptr ? run_adjoint<T, Adjoint::all>(args, 0, stream)
                         : run_adjoint<T, Adjoint::dp>(args, 0, stream);
}

template void modal_scan(const Scan<float>&, void*);
template void modal_scan(const Scan<Bf16>&, void*);
template void modal_scan_gradient(const ScanGradient<float>&, void*);
template void modal_scan_gradient(const ScanGradient<Bf16>&, void*);

}  // namespace focus::kernels::cuda
