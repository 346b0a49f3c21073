// Attention forward: an online softmax over tiles of keys. On tensor cores each warp holds 16 or 32 rows of
// queries; keys arrive while the tile of values before them is worked on and the other way round, so that one
// buffer for each is enough. Few queries share the keys of a tile among the warps of a block, and the tiles
// among blocks, whose fp32 results a second kernel puts together.
#include "attention_tiles.h"

namespace focus::kernels::cuda {
namespace {

constexpr int kPlainKeys = 32;  // of a tile without tensor cores
constexpr int kPlainRows = 16;
constexpr int kFewRows = 16;

/// Where the results of a row go: into the output or, where there is one, into the workspace.
template <class T>
struct RowResult {
  T* out;
  float* partial;
  float* log_sum;

  __device__ RowResult(const AttentionLaunch<T>& l, const AttentionPlace& at, int row) {
    const int64_t index = query_index(l, at, row);
    if (l.workspace == nullptr) {
      out = query_row(l, at, l.args.out, l.args.out_strides, row);
      partial = nullptr;
      log_sum = l.args.log_sum != nullptr ? l.args.log_sum + index : nullptr;
    } else {
      const int64_t all = l.args.batch * l.args.heads * l.args.queries, n = at.split * all + index;
      out = nullptr;
      partial = l.workspace + n * l.args.dim;
      log_sum = l.workspace + l.splits * all * l.args.dim + n;
    }
  }
  __device__ void write_pair(int column, float x, float y) const {
    if (partial != nullptr)
      store_pair(partial + column, x, y);
    else
      store_pair(out + column, x, y);
  }
  __device__ void write(int column, float x) const {
    if (partial != nullptr)
      store(partial + column, x);
    else
      store(out + column, x);
  }
};

__device__ float log_of_sum(float top, float sum) { return sum == 0.f ? -INFINITY : top + log2f(sum); }
__device__ float inverse_of_sum(float sum) { return sum == 0.f ? 0.f : 1.f / sum; }
/// What scores are measured from: nothing seen yet must not make -inf - -inf.
__device__ float base_of(float top) { return top == -INFINITY ? 0.f : top; }

// ---- Rows of codes, decoded on the way into shared memory.
__device__ float half_value(uint16_t bits) {
  const unsigned magnitude = bits & 0x7fffu, sign = (bits & 0x8000u) << 16;
  // The exponent's bias is 112 more in fp32; denormal numbers come out right as well.
  const float value = magnitude >= 0x7c00u ? __uint_as_float(0x7f800000u | (magnitude & 0x3ffu) << 13)
                                           : __uint_as_float(magnitude << 13) * 0x1p112f;
  return __uint_as_float(__float_as_uint(value) | sign);
}

template <int kBits, int kDim, int kKeys, int kThreads>
__device__ void decode_rows(uint4* tile, const QuantisedRows& from, const AttentionPlace& at, int key,
                            int count) {
  constexpr int kChunks = kDim / 8;
  const int chunk = threadIdx.x % kChunks;
  for (int row = threadIdx.x / kChunks; row < kKeys; row += kThreads / kChunks) {
    uint4 values = make_uint4(0, 0, 0, 0);
    if (row < count) {
      const uint8_t* codes =
          row_at(from.codes, from.strides, at.batch, at.key_head, key + row) + chunk * kBits;
      uint8_t bytes[kBits];
      memcpy(bytes, __builtin_assume_aligned(codes, kBits), kBits);
      const int scale = from.scale_row != nullptr ? from.scale_row[key + row] : key + row;
      const uint16_t* lows = row_at(from.low, from.scale_strides, at.batch, at.key_head, scale);
      const uint16_t* steps = row_at(from.step, from.scale_strides, at.batch, at.key_head, scale);
      // Two channels in a word, or the one of all channels twice.
      uint4 low = make_uint4(*lows * 0x10001u, 0, 0, 0), step = make_uint4(*steps * 0x10001u, 0, 0, 0);
      low.y = low.z = low.w = low.x, step.y = step.z = step.w = step.x;
      if (from.per_channel) {
        low = *reinterpret_cast<const uint4*>(lows + 8 * chunk);
        step = *reinterpret_cast<const uint4*>(steps + 8 * chunk);
      }
      const uint32_t low_pairs[4] = {low.x, low.y, low.z, low.w},
                     step_pairs[4] = {step.x, step.y, step.z, step.w};
      uint32_t pairs[4];
#pragma unroll
      for (int pair = 0; pair < 4; ++pair) {
        float value[2];
#pragma unroll
        for (int side = 0; side < 2; ++side) {
          const int c = 2 * pair + side;
          const int code = kBits == 8 ? bytes[c] : bytes[pair] >> 4 * side & 15;
          // Rounded as the product and the sum by themselves: the values of a store that is read whole.
          value[side] = __fadd_rn(__fmul_rn(static_cast<float>(code),
                                            half_value(static_cast<uint16_t>(step_pairs[pair] >> 16 * side))),
                                  half_value(static_cast<uint16_t>(low_pairs[pair] >> 16 * side)));
        }
        pairs[pair] = bf16_pair(value[0], value[1]);
      }
      values = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
    }
    tile[chunk_at<kDim>(row, chunk)] = values;
  }
}

/// Brings a tile of the part's keys or values, decoded now or copied later.
template <bool kCodes, int kDim, int kKeys, int kThreads>
__device__ void load_keys(uint4* tile, const AttentionPart<Bf16>& part, bool values, const AttentionPlace& at,
                          int key, int count) {
  if (kCodes && part.bits == 8) {
    decode_rows<8, kDim, kKeys, kThreads>(tile, values ? part.v_codes : part.k_codes, at, key, count);
  } else if (kCodes && part.bits == 4) {
    decode_rows<4, kDim, kKeys, kThreads>(tile, values ? part.v_codes : part.k_codes, at, key, count);
  } else {
    const RowStrides& strides = values ? part.v_strides : part.k_strides;
    const Bf16* first = row_at(values ? part.v : part.k, strides, at.batch, at.key_head, key);
    load_rows<kDim, kKeys, kThreads>(tile, count, [&](int row) { return first + row * strides.row; });
  }
}

// ---- On tensor cores: kWarpsM groups of 16 kTilesM rows, the keys of a tile shared out among kWarpsN warps.
template <int kDim, int kTilesM, int kWarpsM, int kWarpsN>
struct Shape {
  static constexpr int kThreads = 32 * kWarpsM * kWarpsN;
  static constexpr int kRows = 16 * kTilesM * kWarpsM;
  static constexpr int kKeys = kTilesM * kDim > 128 ? 32 : 64;  // what the registers hold of the scores
  static constexpr int kWarpKeys = kKeys / kWarpsN;
  static constexpr int kQueryChunks = kRows * kPitch<kDim>, kKeyChunks = kKeys * kPitch<kDim>;
  static constexpr size_t kBytes = (kQueryChunks + 2 * kKeyChunks) * sizeof(uint4) +
                                   (kKeys + kRows + (kWarpsN > 1 ? 2 * kWarpsN * kRows : 0)) * sizeof(float);
};

// kCodes: some of the parts are codes; without it the registers that decoding takes are free.
template <bool kCodes, int kDim, int kTilesM, int kWarpsM, int kWarpsN>
__global__ void __launch_bounds__(32 * kWarpsM * kWarpsN, kWarpsN > 1 && !kCodes ? 4 : 2)
    forward_on_tensor_cores(const __grid_constant__ AttentionLaunch<Bf16> l) {
  using S = Shape<kDim, kTilesM, kWarpsM, kWarpsN>;
  constexpr int kColumns = kDim / 8, kKeys = S::kKeys, kScores = S::kWarpKeys / 8;
  SHARED_DYNAMIC(q_tile, uint4);
  uint4* k_tile = q_tile + S::kQueryChunks;
  uint4* v_tile = k_tile + S::kKeyChunks;
  float* masses = reinterpret_cast<float*>(v_tile + S::kKeyChunks);
  int* queries_from_last = reinterpret_cast<int*>(masses + kKeys);  // of each row; no division in the loop
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int warp_m = warp % kWarpsM, warp_n = warp / kWarpsM;
  const int row_in_block = warp_m * 16 * kTilesM, first_key = warp_n * S::kWarpKeys;
  // Where the block works is kept in shared memory: the loop has no registers to spare for it.
  SHARED(at, AttentionPlace);
  if (threadIdx.x == 0) {
    const AttentionPlace place = place_of_block(l, S::kRows);
    at.batch = place.batch, at.head = place.head, at.key_head = place.key_head;
    at.row = place.row, at.split = place.split;
  }
  __syncthreads();
  const float scale = l.args.scale * kLog2E;
  const auto rows_left = [&] { return min(S::kRows, l.rows - at.row); };

  TileWalk<Bf16, kKeys> walk(l, at, at.row + rows_left() - 1);
  load_rows<kDim, S::kRows, S::kThreads>(q_tile, rows_left(), [&](int row) {
    return query_row(l, at, l.args.q, l.args.q_strides, at.row + row);
  });
  const auto load_next_keys = [&] {
    if (walk.tiles == 0) return;
    const AttentionPart<Bf16>& part = l.args.parts[walk.part];
    load_keys<kCodes, kDim, kKeys, S::kThreads>(k_tile, part, false, at, walk.key, walk.keys - walk.key);
    const int i = static_cast<int>(threadIdx.x);
    if (i < kKeys) {
      const bool exists = part.beta != nullptr && walk.key + i < walk.keys;
      copy_async_or_zeros(&masses[i], exists ? beta_at(part, at, walk.key + i) : &l.args.scale, exists);
    }
  };
  load_next_keys();
  for (int i = static_cast<int>(threadIdx.x); i < S::kRows; i += S::kThreads)
    queries_from_last[i] = static_cast<int>(l.args.queries) - 1 - (at.row + min(i, rows_left() - 1)) / l.pack;

  float out[kTilesM][kColumns][4] = {}, top[kTilesM][2], sum[kTilesM][2] = {};
  for (int i = 0; i < kTilesM; ++i) top[i][0] = top[i][1] = -INFINITY;

  while (walk.tiles > 0) {
    const AttentionPart<Bf16>& part = l.args.parts[walk.part];
    const int key = walk.key, keys = walk.keys;
    copy_async_wait();
    __syncthreads();  // The keys are here, and the values before them are no longer read.
    load_keys<kCodes, kDim, kKeys, S::kThreads>(v_tile, part, true, at, key, keys - key);

    float score[kTilesM][kScores][4] = {};
    const bool active = row_in_block < rows_left();
    if (active) {
#pragma unroll
      for (int c = 0; c < kColumns; c += 2) {
        uint32_t a[kTilesM][4];
#pragma unroll
        for (int i = 0; i < kTilesM; ++i) load_a<kDim>(a[i], q_tile, row_in_block + 16 * i, c);
#pragma unroll
        for (int j = 0; j < kScores; j += 2) {
          uint32_t b[4];
          load_b<kDim>(b, k_tile, first_key + 8 * j, c);
#pragma unroll
          for (int i = 0; i < kTilesM; ++i) {
            mma_m16n8k16(score[i][j], a[i], b[0], b[1]);
            mma_m16n8k16(score[i][j + 1], a[i], b[2], b[3]);
          }
        }
      }
#pragma unroll
      for (int j = 0; j < kScores; ++j) {
#pragma unroll
        for (int side = 0; side < 2; ++side) {
          const float mass = masses[first_key + 8 * j + lane % 4 * 2 + side] * kLog2E;
#pragma unroll
          for (int i = 0; i < kTilesM; ++i) {
            score[i][j][side] = fmaf(score[i][j][side], scale, mass);
            score[i][j][2 + side] = fmaf(score[i][j][2 + side], scale, mass);
          }
        }
      }
    }
    walk.advance();
    copy_async_wait();
    __syncthreads();  // The values are here, and the keys are no longer read.
    load_next_keys();
    if (!active) continue;

    // The first row sees the fewest keys.
    if (key + kKeys > keys - (part.causal ? queries_from_last[0] : 0)) {
#pragma unroll
      for (int i = 0; i < kTilesM; ++i) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int row = row_in_block + 16 * i + 8 * half + lane / 4;
          const int seen =
              keys - (part.causal ? queries_from_last[row] : 0) - (key + first_key + lane % 4 * 2);
#pragma unroll
          for (int j = 0; j < kScores; ++j) {
            if (8 * j >= seen) score[i][j][2 * half] = -INFINITY;
            if (8 * j + 1 >= seen) score[i][j][2 * half + 1] = -INFINITY;
          }
        }
      }
    }
    float base[kTilesM][2];
#pragma unroll
    for (int i = 0; i < kTilesM; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float most = top[i][half];
#pragma unroll
        for (int j = 0; j < kScores; ++j)
          most = fmaxf(most, fmaxf(score[i][j][2 * half], score[i][j][2 * half + 1]));
        most = quad_max(most);
        base[i][half] = base_of(most);
        const float shrink = exp2_fast(top[i][half] - base[i][half]);
        top[i][half] = most;
        sum[i][half] *= shrink;
#pragma unroll
        for (int c = 0; c < kColumns; ++c) {
          out[i][c][2 * half] *= shrink;
          out[i][c][2 * half + 1] *= shrink;
        }
      }
    }
#pragma unroll
    for (int j = 0; j < kScores; j += 2) {
      uint32_t a[kTilesM][4];
#pragma unroll
      for (int i = 0; i < kTilesM; ++i) {
#pragma unroll
        for (int n = 0; n < 8; ++n) {
          float& s = score[i][j + n / 4][n % 4];
          s = exp2_fast(s - base[i][n % 4 / 2]);
          sum[i][n % 4 / 2] += s;
        }
        operand_of(a[i], score[i][j], score[i][j + 1]);
      }
#pragma unroll
      for (int c = 0; c < kColumns; c += 2) {
        uint32_t b[4];
        load_b_by_rows<kDim>(b, v_tile, first_key + 8 * j, c);
#pragma unroll
        for (int i = 0; i < kTilesM; ++i) {
          mma_m16n8k16(out[i][c], a[i], b[0], b[1]);
          mma_m16n8k16(out[i][c + 1], a[i], b[2], b[3]);
        }
      }
    }
  }

