// Retention policies: the rivals of Focus. Each says what becomes of a whole window's raw keys and values when it closes, within the byte
// budget that Focus has.
#pragma once

#include <string>

#include "focus/compress/memory/closed_span.h"
#include "focus/compress/memory/entries.h"
#include "focus/compress/memory/storage.h"

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

}  // namespace focus::compress
