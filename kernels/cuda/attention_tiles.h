// What the attention kernels share: which rows and keys a block works on, and tiles in shared memory.
//
// The query heads that share a key head are worked on as rows side by side: row r of a block of `pack` heads
// is query r / pack of head r % pack, so that few queries of grouped heads fill a tile. Where each query head
// has masses of its own, pack is 1. Scores are in units of log2(e): exp(x) is exp2 of them. Numbers of rows
// and keys fit 32 bits (checked on the host), which saves registers; offsets into arrays do not.
#pragma once

#include "focus/kernels/cuda/attention.h"
#include "ptx.h"

namespace focus::kernels::cuda {

inline constexpr float kLog2E = 1.44269504088896340736f;

template <class T>
struct AttentionLaunch {
  Attention<T> args;
  int pack, rows, row_blocks, splits;
  float* workspace;
};

struct AttentionPlace {
  int batch, head, key_head;  // `head` is the first of the block's heads
  int row;                    // the first one
  int split;
};

template <class T>
__device__ AttentionPlace place_of_block(const AttentionLaunch<T>& l, int rows_per_block) {
  const int heads = static_cast<int>(l.args.heads), group = heads / static_cast<int>(l.args.key_heads);
  int n = static_cast<int>(blockIdx.x);
  // Later rows see more of the open keys: the longest work first.
  const int row_block = l.row_blocks - 1 - n % l.row_blocks;
  n /= l.row_blocks;
  const int split = n % l.splits;
  n /= l.splits;
  const int head_blocks = heads / l.pack, head = n % head_blocks * l.pack;
  return {n / head_blocks, head, head / group, row_block * rows_per_block, split};
}

template <class T>
__device__ int keys_of(const AttentionPart<T>& part) {
  return part.keys_on_device != nullptr ? *part.keys_on_device : static_cast<int>(part.keys);
}

/// Keys that a query sees of a part that has `keys`.
template <class T>
__device__ int keys_seen(const AttentionLaunch<T>& l, const AttentionPart<T>& part, int keys, int query) {
  return part.causal ? max(0, keys - static_cast<int>(l.args.queries) + 1 + query) : keys;
}

template <class T>
__device__ const T* row_at(const T* base, const RowStrides& strides, int batch, int head, int row) {
  return base + batch * strides.batch + head * strides.head + row * strides.row;
}

/// Row `row` of the block of heads at `at` in a [batch, heads, queries, dim] array.
template <class T, class Row>
__device__ Row* query_row(const AttentionLaunch<T>& l, const AttentionPlace& at, Row* base,
                          const RowStrides& strides, int row) {
  return base + at.batch * strides.batch + (at.head + row % l.pack) * strides.head +
         row / l.pack * strides.row;
}

/// The same in a contiguous [batch, heads, queries] array.
template <class T>
__device__ int64_t query_index(const AttentionLaunch<T>& l, const AttentionPlace& at, int row) {
  return (at.batch * l.args.heads + at.head + row % l.pack) * l.args.queries + row / l.pack;
}

template <class T>
__device__ const float* beta_at(const AttentionPart<T>& part, const AttentionPlace& at, int key) {
  return row_at(part.beta, part.beta_strides, at.batch, part.beta_per_query_head ? at.head : at.key_head,
                key);
}

/// Walks a block's share of the tiles of kKeys keys, part after part; no tile reaches over a part's end.
template <class T, int kKeys>
class TileWalk {
 public:
  int part = 0;
  int key = 0;    // the first of the tile
  int keys = 0;   // of the part
  int tiles = 0;  // still to come, this one among them

  __device__ TileWalk(const AttentionLaunch<T>& l, const AttentionPlace& at, int last_row)
      : l_(l), last_query_(last_row / l.pack) {
    int all = 0;
    for (int p = 0; p < l.args.num_parts; ++p) enter(p), all += tiles_of(end_);
    int left = static_cast<int>(int64_t{all} * at.split / l.splits);
    tiles = static_cast<int>(int64_t{all} * (at.split + 1) / l.splits) - left;
    if (tiles == 0) return;
    for (enter(0); left >= tiles_of(end_); enter(part + 1)) left -= tiles_of(end_);
    key = left * kKeys;
  }
  __device__ void advance() {
    if (--tiles == 0) return;
    key += kKeys;
    while (key >= end_) enter(part + 1), key = 0;
  }