#pragma unroll
  for (int i = 0; i < kTilesM; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) sum[i][half] = quad_sum(sum[i][half]);
  }
  if constexpr (kWarpsN == 1) {
#pragma unroll
    for (int i = 0; i < kTilesM; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = row_in_block + 16 * i + 8 * half + lane / 4;
        if (row >= rows_left()) continue;
        const RowResult<Bf16> to(l, at, at.row + row);
        const float inverse = inverse_of_sum(sum[i][half]);
#pragma unroll
        for (int c = 0; c < kColumns; ++c)
          to.write_pair(8 * c + lane % 4 * 2, out[i][c][2 * half] * inverse,
                        out[i][c][2 * half + 1] * inverse);
        if (lane % 4 == 0 && to.log_sum != nullptr) *to.log_sum = log_of_sum(top[i][half], sum[i][half]);
      }
    }
  } else {
    // Every warp has seen keys of its own: bring all to one base and add up, in place of keys and values.
    static_assert(kTilesM == 1 && kWarpsM == 1 &&
                  16 * kWarpsN * kDim * sizeof(float) <= 2 * S::kKeyChunks * sizeof(uint4));
    float* tops = masses + kKeys + S::kRows;
    float* sums = tops + kWarpsN * S::kRows;
    float* outs = reinterpret_cast<float*>(k_tile);  // [kWarpsN][16][kDim]
    if (lane % 4 == 0) {
      for (int half = 0; half < 2; ++half) {
        tops[warp * 16 + 8 * half + lane / 4] = top[0][half];
        sums[warp * 16 + 8 * half + lane / 4] = sum[0][half];
      }
    }
    __syncthreads();  // All tiles have been read as well.
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = 8 * half + lane / 4;
      float most = -INFINITY;
      for (int w = 0; w < kWarpsN; ++w) most = fmaxf(most, tops[w * 16 + row]);
      const float shrink = exp2_fast(top[0][half] - base_of(most));
#pragma unroll
      for (int c = 0; c < kColumns; ++c)
        store_pair(&outs[(warp * 16 + row) * kDim + 8 * c + lane % 4 * 2], out[0][c][2 * half] * shrink,
                   out[0][c][2 * half + 1] * shrink);
    }
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < 16 * kDim / 2; i += S::kThreads) {
      const int row = i / (kDim / 2), column = i % (kDim / 2) * 2;
      if (row >= rows_left()) break;
      float most = -INFINITY, all = 0.f, x = 0.f, y = 0.f;
      for (int w = 0; w < kWarpsN; ++w) most = fmaxf(most, tops[w * 16 + row]);
      for (int w = 0; w < kWarpsN; ++w) {
        all += sums[w * 16 + row] * exp2_fast(tops[w * 16 + row] - base_of(most));
        x += outs[(w * 16 + row) * kDim + column];
        y += outs[(w * 16 + row) * kDim + column + 1];
      }
      const RowResult<Bf16> to(l, at, at.row + row);
      to.write_pair(column, x * inverse_of_sum(all), y * inverse_of_sum(all));
      if (column == 0 && to.log_sum != nullptr) *to.log_sum = log_of_sum(most, all);
    }
  }
}

