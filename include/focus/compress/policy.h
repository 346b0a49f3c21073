// Retention policies: what becomes of a span of raw keys and values when it closes. Focus and its rivals stand behind this one interface
// and are given the same byte budget. Legend: B batch, H query heads, G key/value heads, n bases of the span, E head dimension,
// D width.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "focus/compress/entries.h"
#include "focus/compress/plan.h"
#include "focus/compress/storage.h"
#include "focus/nn/attention.h"

namespace focus::compress {

/// A span of bases at one attention layer whose raw keys and values are about to be dropped.
struct ClosedSpan {
  const nn::Attention& attention;
  const nn::RmsNorm& pre_norm;
  int64_t window = 0;
  int64_t first_base = 0;   // index of the span's first base
  int64_t first_kmer = 0;   // index of its first k-mer over the whole sequence
  std::vector<Span> kmers;  // relative to the span
  int64_t entries_per_kmer = 1;
  at::Tensor positions;        // [n] rotary positions of the bases (they differ from the base index in an inline stream)
  at::Tensor q;                // [B, H, n, E], rotated; undefined for policies that need none
  at::Tensor k, v;             // [B, G, n, E], k rotated
  at::Tensor u_BND;            // normed input of the layer
  at::Tensor focus_x;          // [B, kmers, D] residual state of the k-mers' Focus tokens; undefined for units that have none
  at::Tensor focus_positions;  // [kmers] rotary positions of the Focus tokens

  int64_t num_bases() const { return k.size(2); }
};

class RetentionPolicy {
 public:
  virtual ~RetentionPolicy() = default;
  virtual std::string name() const = 0;
  virtual std::string describe() const = 0;
  /// Whether close() reads the span's queries: only then are those of the open window kept.
  virtual bool needs_queries() const { return false; }
  /// How what it retains is held: as configured, unless that is what the policy is about.
  virtual StorageFormat storage(const StorageConfig& configured) const { return configured; }
  /// Whether that is so: it then refuses another precision.
  virtual bool rounds_itself() const { return false; }
  /// Whether every base is retained, over any budget.
  virtual bool keeps_every_base() const { return false; }
  /// Updates what is retained when a window closes. `retained` is all this policy kept so far.
  virtual void close(const ClosedSpan& span, EntryStore& retained) const = 0;
};

/// Keeps every key and value: the uncompressed baseline.
class FullPolicy final : public RetentionPolicy {
 public:
  std::string name() const override { return "full"; }
  std::string describe() const override { return "every key and value is kept"; }
  bool keeps_every_base() const override { return true; }
  void close(const ClosedSpan& span, EntryStore& retained) const override;
};

/// Keeps nothing: only the Hyena states cross a window's end.
class StateOnlyPolicy final : public RetentionPolicy {
 public:
  std::string name() const override { return "state_only"; }
  std::string describe() const override { return "no key or value is kept; the Hyena states alone cross a window's end"; }
  void close(const ClosedSpan& span, EntryStore& retained) const override;
};

/// The byte budget of a rival: after each closed window it may hold as many bytes as Focus does, at a layer of average settings.
struct Budget {
  WindowPlan plan;
  int64_t kmer_bytes = 0;  // of one k-mer's entries
  int64_t raw_bytes = 0;   // of what Focus keeps raw besides the open window: its tail and sinks
  /// Bytes that may be held for each sequence after window `window` (counted from 0) has closed, and entries of `entry_bytes` each.
  int64_t bytes_after(int64_t window) const { return plan.kmers_before(window + 1) * kmer_bytes + raw_bytes; }
  int64_t entries_after(int64_t window, int64_t entry_bytes) const { return bytes_after(window) / entry_bytes; }
};

/// Builds a rival by name. ConfigError lists the names.
std::shared_ptr<RetentionPolicy> make_rival(const std::string& name, const Budget& budget);
const std::vector<std::string>& rival_names();

/// Fitted entries of k-mers that carry equal shares of `surprise_BL` [B, L], a non-negative number for each base of the sequences that will
/// be streamed. (The rival 'adaptive' takes the attention mass instead, and needs nothing beforehand.)
std::shared_ptr<RetentionPolicy> make_adaptive_by(const Budget& budget, const at::Tensor& surprise_BL);

/// [kmers, n] fp32 with 1/size inside each k-mer: the averaging matrix of a span.
at::Tensor mean_matrix(const std::vector<Span>& kmers, int64_t num_bases, const at::TensorOptions& options);

}  // namespace focus::compress
