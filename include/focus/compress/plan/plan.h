// The window plan: which window and k-mer a base belongs to, as pure integer functions of the configuration.
// Whole sequences, chunks of any size and single steps all ask this one value; no other code does arithmetic
// on windows. All ranges are half-open, bases count from 0.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "focus/config/fields.h"

namespace focus::compress {

enum class WindowUnit { bases, focus };
enum class Remainder { own, merge, drop };

struct Span {
  int64_t begin = 0, end = 0;
  int64_t size() const { return end - begin; }
  bool operator==(const Span&) const = default;
};

struct WindowConfig {
  int64_t size = 1024;                  // W
  WindowUnit unit = WindowUnit::bases;  // App. A: bases; section 3.2: Focus tokens, neighbours sharing one
  Remainder remainder =
      Remainder::own;  // what becomes of the bases left over when k does not divide a window
  /// Where a trained adapter may bring its own plan, `given` is listed in place of `size`, 0 leaving it as it
  /// is, and all else has an effect on the condition `others`.
  void visit(config::Fields& f, std::optional<int64_t>* given = nullptr,
             const config::Condition& others = {});
};

class WindowPlan {
 public:
  /// ConfigError: k > W, W or k < 1, a window of fewer than two Focus tokens, or of more than 2^40 bases.
  WindowPlan(const WindowConfig& window, int64_t k);

  int64_t window_of(int64_t base) const;
  Span window(int64_t index) const;
  int64_t num_kmers(int64_t window) const;
  /// Base range of k-mer j of a window.
  Span kmer(int64_t window, int64_t j) const;
  /// All k-mers of a window, relative to the window's first base.
  std::vector<Span> kmers(int64_t window) const;
  /// Index of the base's k-mer inside its window; -1 for a base that `remainder: drop` leaves without one.
  int64_t kmer_of(int64_t base) const;
  /// Number of k-mers (Focus tokens) of all windows before this one: the global index of its first.
  int64_t kmers_before(int64_t window) const;
  /// The window that holds k-mer `kmer` of the whole sequence.
  int64_t window_of_kmer(int64_t kmer) const;
  /// Number of k-mers that end at or before `base` (exclusive end): the Focus tokens inserted before that
  /// base.
  int64_t kmers_completed(int64_t base) const;
  /// Eq. 4: k-mers of closed windows plus the bases of the open one.
  int64_t kept_entries(int64_t num_bases) const;
  /// The first position after `base` at which something closes: the end of its window, or of its k-mer when
  /// that comes first and `by_kmer` is set.
  int64_t next_close(int64_t base, bool by_kmer) const;
  /// Whether a k-mer ends at `base` (exclusive end).
  bool ends_kmer(int64_t base) const;

  int64_t k() const { return k_; }
  /// Bases of an ordinary window (the second and later ones).
  int64_t window_bases() const { return later_; }

 private:
  int64_t full_kmers(int64_t bases) const;
  int64_t k_, first_, later_;
  Remainder remainder_;
};

}  // namespace focus::compress