// ---- Without: 4 warps of 4 rows each; a lane owns a key of the tile for the scores and every 32nd column.
template <int kPad>
constexpr size_t kPlainBytes = (kPlainKeys * (2 * kPad + 1) + kPlainRows * kPad) * sizeof(float);

template <class T, int kPad>
__global__ void __launch_bounds__(128) forward_plain(const __grid_constant__ AttentionLaunch<T> l) {
  constexpr int kThreads = 128, kOwn = 4, kColumns = kPad / 32;
  SHARED_DYNAMIC(k_tile, float);  // rows are kPad + 1 apart: a column of keys lies in all the banks
  float* v_tile = k_tile + kPlainKeys * (kPad + 1);
  float* q_tile = v_tile + kPlainKeys * kPad;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, dim = static_cast<int>(l.args.dim);
  const AttentionPlace at = place_of_block(l, kPlainRows);
  const int last_row = min(at.row + kPlainRows, l.rows) - 1;
  const float scale = l.args.scale * kLog2E;
  for (int i = static_cast<int>(threadIdx.x); i < kPlainRows * dim; i += kThreads) {
    const int row = min(at.row + i / dim, last_row);
    q_tile[i / dim * kPad + i % dim] = to_float(query_row(l, at, l.args.q, l.args.q_strides, row)[i % dim]);
  }
  float out[kOwn][kColumns] = {}, top[kOwn], sum[kOwn] = {};
  for (int i = 0; i < kOwn; ++i) top[i] = -INFINITY;

  for (TileWalk<T, kPlainKeys> walk(l, at, last_row); walk.tiles > 0; walk.advance()) {
    const AttentionPart<T>& part = l.args.parts[walk.part];
    const int count = min(kPlainKeys, walk.keys - walk.key);
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < count * dim; i += kThreads) {
      const int row = i / dim, column = i % dim;
      k_tile[row * (kPad + 1) + column] =
          to_float(row_at(part.k, part.k_strides, at.batch, at.key_head, walk.key + row)[column]);
      v_tile[row * kPad + column] =
          to_float(row_at(part.v, part.v_strides, at.batch, at.key_head, walk.key + row)[column]);
    }
    __syncthreads();
    float dot[kOwn] = {};
    if (lane < count && at.row + warp * kOwn <= last_row) {
      for (int d = 0; d < dim; ++d) {
        const float k = k_tile[lane * (kPad + 1) + d];
#pragma unroll
        for (int i = 0; i < kOwn; ++i) dot[i] = fmaf(q_tile[(warp * kOwn + i) * kPad + d], k, dot[i]);
      }
    }
    const float mass =
        part.beta != nullptr && lane < count ? *beta_at(part, at, walk.key + lane) * kLog2E : 0.f;
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      const int row = at.row + warp * kOwn + i;
      if (row > last_row) break;
      const int seen = min(keys_seen(l, part, walk.keys, row / l.pack) - walk.key, count);
      const float score = lane < seen ? fmaf(dot[i], scale, mass) : -INFINITY;
      const float most = fmaxf(top[i], warp_max(score)), base = base_of(most);
      const float weight = exp2f(score - base), shrink = exp2f(top[i] - base);
      top[i] = most;
      sum[i] = fmaf(sum[i], shrink, warp_sum(weight));
#pragma unroll
      for (int c = 0; c < kColumns; ++c) out[i][c] *= shrink;
      for (int row_of = 0; row_of < count; ++row_of) {
        const float w = __shfl_sync(0xffffffffu, weight, row_of);
#pragma unroll
        for (int c = 0; c < kColumns; ++c) {
          if (32 * c + lane < dim) out[i][c] = fmaf(w, v_tile[row_of * kPad + 32 * c + lane], out[i][c]);
        }
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    const int row = at.row + warp * kOwn + i;
    if (row > last_row) break;
    const RowResult<T> to(l, at, row);
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      if (32 * c + lane < dim) to.write(32 * c + lane, out[i][c] * inverse_of_sum(sum[i]));
    }
    if (lane == 0 && to.log_sum != nullptr) *to.log_sum = log_of_sum(top[i], sum[i]);
  }
}

