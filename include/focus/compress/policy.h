// Retention policies: the rivals of Focus. Each says what becomes of a whole window's raw keys and values when it closes, within the byte
// budget that Focus has. Legend: B batch, L length.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "focus/compress/closed_span.h"
#include "focus/compress/config.h"
#include "focus/compress/entries.h"
#include "focus/compress/plan.h"
#include "focus/compress/storage.h"
#include "focus/model/backbone.h"

namespace focus::compress {

/// How much a policy retains.
enum class Keeps { nothing, budget, everything };

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
  /// `everything`: over any budget; `budget`: no more than that.
  virtual Keeps keeps() const { return Keeps::budget; }
  /// Updates what is retained when a window closes. `retained` is all this policy kept so far.
  virtual void close(const ClosedSpan& span, EntryStore& retained) const = 0;
};

/// Keeps every key and value: the uncompressed baseline.
class FullPolicy final : public RetentionPolicy {
 public:
  std::string name() const override { return "full"; }
  std::string describe() const override { return "every key and value is kept"; }
  Keeps keeps() const override { return Keeps::everything; }
  void close(const ClosedSpan& span, EntryStore& retained) const override;
};

/// Keeps nothing: only the Hyena states cross a window's end.
class StateOnlyPolicy final : public RetentionPolicy {
 public:
  std::string name() const override { return "state_only"; }
  std::string describe() const override { return "no key or value is kept; the Hyena states alone cross a window's end"; }
  Keeps keeps() const override { return Keeps::nothing; }
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

/// What rivals of Focus under `config` may hold.
Budget budget_of(const model::Backbone& backbone, const MemoryConfig& config);
/// Bytes of one Focus entry at one attention layer for batch 1: the unit of equal-byte budgets.
int64_t focus_entry_bytes(const model::Backbone& backbone, const MemoryConfig& config);

/// Builds a rival by name. ConfigError lists the names.
std::shared_ptr<RetentionPolicy> make_rival(const std::string& name, const Budget& budget);
const std::vector<std::string>& rival_names();

/// Fitted entries of k-mers that carry equal shares of `surprise_BL` [B, L], a non-negative number for each base of the sequences that will
/// be streamed. (The rival 'adaptive' takes the attention mass instead, and needs nothing beforehand.)
std::shared_ptr<RetentionPolicy> make_adaptive_by(const Budget& budget, const at::Tensor& surprise_BL);

}  // namespace focus::compress
