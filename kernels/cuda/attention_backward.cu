// Attention backward, from the log-sums of the forward pass: weights are made anew, tile by tile. One kernel
// gathers the gradient of queries over keys, another those of keys, values and masses over queries. One
// kernel for all would save two of the seven products, but its blocks would have to add to each other's
// queries: by atomics, whose order changes the result from run to run, or through an array for every block.
#include "attention_tiles.h"

namespace focus::kernels::cuda {
namespace {

constexpr int kTile = 64;  // rows and keys of a tile on tensor cores: a warp owns 16
constexpr int kThreads = 128;
constexpr int kPlainTile = 32, kPlainOwn = 4;  // without: a warp owns 4 rows or keys
constexpr int kPlainBlock = 4 * kPlainOwn;

/// What makes every weight of a query that saw nothing, or is none, zero: exp2(score - inf).
__device__ float log_sum_or_infinity(float log_sum) { return log_sum == -INFINITY ? INFINITY : log_sum; }

/// delta[q] = sum_e out[q, e] grad[q, e], for each query of [batch, heads, queries].
template <class T>
__global__ void __launch_bounds__(kThreads)
    delta_kernel(const __grid_constant__ Attention<T> a, const __grid_constant__ AttentionGradients<T> g) {
  const int lane = threadIdx.x % 32, dim = static_cast<int>(a.dim);
  const int64_t count = a.batch * a.heads * a.queries;
  for (int64_t n = blockIdx.x * int64_t{4} + threadIdx.x / 32; n < count; n += gridDim.x * int64_t{4}) {
    const int query = static_cast<int>(n % a.queries), head = static_cast<int>(n / a.queries % a.heads),
              batch = static_cast<int>(n / a.queries / a.heads);
    const T* out = row_at<T>(a.out, a.out_strides, batch, head, query);
    const T* grad = row_at<T>(g.grad, g.grad_strides, batch, head, query);
    float sum = 0.f;
    for (int e = lane; e < dim; e += 32) sum = fmaf(to_float(out[e]), to_float(grad[e]), sum);
    sum = warp_sum(sum);
    if (lane == 0) g.workspace[n] = sum;
  }
}

// ---- On tensor cores.
template <int kDim>
constexpr int kTileChunks = kTile * kPitch<kDim>;
template <int kDim>
constexpr size_t kSharedBytes = 4 * kTileChunks<kDim> * sizeof(uint4) + 3 * kTile * sizeof(float);

/// to += rows of the tile `left` (16 from `row`) times rows of the tile `right` (8 kCount from `from`).
template <int kDim, int kCount>
__device__ void multiply(float (&to)[kCount][4], const uint4* left, int row, const uint4* right, int from) {
#pragma unroll
  for (int c = 0; c < kDim / 8; c += 2) {
    uint32_t a[4];
    load_a<kDim>(a, left, row, c);
#pragma unroll
    for (int j = 0; j < kCount; j += 2) {
      uint32_t b[4];
      load_b<kDim>(b, right, from + 8 * j, c);
      mma_m16n8k16(to[j], a, b[0], b[1]);
      mma_m16n8k16(to[j + 1], a, b[2], b[3]);
    }
  }
}

/// to += weights (16 x 8 kCount) times rows of the tile from `from`.
template <int kDim, int kCount>
__device__ void gather(float (&to)[kDim / 8][4], const float (&weights)[kCount][4], const uint4* tile,
                       int from) {
#pragma unroll
  for (int j = 0; j < kCount; j += 2) {
    uint32_t a[4];
    operand_of(a, weights[j], weights[j + 1]);
#pragma unroll
    for (int c = 0; c < kDim / 8; c += 2) {
      uint32_t b[4];
      load_b_by_rows<kDim>(b, tile, from + 8 * j, c);
      mma_m16n8k16(to[c], a, b[0], b[1]);
      mma_m16n8k16(to[c + 1], a, b[2], b[3]);
    }
  }
}

template <int kDim>
__global__ void __launch_bounds__(kThreads, 2)
    queries_on_tensor_cores(const __grid_constant__ AttentionLaunch<Bf16> l,
                            const __grid_constant__ AttentionGradients<Bf16> g) {
  constexpr int kCount = kTile / 8;
  SHARED_DYNAMIC(q_tile, uint4);
  uint4* d_tile = q_tile + kTileChunks<kDim>;
  uint4* k_tile = d_tile + kTileChunks<kDim>;
  uint4* v_tile = k_tile + kTileChunks<kDim>;
  float* masses = reinterpret_cast<float*>(v_tile + kTileChunks<kDim>);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const AttentionPlace at = place_of_block(l, kTile);
  const int count = min(kTile, l.rows - at.row);
  load_rows<kDim, kTile, kThreads>(
      q_tile, count, [&](int row) { return query_row(l, at, l.args.q, l.args.q_strides, at.row + row); });
  load_rows<kDim, kTile, kThreads>(
      d_tile, count, [&](int row) { return query_row(l, at, g.grad, g.grad_strides, at.row + row); });
  float log_sum[2], delta[2];
  int from_last[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = warp * 16 + 8 * half + lane / 4, real = at.row + min(row, count - 1);
    const int64_t index = query_index(l, at, real);
    log_sum[half] = row < count ? log_sum_or_infinity(l.args.log_sum[index]) : INFINITY;
    delta[half] = g.workspace[index];
    from_last[half] = static_cast<int>(l.args.queries) - 1 - real / l.pack;
  }
  const float scale = l.args.scale * kLog2E;
  float dq[kDim / 8][4] = {};

  for (TileWalk<Bf16, kTile> walk(l, at, at.row + count - 1); walk.tiles > 0; walk.advance()) {
    const AttentionPart<Bf16>& part = l.args.parts[walk.part];
    __syncthreads();  // The tile before is no longer read.
    const int there = walk.keys - walk.key;
    const Bf16* k = row_at(part.k, part.k_strides, at.batch, at.key_head, walk.key);
    const Bf16* v = row_at(part.v, part.v_strides, at.batch, at.key_head, walk.key);
    load_rows<kDim, kTile, kThreads>(k_tile, there, [&](int row) { return k + row * part.k_strides.row; });
    load_rows<kDim, kTile, kThreads>(v_tile, there, [&](int row) { return v + row * part.v_strides.row; });
    if (threadIdx.x < kTile) {
      const int i = static_cast<int>(threadIdx.x);
      masses[i] = part.beta != nullptr && i < there ? *beta_at(part, at, walk.key + i) * kLog2E : 0.f;
    }
    copy_async_wait();
    __syncthreads();
    float score[kCount][4] = {}, reach[kCount][4] = {};
    multiply<kDim>(score, q_tile, warp * 16, k_tile, 0);
    multiply<kDim>(reach, d_tile, warp * 16, v_tile, 0);
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        const int key = 8 * j + lane % 4 * 2 + n % 2;
        const bool seen = key < there - (part.causal ? from_last[n / 2] : 0);
        const float weight = seen ? exp2_fast(fmaf(score[j][n], scale, masses[key]) - log_sum[n / 2]) : 0.f;
        score[j][n] = weight * (reach[j][n] - delta[n / 2]);
      }
    }
    gather<kDim>(dq, score, k_tile, 0);
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = warp * 16 + 8 * half + lane / 4;
    if (row >= count) continue;
    Bf16* to = g.q + query_index(l, at, at.row + row) * kDim;
#pragma unroll
    for (int c = 0; c < kDim / 8; ++c)
      store_pair(to + 8 * c + lane % 4 * 2, dq[c][2 * half] * l.args.scale,
                 dq[c][2 * half + 1] * l.args.scale);
  }
}