/// A warp for each query; a lane takes every 32nd column.
template <class T>
__global__ void __launch_bounds__(128)
    merge_kernel(const float* __restrict__ outs, const float* __restrict__ log_sums, int64_t count, T* out,
                 RowStrides strides, float* log_sum, int64_t heads, int64_t queries, int64_t rows, int dim) {
  const int lane = threadIdx.x % 32;
  for (int64_t row = blockIdx.x * int64_t{4} + threadIdx.x / 32; row < rows; row += gridDim.x * int64_t{4}) {
    float most = -INFINITY, sum = 0.f;
    for (int64_t s = 0; s < count; ++s) most = fmaxf(most, log_sums[s * rows + row]);
    const float base = base_of(most);
    for (int64_t s = 0; s < count; ++s) sum += exp2f(log_sums[s * rows + row] - base);
    const float inverse = inverse_of_sum(sum);
    T* to = out + row / queries / heads * strides.batch + row / queries % heads * strides.head +
            row % queries * strides.row;
    for (int column = lane; column < dim; column += 32) {
      float all = 0.f;
      for (int64_t s = 0; s < count; ++s) {
        const float weight = exp2f(log_sums[s * rows + row] - base);
        if (weight != 0.f) all = fmaf(weight, outs[(s * rows + row) * dim + column], all);
      }
      store(to + column, all * inverse);
    }
    if (lane == 0 && log_sum != nullptr) log_sum[row] = log_of_sum(most, sum);
  }
}

