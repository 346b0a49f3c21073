#include "focus/data/segments.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <numeric>
#include <set>

#include "focus/core/error.h"
#include "focus/core/hash.h"
#include "focus/core/random.h"
#include "focus/data/letters.h"

namespace focus::data {
namespace {

constexpr int kMaxDraws = 1000;

/// A region's random stream depends on its name and place only.
uint64_t stream_of(const Region& region) {
  const std::string text = format_region(region);
  return fnv1a(text.data(), text.size());
}

bool overlaps(const std::set<int64_t>& begins, int64_t begin, int64_t length) {
  const auto next = begins.lower_bound(begin);
  if (next != begins.end() && *next < begin + length) return true;
  return next != begins.begin() && *std::prev(next) + length > begin;
}

void sample_region(const SequenceFile& fasta, const Region& region, const SegmentOptions& options,
                   SegmentSample& result) {
  const int64_t length = options.length, places = region.length() - length + 1;
  Random random(options.seed, stream_of(region));
  std::set<int64_t> begins;
  std::vector<SampledSegment> chosen;
  const auto accept = [&](int64_t begin, bool may_overlap) {
    const bool overlap = overlaps(begins, begin, length);
    if (overlap && !may_overlap) return false;
    std::string sequence = fasta.fetch(region.name, begin, begin + length);
    if (static_cast<double>(count_letters(sequence).n) >
        options.max_n_fraction * static_cast<double>(length)) {
      ++result.skipped_n_rich;
      return false;
    }
    if (overlap && begins.count(begin) != 0) return false;
    result.overlapping += overlap ? 1 : 0;
    begins.insert(begin);
    chosen.push_back({region.name, begin, std::move(sequence)});
    return true;
  };
  const bool room = options.count * length <= region.length();
  if (room) {
    // Uniform over all placements without overlap: sorted gaps in the bases left over, shifted by the
    // segments before them.
    std::vector<int64_t> gaps(static_cast<std::size_t>(options.count));
    for (int64_t& gap : gaps) gap = random.uniform_integer(region.length() - options.count * length + 1);
    std::sort(gaps.begin(), gaps.end());
    for (std::size_t i = 0; i < gaps.size(); ++i)
      accept(region.begin + gaps[i] + static_cast<int64_t>(i) * length, false);
  }
  // Replacements for N-rich candidates, first without overlap, then with.
  for (const bool may_overlap : {false, true}) {
    for (int draw = 0; draw < kMaxDraws && static_cast<int64_t>(chosen.size()) < options.count; ++draw) {
      if (accept(region.begin + random.uniform_integer(places), may_overlap)) draw = -1;
    }
  }
  std::sort(chosen.begin(), chosen.end(),
            [](const SampledSegment& a, const SampledSegment& b) { return a.begin < b.begin; });
  std::move(chosen.begin(), chosen.end(), std::back_inserter(result.segments));
}

/// The places, in order, of those among `count` regions that are used.
std::vector<std::size_t> chosen_of(std::size_t count, const SegmentOptions& options) {
  std::vector<std::size_t> places(count);
  std::iota(places.begin(), places.end(), std::size_t{0});
  if (options.regions == 0 || options.regions >= static_cast<int64_t>(count)) return places;
  constexpr std::string_view kStream = "regions";
  Random random(options.seed, fnv1a(kStream.data(), kStream.size()));
  random.shuffle(places);
  places.resize(static_cast<std::size_t>(options.regions));
  std::sort(places.begin(), places.end());
  return places;
}

/// Calls seen(t, first, last) for every position t whose preceding `word` letters ended before at `first`
/// and, last, at `last`.
template <class Seen>
void for_repeated(std::string_view sequence, int64_t word, Seen seen) {
  FOCUS_CHECK(word >= 1 && word <= 32, "word length ", word);
  const auto length = static_cast<int64_t>(sequence.size());
  struct Slot {
    uint64_t word = 0;
    int64_t first = -1, last = -1;  // positions behind its occurrences; -1: free
  };
  std::vector<Slot> table(std::bit_ceil(static_cast<std::size_t>(2 * length)));
  const uint64_t mask = word == 32 ? ~uint64_t{0} : (uint64_t{1} << (2 * word)) - 1;
  uint64_t bits = 0;
  int64_t valid = 0;
  for (int64_t t = 1; t < length; ++t) {
    const auto letter = static_cast<uint8_t>(sequence[static_cast<std::size_t>(t - 1)]);
    // Bits 1 and 2 of A, C, G, T are 00, 01, 11, 10 in either case.
    bits = ((bits << 2) | ((letter >> 1) & 3U)) & mask;
    valid = is_acgt(letter) ? valid + 1 : 0;
    if (valid < word) continue;
    std::size_t at = static_cast<std::size_t>((bits * 0x9E3779B97F4A7C15ULL) >> 20) & (table.size() - 1);
    while (table[at].first >= 0 && table[at].word != bits) at = (at + 1) & (table.size() - 1);
    if (table[at].first < 0) {
      table[at] = {bits, t, t};
    } else {
      seen(t, table[at].first, table[at].last);
      table[at].last = t;
    }
  }
}

}  // namespace

SegmentSample sample_segments(const SequenceFile& fasta, const std::vector<Region>& regions,
                              const SegmentOptions& options) {
  FOCUS_CHECK(options.length >= 1 && options.count >= 1, "segments: length ", options.length, ", count ",
              options.count);
  std::vector<Region> wanted = regions;
  if (wanted.empty()) {
    for (const std::string& name : fasta.names()) wanted.push_back({name, 0, fasta.length(name)});
  }
  SegmentSample result;
  const std::size_t num_regions = wanted.size();
  result.skipped_regions = static_cast<int64_t>(
      std::erase_if(wanted, [&](const Region& region) { return region.length() < options.length; }));
  for (const std::size_t r : chosen_of(wanted.size(), options))
    sample_region(fasta, wanted[r], options, result);
  if (result.segments.empty())
    fail<DataError>("no segment of ", options.length, " bases could be drawn from '", fasta.path().string(),
                    "': ", result.skipped_regions, " of ", num_regions, " region(s) are shorter, and ",
                    result.skipped_n_rich, " candidate(s) had too many N");
  return result;
}

std::vector<bool> repeated_positions(std::string_view sequence, int64_t window, int64_t word) {
  std::vector<bool> out(sequence.size());
  for_repeated(sequence, word, [&](int64_t t, int64_t first, int64_t) {
    out[static_cast<std::size_t>(t)] = t - first >= window;
  });
  return out;
}

std::vector<int64_t> last_copies(std::string_view sequence, int64_t word) {
  std::vector<int64_t> out(sequence.size());
  for_repeated(sequence, word,
               [&](int64_t t, int64_t, int64_t last) { out[static_cast<std::size_t>(t)] = t - last; });
  return out;
}

double repeat_share(std::string_view sequence, int64_t window, int64_t word) {
  const std::vector<bool> repeated = repeated_positions(sequence, window, word);
  if (repeated.empty()) return 0;
  return static_cast<double>(std::count(repeated.begin(), repeated.end(), true)) /
         static_cast<double>(repeated.size());
}

}  // namespace focus::data