/// Where a block of keys of one part works.
struct KeyPlace {
  int batch, key_head, key;
};
__device__ inline KeyPlace key_place(int tiles, int heads, int keys_per_block) {
  const int n = static_cast<int>(blockIdx.x);
  return {n / tiles / heads, n / tiles % heads, n % tiles * keys_per_block};
}
/// The first row that sees a key, at the start of a tile of rows.
template <class T>
__device__ int first_row(const AttentionLaunch<T>& l, const AttentionPart<T>& part, int key,
                         int rows_per_tile) {
  if (!part.causal) return 0;
  const int query = max(0, key - static_cast<int>(part.keys) + static_cast<int>(l.args.queries));
  return query * l.pack / rows_per_tile * rows_per_tile;
}

template <int kDim>
__global__ void __launch_bounds__(kThreads, 2)
    keys_on_tensor_cores(const __grid_constant__ AttentionLaunch<Bf16> l,
                         const __grid_constant__ AttentionGradients<Bf16> g, int p, int tiles) {
  constexpr int kColumns = kDim / 8, kRows = 32, kCount = kRows / 8;  // rows whose scores are held at a time
  SHARED_DYNAMIC(q_tile, uint4);
  uint4* d_tile = q_tile + kTileChunks<kDim>;
  uint4* k_tile = d_tile + kTileChunks<kDim>;
  uint4* v_tile = k_tile + kTileChunks<kDim>;
  float* log_sums = reinterpret_cast<float*>(v_tile + kTileChunks<kDim>);
  float* deltas = log_sums + kTile;
  int* from_last = reinterpret_cast<int*>(deltas + kTile);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const AttentionPart<Bf16>& part = l.args.parts[p];
  const int key_heads = static_cast<int>(l.args.key_heads),
            group = static_cast<int>(l.args.heads) / key_heads;
  const KeyPlace place = key_place(tiles, key_heads, kTile);
  const int count = min(kTile, static_cast<int>(part.keys) - place.key);
  const Bf16* k = row_at(part.k, part.k_strides, place.batch, place.key_head, place.key);
  const Bf16* v = row_at(part.v, part.v_strides, place.batch, place.key_head, place.key);
  load_rows<kDim, kTile, kThreads>(k_tile, count, [&](int row) { return k + row * part.k_strides.row; });
  load_rows<kDim, kTile, kThreads>(v_tile, count, [&](int row) { return v + row * part.v_strides.row; });
  const float scale = l.args.scale * kLog2E;
  float dk[kColumns][4] = {}, dv[kColumns][4] = {}, dbeta[2] = {};

  for (int head = place.key_head * group; head < (place.key_head + 1) * group; head += l.pack) {
    float mass[2] = {};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int key = warp * 16 + 8 * half + lane / 4;
      const AttentionPlace at{place.batch, head, place.key_head, 0, 0};
      if (part.beta != nullptr && key < count) mass[half] = *beta_at(part, at, place.key + key) * kLog2E;
    }
    for (int row0 = first_row(l, part, place.key, kTile); row0 < l.rows; row0 += kTile) {
      const AttentionPlace at{place.batch, head, place.key_head, row0, 0};
      const int rows = min(kTile, l.rows - row0);
      __syncthreads();  // The rows before are no longer read.
      load_rows<kDim, kTile, kThreads>(
          q_tile, rows, [&](int row) { return query_row(l, at, l.args.q, l.args.q_strides, row0 + row); });
      load_rows<kDim, kTile, kThreads>(
          d_tile, rows, [&](int row) { return query_row(l, at, g.grad, g.grad_strides, row0 + row); });
      if (threadIdx.x < kTile) {
        const int i = static_cast<int>(threadIdx.x), real = row0 + min(i, rows - 1);
        const int64_t index = query_index(l, at, real);
        log_sums[i] = i < rows ? log_sum_or_infinity(l.args.log_sum[index]) : INFINITY;
        deltas[i] = g.workspace[index];
        from_last[i] = static_cast<int>(l.args.queries) - 1 - real / l.pack;
      }
      copy_async_wait();
      __syncthreads();
#pragma unroll 1
      for (int from = 0; from < kTile; from += kRows) {
        float weight[kCount][4] = {}, reach[kCount][4] = {};
        multiply<kDim>(weight, k_tile, warp * 16, q_tile, from);
        multiply<kDim>(reach, v_tile, warp * 16, d_tile, from);
#pragma unroll
        for (int j = 0; j < kCount; ++j) {
#pragma unroll
          for (int n = 0; n < 4; ++n) {
            const int row = from + 8 * j + lane % 4 * 2 + n % 2, key = warp * 16 + 8 * (n / 2) + lane / 4;
            const int seen = static_cast<int>(part.keys) - place.key - (part.causal ? from_last[row] : 0);
            weight[j][n] =
                key < seen ? exp2_fast(fmaf(weight[j][n], scale, mass[n / 2]) - log_sums[row]) : 0.f;
            reach[j][n] = weight[j][n] * (reach[j][n] - deltas[row]);
            dbeta[n / 2] += reach[j][n];
          }
        }
        gather<kDim>(dv, weight, d_tile, from);
        gather<kDim>(dk, reach, q_tile, from);
      }
    }
    const bool last = head + l.pack == (place.key_head + 1) * group;
    if (g.beta[p] != nullptr && (part.beta_per_query_head || last)) {
      const int64_t heads = part.beta_per_query_head ? l.args.heads : key_heads,
                    of = part.beta_per_query_head ? head : place.key_head;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int key = warp * 16 + 8 * half + lane / 4;
        const float sum = quad_sum(dbeta[half]);
        if (lane % 4 == 0 && key < count)
          g.beta[p][(place.batch * heads + of) * part.keys + place.key + key] = sum;
        dbeta[half] = 0.f;
      }
    }
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int key = warp * 16 + 8 * half + lane / 4;
    if (key >= count) continue;
    const int64_t row = (int64_t{place.batch} * key_heads + place.key_head) * part.keys + place.key + key;
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      const int64_t to = row * kDim + 8 * c + lane % 4 * 2;
      if (g.k[p] != nullptr)
        store_pair(g.k[p] + to, dk[c][2 * half] * l.args.scale, dk[c][2 * half + 1] * l.args.scale);
      if (g.v[p] != nullptr) store_pair(g.v[p] + to, dv[c][2 * half], dv[c][2 * half + 1]);
    }
  }
}

