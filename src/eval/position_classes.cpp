#include "position_classes.h"

#include <algorithm>

#include "focus/data/segments.h"

namespace focus::eval {
namespace {

bool is_lower(char letter) { return letter >= 'a' && letter <= 'z'; }

bool is_gc(char letter) { return letter == 'G' || letter == 'C' || letter == 'g' || letter == 'c'; }

uint8_t gc_class(int64_t gc, int64_t bases) {
  const double share = static_cast<double>(gc) / static_cast<double>(bases);
  return share < 0.35 ? 0 : share < 0.45 ? 1 : share < 0.55 ? 2 : 3;
}

}  // namespace

std::array<std::vector<uint8_t>, report::kNumGroupings> position_classes(std::string_view sequence) {
  std::array<std::vector<uint8_t>, report::kNumGroupings> classes;
  const std::vector<int64_t> copies = data::last_copies(sequence, report::kCopyWord);
  int64_t gc = 0;
  for (std::size_t t = 1; t < sequence.size(); ++t) {
    constexpr auto kBefore = static_cast<std::size_t>(report::kGcBases);
    gc += is_gc(sequence[t - 1]) ? 1 : 0;
    if (t > kBefore) gc -= is_gc(sequence[t - 1 - kBefore]) ? 1 : 0;
    const uint8_t of[] = {static_cast<uint8_t>(is_lower(sequence[t]) ? 1 : 0),
                          gc_class(gc, static_cast<int64_t>(std::min(t, kBefore))),
                          static_cast<uint8_t>(report::distance_class(copies[t]))};
    for (std::size_t g = 0; g < classes.size(); ++g) classes[g].push_back(of[g]);
  }
  return classes;
}

}  // namespace focus::eval
