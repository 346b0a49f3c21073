// Where the seeds of a sequence occur in its past. A seed is a word of a few bases; the index is a hash table
// of chains, newest occurrence first, and what it holds of the letters is a quarter of a byte each and a bit
// for those that are no base.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

namespace focus::compress {

class SeedIndex {
 public:
  static constexpr int64_t kLongest = 31;
  static constexpr int64_t kMostBases = std::numeric_limits<int32_t>::max();

  /// `length` of a seed; 0: length_for() what the past holds.
  explicit SeedIndex(int64_t length = 0) : fixed_(length) {}
  /// ceil(log4 bases) + 3: of random letters, one occurrence in 64 seeds or fewer is by chance.
  static int64_t length_for(int64_t bases);

  /// Letters as codes: 0 to 3 for A, C, G, T; all others are no base. DataError beyond kMostBases.
  void append(const uint8_t* codes, int64_t count);
  /// Forgets all but the first letters.
  void truncate(int64_t size);
  /// The first letters as codes; 4 for what is no base.
  void read(uint8_t* codes, int64_t count) const;
  int64_t size() const { return size_; }
  /// Letter number `i` as a code; 4 for what is no base.
  int base(int64_t i) const;

  /// Makes the seeds findable that lie before base `past_end`, and those alone. Going forward costs what is
  /// new; the table is made anew where the past has doubled, and when going back.
  void index(int64_t past_end);
  int64_t past_end() const { return past_end_; }
  int64_t length() const { return length_; }

  /// The seed whose last base stands before `end`, two bits a base, the first base lowest. Nothing where it
  /// would begin before the sequence or holds a letter that is no base; nor where it repeats itself every 1,
  /// 2 or 3 bases, as low complexity does, which matches in many places and tells none.
  std::optional<uint64_t> seed(int64_t end) const;
  uint64_t reverse_complement(uint64_t seed) const;
  /// Appends the ends (exclusive) of the `most` newest occurrences, newest first.
  void find(uint64_t seed, int64_t most, std::vector<int32_t>& ends) const;

  /// What is allocated: below 6 bytes per letter beyond the first few thousand.
  int64_t num_bytes() const;

 private:
  uint64_t letters(int64_t end) const;
  std::size_t bucket(uint64_t seed) const { return (seed * 0x9E3779B97F4A7C15u) >> shift_; }

  int64_t fixed_;
  int64_t size_ = 0;
  std::vector<uint64_t> bases_;    // 32 a word
  std::vector<uint64_t> unknown_;  // 64 a word
  int64_t length_ = 0, past_end_ = 0;
  int shift_ = 0;
  std::vector<int32_t> heads_;  // [buckets] the last seed's end; 0 = none
  std::vector<int32_t> links_;  // [past_end] by a seed's end - 1: the end of the one before it in its bucket
};

}  // namespace focus::compress