/// Codes are read 8 channels at a time, and so are scales for each channel.
bool on_boundaries(const QuantisedRows& rows, int bits) {
  const auto multiple = [](const void* base, const RowStrides& s, int64_t of, int64_t bytes) {
    return reinterpret_cast<std::uintptr_t>(base) % static_cast<std::uintptr_t>(of * bytes) == 0 &&
           s.batch % of == 0 && s.head % of == 0 && s.row % of == 0;
  };
  return multiple(rows.codes, rows.strides, bits, 1) &&
         (!rows.per_channel ||
          (multiple(rows.low, rows.scale_strides, 8, 2) && multiple(rows.step, rows.scale_strides, 8, 2)));
}

template <class T>
bool has_codes(const Attention<T>& args) {
  bool some = false;
  for (int p = 0; p < args.num_parts; ++p) some |= args.parts[p].bits != 0;
  return some;
}

struct Tiling {
  int rows, keys;         // of the keys, so many that a share of them is worth a block
  int64_t blocks_wanted;  // that fill a card of 132 multiprocessors
};
template <class T>
Tiling tiling_of(const AttentionLaunch<T>& l) {
  if (!on_tensor_cores(l.args)) return {kPlainRows, kPlainKeys, 4 * 132};
  if (l.rows <= kFewRows) return {kFewRows, 64, 4 * 132};
  return {has_codes(l.args) ? 64 : 128, 64, 2 * 132};
}

