// Spans of bases whose raw keys and values are about to be dropped, and the one builder that cuts them out of
// a layer's bases: for streams, for whole sequences and for attention matching. Legend: B batch, H query
// heads, G key/value heads, n bases of the span, m k-mers, E head dimension, D width.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "focus/compress/plan/plan.h"
#include "focus/nn/attention.h"

namespace focus::compress {

/// The k-mers of a span, relative to its first base, and index tensors made of them: once for each device,
/// shared by all copies.
class Kmers {
 public:
  Kmers(std::vector<Span> spans = {});  // NOLINT(google-explicit-constructor): a list of spans is one
  std::size_t size() const { return spans().size(); }
  bool empty() const { return spans().empty(); }
  const Span& operator[](std::size_t j) const { return spans()[j]; }
  std::vector<Span>::const_iterator begin() const { return spans().begin(); }
  std::vector<Span>::const_iterator end() const { return spans().end(); }
  const std::vector<Span>& spans() const;

  struct Table {
    at::Tensor index;      // [m, longest] bases of each k-mer; 0 where it has no more
    at::Tensor exists;     // [m, longest] bool
    at::Tensor firsts;     // [m] first base
    at::Tensor lasts;      // [m] last base
    at::Tensor log_sizes;  // [m] fp64, log of the number of bases
  };
  const Table& table(const at::Device& device) const;
  /// [m, n] with 1/size inside each k-mer: the averaging matrix of a span of `num_bases`, made once for each
  /// type and device.
  const at::Tensor& mean_matrix(int64_t num_bases, const at::TensorOptions& options) const;
  /// What `make` makes on the host of these spans and of `key` alone, once for each device.
  const at::Tensor& list(const std::vector<int64_t>& key, const at::Device& device,
                         const std::function<at::Tensor()>& make) const;

 private:
  struct Shared;
  std::shared_ptr<Shared> shared_;
};

/// Hands out the same Kmers for the same spans, so that their tensors are made once for all windows of a plan
/// and all layers.
class KmersCache {
 public:
  Kmers get(std::vector<Span> spans);

 private:
  std::mutex mutex_;  // a backward pass that recomputes may run on a thread of its own
  std::map<std::vector<std::pair<int64_t, int64_t>>, Kmers> known_;
};

/// A span of bases at one attention layer whose raw keys and values are about to be dropped.
struct ClosedSpan {
  const nn::Attention& attention;
  const nn::RmsNorm& pre_norm;
  int64_t window = 0;
  int64_t first_base = 0;  // index of the span's first base
  int64_t first_kmer = 0;  // index of its first k-mer over the whole sequence
  Kmers kmers;
  int64_t extent = 0;  // rotary positions from the first base to the last, both counted
  at::Tensor
      positions;    // [n] rotary positions of the bases (they differ from the base index in an inline stream)
  at::Tensor q;     // [B, H, n, E], rotated; undefined for policies that need none
  at::Tensor k, v;  // [B, G, n, E], k rotated
  at::Tensor u_BND;  // normed input of the layer
  at::Tensor
      focus_x;  // [B, m, D] residual state of the k-mers' Focus tokens; undefined for units that have none
  at::Tensor focus_positions;  // [m] rotary positions of the Focus tokens

  int64_t num_bases() const { return k.size(2); }
};

/// What spans are cut from: the newest bases of one layer, up to base `end` (exclusive). Tensors may reach
/// back differently far.
struct LayerBases {
  const nn::Attention& attention;
  const nn::RmsNorm& pre_norm;
  int64_t end = 0;
  at::Tensor q, k, v, u, positions;  // as in ClosedSpan; q and u may be undefined

  /// Bases `bases` of the sequence, with these k-mers relative to the first of them. `extent` as in
  /// ClosedSpan.
  ClosedSpan span(const Span& bases, int64_t extent, int64_t window, int64_t first_kmer, Kmers kmers) const;
};

/// [m] rotary positions of the last base of each of a span's k-mers: where side Focus tokens stand.
at::Tensor last_positions(const ClosedSpan& span);

}  // namespace focus::compress
