#include "seed_index.h"

#include <algorithm>
#include <bit>

#include "focus/core/error.h"

namespace focus::compress {
namespace {

// A sixteenth of slack in place of the library's half or whole: the bytes per base are a promise.
template <class T>
void grow(std::vector<T>& rows, std::size_t size) {
  if (size > rows.capacity()) rows.reserve(size + size / 16 + 64);
  rows.resize(size);
}

uint64_t mask(int64_t bases) { return (uint64_t{1} << (2 * bases)) - 1; }

// `count` bits from `first` on, count <= 64.
uint64_t bits(const std::vector<uint64_t>& words, int64_t first, int64_t count) {
  const auto word = static_cast<std::size_t>(first / 64);
  const int64_t skip = first % 64;
  uint64_t out = words[word] >> skip;
  if (skip + count > 64) out |= words[word + 1] << (64 - skip);
  return count == 64 ? out : out & ((uint64_t{1} << count) - 1);
}

}  // namespace

int64_t SeedIndex::length_for(int64_t bases) {
  const auto below = static_cast<uint64_t>(std::max<int64_t>(bases, 1) - 1);
  return (std::bit_width(below) + 1) / 2 + 3;
}

void SeedIndex::append(const uint8_t* codes, int64_t count) {
  if (count > kMostBases - size_)
    fail<DataError>("far memory: a sequence of ", size_, " + ", count, " bases; seeds are indexed up to ",
                    kMostBases);
  const int64_t size = size_ + count;
  grow(bases_, static_cast<std::size_t>((size + 31) / 32));
  grow(unknown_, static_cast<std::size_t>((size + 63) / 64));
  for (int64_t i = 0; i < count; ++i) {
    const int64_t at = size_ + i;
    const uint64_t code = codes[i];
    if (at % 32 == 0) bases_[static_cast<std::size_t>(at / 32)] = 0;
    if (at % 64 == 0) unknown_[static_cast<std::size_t>(at / 64)] = 0;
    if (code < 4) {
      bases_[static_cast<std::size_t>(at / 32)] |= code << (2 * (at % 32));
    } else {
      unknown_[static_cast<std::size_t>(at / 64)] |= uint64_t{1} << (at % 64);
    }
  }
  size_ = size;
}

void SeedIndex::truncate(int64_t size) {
  FOCUS_CHECK(size >= 0 && size <= size_, size, " letters of ", size_);
  size_ = size;
  bases_.resize(static_cast<std::size_t>((size + 31) / 32));
  unknown_.resize(static_cast<std::size_t>((size + 63) / 64));
  if (size % 32 != 0) bases_.back() &= mask(size % 32);
  if (size % 64 != 0) unknown_.back() &= (uint64_t{1} << (size % 64)) - 1;
  if (size < past_end_) index(0);
}

void SeedIndex::read(uint8_t* codes, int64_t count) const {
  FOCUS_CHECK(count <= size_, count, " letters of ", size_);
  for (int64_t i = 0; i < count; ++i) codes[i] = static_cast<uint8_t>(base(i));
}

int SeedIndex::base(int64_t i) const {
  return bits(unknown_, i, 1) != 0 ? 4 : static_cast<int>(bits(bases_, 2 * i, 2));
}

void SeedIndex::index(int64_t past_end) {
  FOCUS_CHECK(past_end >= 0 && past_end <= size_, "a past of ", past_end, " bases of ", size_);
  if (past_end == past_end_) return;
  const int64_t length = fixed_ > 0 ? fixed_ : length_for(past_end);
  // 4 to 8 bases a bucket, so that heads take a byte per base at most; both this and length_for() change only
  // where the past doubles.
  const auto buckets = std::max<std::size_t>(std::bit_ceil(static_cast<std::size_t>(past_end)) / 8, 64);
  if (past_end < past_end_ || length != length_ || buckets != heads_.size()) {
    length_ = length;
    past_end_ = 0;
    shift_ = 64 - std::countr_zero(buckets);
    if (heads_.size() != buckets) heads_ = std::vector<int32_t>(buckets);
    std::fill(heads_.begin(), heads_.end(), 0);
  }
  grow(links_, static_cast<std::size_t>(past_end));
  for (int64_t end = past_end_ + 1; end <= past_end; ++end) {
    int32_t& link = links_[static_cast<std::size_t>(end - 1)];
    link = 0;
    if (const auto word = seed(end)) {
      int32_t& head = heads_[bucket(*word)];
      link = head;
      head = static_cast<int32_t>(end);
    }
  }
  past_end_ = past_end;
}

uint64_t SeedIndex::letters(int64_t end) const { return bits(bases_, 2 * (end - length_), 2 * length_); }

std::optional<uint64_t> SeedIndex::seed(int64_t end) const {
  if (end < length_ || bits(unknown_, end - length_, length_) != 0) return std::nullopt;
  const uint64_t word = letters(end);
  for (int64_t period = 1; period <= 3 && period < length_; ++period) {
    if (word >> (2 * period) == (word & mask(length_ - period))) return std::nullopt;
  }
  return word;
}

uint64_t SeedIndex::reverse_complement(uint64_t seed) const {
  // Two bits a base: swap neighbours in ever larger groups, then drop what is no part of the seed.
  uint64_t x = ~seed;
  x = (x >> 2 & 0x3333333333333333u) | (x & 0x3333333333333333u) << 2;
  x = (x >> 4 & 0x0F0F0F0F0F0F0F0Fu) | (x & 0x0F0F0F0F0F0F0F0Fu) << 4;
  return __builtin_bswap64(x) >> (64 - 2 * length_);
}

void SeedIndex::find(uint64_t seed, int64_t most, std::vector<int32_t>& ends) const {
  if (past_end_ == 0) return;
  for (int32_t end = heads_[bucket(seed)]; end != 0 && most > 0;
       end = links_[static_cast<std::size_t>(end - 1)]) {
    if (letters(end) != seed) continue;
    ends.push_back(end);
    --most;
  }
}

int64_t SeedIndex::num_bytes() const {
  return static_cast<int64_t>(8 * (bases_.capacity() + unknown_.capacity()) +
                              4 * (heads_.capacity() + links_.capacity()));
}

}  // namespace focus::compress