/// With row_blocks and splits.
template <class T>
AttentionLaunch<T> planned(const Attention<T>& args) {
  AttentionLaunch<T> l = attention_launch(args);
  const Tiling tiling = tiling_of(l);
  l.row_blocks = (l.rows + tiling.rows - 1) / tiling.rows;
  int64_t tiles = 0;
  for (int p = 0; p < args.num_parts; ++p) tiles += (args.parts[p].keys + tiling.keys - 1) / tiling.keys;
  const int64_t blocks = max(int64_t{1}, args.batch * (args.heads / l.pack) * l.row_blocks);
  // Half a card's worth of blocks does better whole than in halves that are put together again.
  int64_t splits = min(tiles, tiling.blocks_wanted / blocks);
  if (args.max_splits > 0) splits = min(splits, args.max_splits);
  l.splits = static_cast<int>(max(int64_t{1}, splits));
  return l;
}

template <class T, int kPad>
void launch_plain(const AttentionLaunch<T>& l, dim3 grid, cudaStream_t stream) {
  launch(forward_plain<T, kPad>, grid, dim3(128), kPlainBytes<kPad>, stream, l);
}
template <bool kCodes, int kDim, int kTilesM, int kWarpsM, int kWarpsN>
void launch_shape(const AttentionLaunch<Bf16>& l, dim3 grid, cudaStream_t stream) {
  using S = Shape<kDim, kTilesM, kWarpsM, kWarpsN>;
  launch(forward_on_tensor_cores<kCodes, kDim, kTilesM, kWarpsM, kWarpsN>, grid, dim3(S::kThreads), S::kBytes,
         stream, l);
}
template <int kDim>
void launch_on_tensor_cores(const AttentionLaunch<Bf16>& l, dim3 grid, cudaStream_t stream) {
  const bool few = l.rows <= kFewRows;
  if (has_codes(l.args))
    few ? launch_shape<true, kDim, 1, 1, 4>(l, grid, stream)
        : launch_shape<true, kDim, 1, 4, 1>(l, grid, stream);
  else
    few ? launch_shape<false, kDim, 1, 1, 4>(l, grid, stream)
        : launch_shape<false, kDim, 2, 4, 1>(l, grid, stream);
}

}  // namespace