// ---- Without: a lane owns a row of the tile for the scores and every 32nd column of the results.
template <int kPad>
constexpr size_t kPlainBytes = 2 * (kPlainTile * (kPad + 1) + kPlainBlock * kPad) * sizeof(float);

/// Four tiles of fp32 rows: two of kPlainTile rows kPad + 1 apart, two of kPlainBlock rows kPad apart.
template <int kPad>
struct PlainTiles {
  float *first, *second, *own_first, *own_second;
  __device__ explicit PlainTiles(float* shared)
      : first(shared),
        second(first + kPlainTile * (kPad + 1)),
        own_first(second + kPlainTile * (kPad + 1)),
        own_second(own_first + kPlainBlock * kPad) {}
};

/// Rows 0 .. count - 1 of two arrays of the same shape.
template <class RowOfA, class RowOfB>
__device__ void load_plain(float* a, float* b, int pitch, int count, int dim, const RowOfA& row_of_a,
                           const RowOfB& row_of_b) {
  for (int i = static_cast<int>(threadIdx.x); i < count * dim; i += kThreads) {
    const int row = i / dim, column = i % dim;
    a[row * pitch + column] = to_float(row_of_a(row)[column]);
    b[row * pitch + column] = to_float(row_of_b(row)[column]);
  }
}