 private:
  static __device__ int tiles_of(int count) { return (count + kKeys - 1) / kKeys; }
  __device__ void enter(int p) {
    part = p;
    keys = keys_of(l_.args.parts[p]);
    end_ = keys_seen(l_, l_.args.parts[p], keys, last_query_);
  }
  const AttentionLaunch<T>& l_;
  int last_query_;
  int end_ = 0;  // keys of the part that the block's last row sees
};

// ---- Tiles of bf16 rows for the tensor cores: 16-byte chunks, one more to a row than it needs, so that 8
// rows of a column of chunks lie in all the banks. (An exclusive-or in place of the gap costs registers:
// every chunk then has an address of its own.)
template <int kDim>
inline constexpr int kPitch = kDim / 8 + 1;

template <int kDim>
__device__ inline int chunk_at(int row, int chunk) {
  return row * kPitch<kDim> + chunk;
}

/// Starts to copy rows 0 .. kRows - 1, of which the first `count` exist; the others become zeros. from(row)
/// is where a row begins.
template <int kDim, int kRows, int kThreads, class From>
__device__ void load_rows(uint4* tile, int count, const From& from) {
  constexpr int kChunks = kDim / 8, kStep = kThreads / kChunks;
  static_assert(kRows % kStep == 0);
  const int first = threadIdx.x / kChunks, chunk = threadIdx.x % kChunks;
#pragma unroll 2
  for (int i = 0; i < kRows; i += kStep) {
    const int row = first + i;
    const bool exists = row < count;
    copy_async_or_zeros(&tile[chunk_at<kDim>(row, chunk)], from(exists ? row : 0) + chunk * 8, exists);
  }
}

/// Operand a of 16 rows, or two operands b of 8 rows each: a row of a is a row of the tile, a column of b
/// too.
template <int kDim>
__device__ void load_a(uint32_t (&a)[4], const uint4* tile, int row, int chunk) {
  const int lane = threadIdx.x % 32;
  load_matrices<false>(a, &tile[chunk_at<kDim>(row + lane % 16, chunk + lane / 16)]);
}
template <int kDim>
__device__ void load_b(uint32_t (&b)[4], const uint4* tile, int row, int chunk) {
  const int lane = threadIdx.x % 32;
  load_matrices<false>(b, &tile[chunk_at<kDim>(row + lane / 16 * 8 + lane % 8, chunk + lane / 8 % 2)]);
}
/// Two operands b of 8 columns of the tile each: a row of b is a row of the tile.
template <int kDim>
__device__ void load_b_by_rows(uint32_t (&b)[4], const uint4* tile, int row, int chunk) {
  const int lane = threadIdx.x % 32;
  load_matrices<true>(b, &tile[chunk_at<kDim>(row + lane % 16, chunk + lane / 16)]);
}

__device__ inline uint32_t bf16_pair(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  uint32_t bits;
  memcpy(&bits, &pair, sizeof(bits));
  return bits;
}

/// Operand a made of two results c that lie side by side.
__device__ inline void operand_of(uint32_t (&a)[4], const float (&left)[4], const float (&right)[4]) {
  a[0] = bf16_pair(left[0], left[1]);
  a[1] = bf16_pair(left[2], left[3]);
  a[2] = bf16_pair(right[0], right[1]);
  a[3] = bf16_pair(right[2], right[3]);
}

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(Bf16 x) { return __uint_as_float(static_cast<unsigned>(x) << 16); }
__device__ inline void store(float* to, float x) { *to = x; }
__device__ inline void store(Bf16* to, float x) { *to = __bfloat16_as_ushort(__float2bfloat16_rn(x)); }
/// Two neighbours; `to` lies on a boundary of both.
__device__ inline void store_pair(float* to, float x, float y) {
  *reinterpret_cast<float2*>(to) = make_float2(x, y);
}
__device__ inline void store_pair(Bf16* to, float x, float y) {
  *reinterpret_cast<__nv_bfloat162*>(to) = __floats2bfloat162_rn(x, y);
}

__device__ inline float warp_max(float v) {
  for (int d = 16; d > 0; d /= 2) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, d));
  return v;
}
__device__ inline float warp_sum(float v) {
  for (int d = 16; d > 0; d /= 2) v += __shfl_xor_sync(0xffffffffu, v, d);
  return v;
}
/// Over the four lanes that share the rows of a result of mma.
__device__ inline float quad_max(float v) {
  v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 1));
  return fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 2));
}
__device__ inline float quad_sum(float v) {
  v += __shfl_xor_sync(0xffffffffu, v, 1);
  return v + __shfl_xor_sync(0xffffffffu, v, 2);
}

// ---- On the host.
inline constexpr int64_t kAttentionMaxBlocks = 0x7fffffff, kAttentionMaxKeys = int64_t{1} << 30;

/// Rows of bf16 that may be copied 16 bytes at a time.
inline bool on_boundaries(const Bf16* base, const RowStrides& s) {
  return reinterpret_cast<std::uintptr_t>(base) % 16 == 0 && (s.batch | s.head | s.row) % 8 == 0;
}

template <class T>
bool on_tensor_cores(const Attention<T>&) {
  return false;
}
template <>
inline bool on_tensor_cores(const Attention<Bf16>& a) {
  bool all =
      (a.dim == 64 || a.dim == 128) && on_boundaries(a.q, a.q_strides) && on_boundaries(a.out, a.out_strides);
  for (int p = 0; p < a.num_parts; ++p) {
    const AttentionPart<Bf16>& part = a.parts[p];
    all &= part.bits != 0 || (on_boundaries(part.k, part.k_strides) && on_boundaries(part.v, part.v_strides));
  }
  return all;
}

/// How rows are laid out, still without blocks of them, splits and workspace.
template <class T>
AttentionLaunch<T> attention_launch(const Attention<T>& args) {
  int64_t pack = args.heads / args.key_heads;
  for (int p = 0; p < args.num_parts; ++p) {
    FOCUS_CHECK(args.parts[p].keys <= kAttentionMaxKeys, "attention over ", args.parts[p].keys, " keys");
    if (args.parts[p].beta_per_query_head) pack = 1;
  }
  const int64_t rows = args.queries * pack;
  FOCUS_CHECK(rows <= kAttentionMaxKeys && args.batch <= kAttentionMaxKeys && args.dim <= kMaxAttentionDim,
              "attention of ", args.batch, " x ", rows, " rows of ", args.dim, " channels");
  return {args, static_cast<int>(pack), static_cast<int>(rows), 0, 1, nullptr};
}

inline dim3 blocks_in_a_row(int64_t blocks) {
  FOCUS_CHECK(blocks <= kAttentionMaxBlocks, "attention of ", blocks, " blocks");
  return dim3(static_cast<unsigned>(blocks));
}

}  // namespace focus::kernels::cuda