template <class T>
bool attention_reads_codes(const Attention<T>& args) {
  bool reads = on_tensor_cores(args);
  for (int p = 0; p < args.num_parts; ++p) {
    const AttentionPart<T>& part = args.parts[p];
    reads &=
        part.bits == 0 || (on_boundaries(part.k_codes, part.bits) && on_boundaries(part.v_codes, part.bits));
  }
  return reads;
}

template <class T>
int64_t attention_shares(const Attention<T>& args) {
  return planned(args).splits;
}

template <class T>
int64_t attention_workspace(const Attention<T>& args) {
  const int64_t splits = attention_shares(args);
  return splits == 1 ? 0 : splits * args.batch * args.heads * args.queries * (args.dim + 1);
}

template <class T>
void attention_forward(const Attention<T>& args, float* workspace, void* stream) {
  const int64_t shares = attention_shares(args), rows = args.batch * args.heads * args.queries;
  attention_shares_forward(args, shares > 1 ? workspace : nullptr, stream);
  if (shares > 1)
    attention_merge<T>(workspace, workspace + shares * rows * args.dim, shares, args.out, args.out_strides,
                       args.log_sum, args.batch, args.heads, args.queries, args.dim, stream);
}

template <class T>
void attention_shares_forward(const Attention<T>& args, float* workspace, void* stream) {
  if (args.batch == 0 || args.queries == 0) return;
  AttentionLaunch<T> l = planned(args);
  l.workspace = workspace;
  const auto to = static_cast<cudaStream_t>(stream);
  const dim3 grid = blocks_in_a_row(args.batch * (args.heads / l.pack) * l.splits * l.row_blocks);
  FOCUS_CHECK(!has_codes(args) || attention_reads_codes(args),
              "attention's codes need tensor cores, and rows and scales on boundaries of 8 channels");
  bool launched = false;
  if constexpr (sizeof(T) == sizeof(Bf16)) {
    if (on_tensor_cores(args)) {
      args.dim == 64 ? launch_on_tensor_cores<64>(l, grid, to) : launch_on_tensor_cores<128>(l, grid, to);
      launched = true;
    }
  }
  if (!launched) {
    if (args.dim <= 32)
      launch_plain<T, 32>(l, grid, to);
    else if (args.dim <= 128)
      launch_plain<T, 128>(l, grid, to);
    else
      launch_plain<T, 256>(l, grid, to);
  }
  check_launch("attention_forward");
}