template <class T, int kPad>
__global__ void __launch_bounds__(kThreads) queries_plain(const __grid_constant__ AttentionLaunch<T> l,
                                                          const __grid_constant__ AttentionGradients<T> g) {
  constexpr int kColumns = kPad / 32;
  SHARED_DYNAMIC(shared, float);
  const PlainTiles<kPad> tiles(shared);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, dim = static_cast<int>(l.args.dim);
  const AttentionPlace at = place_of_block(l, kPlainBlock);
  const int count = min(kPlainBlock, l.rows - at.row);
  load_plain(
      tiles.own_first, tiles.own_second, kPad, count, dim,
      [&](int row) { return query_row(l, at, l.args.q, l.args.q_strides, at.row + row); },
      [&](int row) { return query_row(l, at, g.grad, g.grad_strides, at.row + row); });
  const float scale = l.args.scale * kLog2E;
  float dq[kPlainOwn][kColumns] = {};

  for (TileWalk<T, kPlainTile> walk(l, at, at.row + count - 1); walk.tiles > 0; walk.advance()) {
    const AttentionPart<T>& part = l.args.parts[walk.part];
    const int keys = min(kPlainTile, walk.keys - walk.key);
    __syncthreads();
    load_plain(
        tiles.first, tiles.second, kPad + 1, keys, dim,
        [&](int row) { return row_at(part.k, part.k_strides, at.batch, at.key_head, walk.key + row); },
        [&](int row) { return row_at(part.v, part.v_strides, at.batch, at.key_head, walk.key + row); });
    __syncthreads();
    const float mass =
        part.beta != nullptr && lane < keys ? *beta_at(part, at, walk.key + lane) * kLog2E : 0.f;
#pragma unroll
    for (int i = 0; i < kPlainOwn; ++i) {
      const int row = warp * kPlainOwn + i;
      if (row >= count) break;
      const int64_t index = query_index(l, at, at.row + row);
      float grad_score = 0.f;
      if (lane < min(keys, keys_seen(l, part, walk.keys, (at.row + row) / l.pack) - walk.key)) {
        float score = 0.f, reach = 0.f;
        for (int d = 0; d < dim; ++d) {
          score = fmaf(tiles.own_first[row * kPad + d], tiles.first[lane * (kPad + 1) + d], score);
          reach = fmaf(tiles.own_second[row * kPad + d], tiles.second[lane * (kPad + 1) + d], reach);
        }
        const float weight = exp2f(fmaf(score, scale, mass) - log_sum_or_infinity(l.args.log_sum[index]));
        grad_score = weight * (reach - g.workspace[index]);
      }
      for (int key = 0; key < keys; ++key) {
        const float w = __shfl_sync(0xffffffffu, grad_score, key);
#pragma unroll
        for (int c = 0; c < kColumns; ++c) {
          if (32 * c + lane < dim)
            dq[i][c] = fmaf(w, tiles.first[key * (kPad + 1) + 32 * c + lane], dq[i][c]);
        }
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kPlainOwn; ++i) {
    const int row = warp * kPlainOwn + i;
    if (row >= count) break;
    T* to = g.q + query_index(l, at, at.row + row) * dim;
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      if (32 * c + lane < dim) store(to + 32 * c + lane, dq[i][c] * l.args.scale);
    }
  }
}

template <class T, int kPad>
__global__ void __launch_bounds__(kThreads)
    keys_plain(const __grid_constant__ AttentionLaunch<T> l, const __grid_constant__ AttentionGradients<T> g,
               int p, int blocks) {
  constexpr int kColumns = kPad / 32;
  SHARED_DYNAMIC(shared, float);
  const PlainTiles<kPad> tiles(shared);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, dim = static_cast<int>(l.args.dim);
  const AttentionPart<T>& part = l.args.parts[p];
  const int key_heads = static_cast<int>(l.args.key_heads),
            group = static_cast<int>(l.args.heads) / key_heads;
  const KeyPlace place = key_place(blocks, key_heads, kPlainBlock);
  const int keys = static_cast<int>(part.keys), count = min(kPlainBlock, keys - place.key);
  load_plain(
      tiles.own_first, tiles.own_second, kPad, count, dim,
      [&](int row) { return row_at(part.k, part.k_strides, place.batch, place.key_head, place.key + row); },
      [&](int row) { return row_at(part.v, part.v_strides, place.batch, place.key_head, place.key + row); });
  const float scale = l.args.scale * kLog2E;
  float dk[kPlainOwn][kColumns] = {}, dv[kPlainOwn][kColumns] = {}, dbeta[kPlainOwn] = {};

  for (int head = place.key_head * group; head < (place.key_head + 1) * group; head += l.pack) {
    for (int row0 = first_row(l, part, place.key, kPlainTile); row0 < l.rows; row0 += kPlainTile) {
      const AttentionPlace at{place.batch, head, place.key_head, row0, 0};
      const int rows = min(kPlainTile, l.rows - row0);
      __syncthreads();
      load_plain(
          tiles.first, tiles.second, kPad + 1, rows, dim,
          [&](int row) { return query_row(l, at, l.args.q, l.args.q_strides, row0 + row); },
          [&](int row) { return query_row(l, at, g.grad, g.grad_strides, row0 + row); });
      __syncthreads();
      const int row = row0 + min(lane, rows - 1);
      const int64_t index = query_index(l, at, row);
      const float log_sum = log_sum_or_infinity(l.args.log_sum[index]), delta = g.workspace[index];
      const int seen = lane < rows ? keys_seen(l, part, keys, row / l.pack) : 0;
#pragma unroll
      for (int i = 0; i < kPlainOwn; ++i) {
        const int key = warp * kPlainOwn + i;
        if (key >= count) break;
        float weight = 0.f, grad_score = 0.f;
        if (place.key + key < seen) {
          float score = 0.f, reach = 0.f;
          for (int d = 0; d < dim; ++d) {
            score = fmaf(tiles.own_first[key * kPad + d], tiles.first[lane * (kPad + 1) + d], score);
            reach = fmaf(tiles.own_second[key * kPad + d], tiles.second[lane * (kPad + 1) + d], reach);
          }
          const float mass = part.beta != nullptr ? *beta_at(part, at, place.key + key) * kLog2E : 0.f;
          weight = exp2f(fmaf(score, scale, mass) - log_sum);
          grad_score = weight * (reach - delta);
        }
        dbeta[i] += warp_sum(grad_score);
        for (int r = 0; r < rows; ++r) {
          const float w = __shfl_sync(0xffffffffu, weight, r), s = __shfl_sync(0xffffffffu, grad_score, r);
#pragma unroll
          for (int c = 0; c < kColumns; ++c) {
            const int column = 32 * c + lane;
            if (column >= dim) continue;
            dk[i][c] = fmaf(s, tiles.first[r * (kPad + 1) + column], dk[i][c]);
            dv[i][c] = fmaf(w, tiles.second[r * (kPad + 1) + column], dv[i][c]);
          }
        }
      }
    }
    const bool last = head + l.pack == (place.key_head + 1) * group;
    if (g.beta[p] != nullptr && (part.beta_per_query_head || last)) {
      const int64_t heads = part.beta_per_query_head ? l.args.heads : key_heads,
                    of = part.beta_per_query_head ? head : place.key_head;
#pragma unroll
      for (int i = 0; i < kPlainOwn; ++i) {
        const int key = warp * kPlainOwn + i;
        if (lane == 0 && key < count)
          g.beta[p][(place.batch * heads + of) * part.keys + place.key + key] = dbeta[i];
        dbeta[i] = 0.f;
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kPlainOwn; ++i) {
    const int key = warp * kPlainOwn + i;
    if (key >= count) break;
    const int64_t row = (int64_t{place.batch} * key_heads + place.key_head) * part.keys + place.key + key;
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      const int column = 32 * c + lane;
      if (column >= dim) continue;
      if (g.k[p] != nullptr) store(g.k[p] + row * dim + column, dk[i][c] * l.args.scale);
      if (g.v[p] != nullptr) store(g.v[p] + row * dim + column, dv[i][c]);
    }
  }
}

/// Both kernels, of which the first takes `rows` rows to a block and the second as many keys.
template <class T>
void run(AttentionLaunch<T> l, const AttentionGradients<T>& g, int rows, size_t shared_bytes,
         void (*queries)(AttentionLaunch<T>, AttentionGradients<T>),
         void (*keys)(AttentionLaunch<T>, AttentionGradients<T>, int, int), cudaStream_t stream) {
  const Attention<T>& a = l.args;
  l.row_blocks = (l.rows + rows - 1) / rows;
  if (g.q != nullptr && l.row_blocks > 0)
    launch(queries, blocks_in_a_row(a.batch * (a.heads / l.pack) * l.row_blocks), dim3(kThreads),
           shared_bytes, stream, l, g);
  for (int p = 0; p < a.num_parts; ++p) {
    if (a.parts[p].keys == 0 || (g.k[p] == nullptr && g.v[p] == nullptr && g.beta[p] == nullptr)) continue;
    const int64_t tiles = (a.parts[p].keys + rows - 1) / rows;
    launch(keys, blocks_in_a_row(a.batch * a.key_heads * tiles), dim3(kThreads), shared_bytes, stream, l, g,
           p, static_cast<int>(tiles));
  }
}

template <class T, int kPad>
void run_plain(const AttentionLaunch<T>& l, const AttentionGradients<T>& g, cudaStream_t stream) {
  run<T>(l, g, kPlainBlock, kPlainBytes<kPad>, queries_plain<T, kPad>, keys_plain<T, kPad>, stream);
}
template <int kDim>
void run_on_tensor_cores(const AttentionLaunch<Bf16>& l, const AttentionGradients<Bf16>& g,
                         cudaStream_t stream) {
  run<Bf16>(l, g, kTile, kSharedBytes<kDim>, queries_on_tensor_cores<kDim>, keys_on_tensor_cores<kDim>,
            stream);
}

}  // namespace

template <class T>
void attention_backward(const Attention<T>& args, const AttentionGradients<T>& gradients, void* stream) {
  if (args.batch == 0) return;
  for (int p = 0; p < args.num_parts; ++p)
    FOCUS_CHECK(args.parts[p].bits == 0 && args.parts[p].keys_on_device == nullptr,
                "attention has gradients for plain keys alone");
  const AttentionLaunch<T> l = attention_launch(args);
  const auto to = static_cast<cudaStream_t>(stream);
  const int64_t count = args.batch * args.heads * args.queries;
  if (count > 0)
    launch(delta_kernel<T>, dim3(static_cast<unsigned>(min((count + 3) / 4, kAttentionMaxBlocks))),
           dim3(kThreads), 0, to, args, gradients);
  if constexpr (sizeof(T) == sizeof(Bf16)) {
    if (on_tensor_cores(args) && on_boundaries(gradients.grad, gradients.grad_strides)) {
      args.dim == 64 ? run_on_tensor_cores<64>(l, gradients, to) : run_on_tensor_cores<128>(l, gradients, to);
      return check_launch("attention_backward");
    }
  }
  if (args.dim <= 32)
    run_plain<T, 32>(l, gradients, to);
  else if (args.dim <= 128)
    run_plain<T, 128>(l, gradients, to);
  else
    run_plain<T, 256>(l, gradients, to);
  check_launch("attention_backward");
}

template void attention_backward(const Attention<float>&, const AttentionGradients<float>&, void*);
template void attention_backward(const Attention<Bf16>&, const AttentionGradients<Bf16>&, void*);

}  // namespace focus::kernels::cuda
