// What one compressed attention layer keeps and shows, as pure integer functions of its settings. Both
// executions ask this one value, so that they cannot disagree. Every rule of visibility comes out as
// intervals: raw bases [raw_begin, t], codes of the `recent` bases before raw_begin, and retained entries
// [entry_begin, entry_end), in the order entries are made: raw sinks first, then each k-mer's entries.
#pragma once

#include <cstdint>

#include "focus/compress/plan/config.h"

namespace focus::compress {

class LayerRules {
 public:
  /// `focus`: as FocusConfig::at() gives it for the layer, and valid.
  LayerRules(const WindowConfig& window, const FocusConfig& focus);

  struct Visible {
    int64_t raw_begin = 0, entry_begin = 0, entry_end = 0, recent = 0;
    bool operator==(const Visible&) const = default;
  };
  /// What base t sees besides the bases from raw_begin up to itself.
  Visible visible(int64_t t) const;
  /// The first base after t where visible() may differ.
  int64_t next_change(int64_t t) const;

  /// Entries of the whole sequence before those of this k-mer (index over the whole sequence).
  int64_t entry_index(int64_t kmer) const;
  int64_t entries_of(const Span& kmer) const;
  /// Entries that the Focus query of a k-mer may see when its entry is made.
  Span history(int64_t kmer) const;

  /// Of a k-mer's bases those that its entries stand for: all but sinks.
  Span summarised(const Span& kmer) const;
  /// First bases that are kept raw, and the k-mers that are all sinks, which have no entry of their own.
  int64_t sink_bases() const { return sink_bases_; }
  int64_t sink_kmers() const { return sink_kmers_; }
  /// First base of the tail that stays raw when `window` has opened: its begin where there is no tail.
  int64_t tail_begin(int64_t window) const;
  /// First of the bases that are held as codes when the windows before `window` have closed; the window's
  /// begin where there are none.
  int64_t recent_begin(int64_t window) const;
  /// Each sink takes the place of so many codes, in 4 bits about the bytes of a base in fp32, unless all
  /// bases are held.
  static constexpr int64_t kCodesPerSink = 8;
  int64_t codes_for_sinks() const;
  /// The k-mer of a base, or the stretch without a k-mer (`remainder: drop`) that the base lies in.
  Span atom(int64_t base) const;

  /// What a stream of Focus entries holds after `length` bases.
  struct Held {
    int64_t entries = 0;     // retained, raw sinks among them
    int64_t recent = 0;      // bases held as codes
    int64_t open_bases = 0;  // raw
    int64_t unread = 0;      // of the open bases: not summarised yet, so that queries and inputs are held too
  };
  Held held(int64_t length) const;

  const WindowPlan& plan() const { return plan_; }
  const FocusConfig& focus() const { return focus_; }
  bool by_kmer() const { return focus_.local == Local::kmer; }
  bool rolling() const { return focus_.eviction == Eviction::rolling; }
  /// Entries of the open window are visible to later bases of it: where their raw bases are gone, or where
  /// the paper inserts Focus tokens as ordinary earlier tokens. A fitted entry stands for the mass of its
  /// bases, so beside them it would count that mass twice.
  bool shows_open_entries() const { return by_kmer() || made_in_stream(); }
  /// The entry is made when its Focus token passes by in an inline stream.
  bool made_in_stream() const {
    return focus_.stream == Stream::inline_tokens && focus_.unit == UnitKind::paper;
  }

 private:
  int64_t entries_before(int64_t kmer) const;
  WindowPlan plan_;
  FocusConfig focus_;
  int64_t window_size_;  // W of rolling eviction
  int64_t sink_bases_ = 0, sink_kmers_ = 0;
};

}  // namespace focus::compress