template <class T>
void attention_merge(const float* outs, const float* log_sums, int64_t count, T* out,
                     const RowStrides& out_strides, float* log_sum, int64_t batch, int64_t heads,
                     int64_t queries, int64_t dim, void* stream) {
  const int64_t rows = batch * heads * queries;
  if (rows == 0) return;
  const dim3 grid(static_cast<unsigned>(min((rows + 3) / 4, kAttentionMaxBlocks)));
  launch(merge_kernel<T>, grid, dim3(128), 0, static_cast<cudaStream_t>(stream), outs, log_sums, count, out,
         out_strides, log_sum, heads, queries, rows, static_cast<int>(dim));
  check_launch("attention_merge");
}

template bool attention_reads_codes(const Attention<float>&);
template bool attention_reads_codes(const Attention<Bf16>&);
template int64_t attention_shares(const Attention<float>&);
template int64_t attention_shares(const Attention<Bf16>&);
template void attention_shares_forward(const Attention<float>&, float*, void*);
template void attention_shares_forward(const Attention<Bf16>&, float*, void*);
template int64_t attention_workspace(const Attention<float>&);
template int64_t attention_workspace(const Attention<Bf16>&);
template void attention_forward(const Attention<float>&, float*, void*);
template void attention_forward(const Attention<Bf16>&, float*, void*);
template void attention_merge(const float*, const float*, int64_t, float*, const RowStrides&, float*, int64_t,
                              int64_t, int64_t, int64_t, void*);
template void attention_merge(const float*, const float*, int64_t, Bf16*, const RowStrides&, float*, int64_t,
                              int64_t, int64_t, int64_t, void*);

}  // namespace focus::kernels::cuda
