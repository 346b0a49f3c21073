#include "planted.h"

#include <string>

#include "focus/core/error.h"
#include "focus/core/hash.h"
#include "focus/core/random.h"
#include "focus/data/letters.h"
#include "focus/data/region.h"

namespace focus::eval {

void plant(const PlantedConfig& config, uint64_t seed, data::SampledSegment& segment) {
  std::string& sequence = segment.sequence;
  const auto length = static_cast<int64_t>(sequence.size());
  FOCUS_CHECK(config.size >= 1 && config.distance + config.size <= length, "a copy of ", config.size,
              " bases, ", config.distance, " behind its source, in ", length);
  const std::string place =
      "planted " + data::format_region({segment.name, segment.begin, segment.begin + length});
  Random random(seed, fnv1a(place.data(), place.size()));
  const int64_t copy = length - config.size, source = copy - config.distance;
  const int64_t step = config.reverse_complement ? -1 : 1;
  int64_t from = config.reverse_complement ? source + config.size - 1 : source;
  const std::string before = sequence.substr(0, static_cast<std::size_t>(copy));  // what can be copied
  segment.planted.assign(sequence.size(), false);
  // Deletions may use the source up; what follows stays as it was.
  for (int64_t to = copy; to < length && from >= 0 && from < copy; ++to) {
    char& base = sequence[static_cast<std::size_t>(to)];
    if (random.uniform() < config.indels) {
      if (random.uniform() < 0.5) {  // a base that the source lacks
        base = "ACGT"[random.uniform_integer(4)];
        continue;
      }
      from += step;  // a base that the copy lacks
      if (from < 0 || from >= copy) break;
    }
    const auto letter = static_cast<uint8_t>(before[static_cast<std::size_t>(from)]);
    base = static_cast<char>(config.reverse_complement ? data::complement(letter) : letter);
    from += step;
    const bool substituted = random.uniform() < config.substitutions;
    if (substituted) {
      std::string others = "ACGT";
      std::erase(others, static_cast<char>(base & ~0x20));  // in either case
      base = others[static_cast<std::size_t>(random.uniform_integer(static_cast<int64_t>(others.size())))];
    }
    segment.planted[static_cast<std::size_t>(to)] = !substituted && to - copy >= report::kCopyWord;
  }
}

}  // namespace focus::eval
