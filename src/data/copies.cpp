#include "copies.h"

#include <algorithm>

#include "focus/data/letters.h"

namespace focus::data {

void plant_copies(const CopyConfig& config, Random& random, std::string& sequence, std::vector<int32_t>& offset,
                  std::vector<int32_t>& source) {
  const auto length = static_cast<int64_t>(sequence.size());
  offset.assign(sequence.size(), -1);
  source.assign(sequence.size(), -1);
  const int64_t shortest = std::max<int64_t>(1, std::min(config.min_length, length / 4));
  const int64_t longest = std::max(shortest, std::min(config.max_length, length * 45 / 100));
  if (length < 4) return;
  std::vector<bool> taken(sequence.size(), false);  // written by a copy, or read by one
  const bool far = length >= 2 * config.min_far_distance && random.uniform() < config.far_fraction;
  const int64_t count = random.uniform_integer(config.min_count, std::max(config.min_count, config.max_count));
  for (int64_t i = 0; i < count; ++i) {
    for (int attempt = 0; attempt < 20; ++attempt) {
      const int64_t size = random.uniform_integer(shortest, longest);
      const int64_t least = std::max(size, far ? config.min_far_distance : 1);
      const int64_t most = length - size;
      if (least > most) continue;
      const int64_t distance = random.uniform_integer(least, most);
      const int64_t from = random.uniform_integer(length - size - distance + 1), to = from + distance;
      if (std::find(taken.begin() + to, taken.begin() + to + size, true) != taken.begin() + to + size) continue;
      std::string segment = sequence.substr(static_cast<std::size_t>(from), static_cast<std::size_t>(size));
      const bool opposite = random.uniform() < config.reverse_complement_fraction;
      if (opposite) segment = reverse_complement(segment);
      const double rate = random.uniform() * config.max_substitution;
      for (char& letter : segment) {
        if (random.uniform() < rate) letter = "ACGT"[random.uniform_integer(4)];
      }
      for (int64_t j = 0; j < size; ++j) {
        const auto at = static_cast<std::size_t>(to + j);
        const int64_t origin = opposite ? from + size - 1 - j : from + j;
        sequence[at] = segment[static_cast<std::size_t>(j)];
        offset[at] = static_cast<int32_t>(j);
        source[at] = static_cast<int32_t>(origin);
        taken[at] = true;
        taken[static_cast<std::size_t>(origin)] = true;
      }
      break;
    }
  }
}

}  // namespace focus::data
