#include "pass.h"

#include <algorithm>
#include <numeric>

#include "focus/core/error.h"
#include "focus/core/log.h"
#include "focus/core/random.h"
#include "focus/core/units.h"
#include "focus/data/letters.h"

namespace focus::data {
namespace {

// Orders of passes come from streams of the seed that no sample has.
constexpr uint64_t kOrders = uint64_t{1} << 63;
// Bases read at a time, about.
constexpr int64_t kRead = int64_t{1} << 22;

}  // namespace

Pass::Pass(const Sources& sources, int64_t length, double max_n_fraction) : length_(length) {
  int64_t left_out = 0, masked = 0;
  for (std::size_t s = 0; s < sources.list.size(); ++s) {
    const Source& source = sources.list[s];
    const bool whole = source.drawing == Drawing::documents;
    for (std::size_t i = 0; i < source.stretches.size(); ++i) {
      const Stretch& stretch = source.stretches[i];
      const int64_t full = stretch.region.length() / length * length, rest = stretch.region.length() - full,
                    used = full + (whole && rest >= 2 ? rest : 0);
      left_out += stretch.region.length() - used;
      const int64_t block = std::max<int64_t>(1, kRead / length) * length;
      for (int64_t at = 0; at < used; at += block) {
        const std::string letters =
            source.letters(stretch, stretch.region.begin + at, std::min(block, used - at));
        const auto count = static_cast<int64_t>(letters.size());
        for (int64_t begin = 0; begin < count; begin += length) {
          const int64_t size = std::min(length, count - begin);
          const SequenceCounts counts = count_letters(std::string_view(letters).substr(
              static_cast<std::size_t>(begin), static_cast<std::size_t>(size)));
          if (static_cast<double>(counts.n + counts.ambiguous) > max_n_fraction * static_cast<double>(size))
            ++masked;
          else
            windows_.push_back({static_cast<uint32_t>(s), static_cast<uint32_t>(i),
                                stretch.region.begin + at + begin, size});
        }
      }
    }
  }
  if (windows_.empty())
    fail<DataError>("no window of ", length, " bases to pass over: ", format_count(left_out),
                    " bases lie in stretches or ends that are shorter, and ", masked,
                    " windows have more than ", max_n_fraction,
                    " of letters other than A, C, G, T; lower the training length, or raise max_n_fraction");
  FOCUS_CHECK(windows_.size() <= UINT32_MAX, "windows of a pass: ", windows_.size());
  log::info(concat("a pass has ", format_count(size()), " windows of ", format_count(length), " bases; ",
                   format_count(masked), " with too many letters other than A, C, G, T and ",
                   format_count(left_out), " bases of shorter ends or stretches are left out"));
}

PassWindow Pass::at(uint64_t index, uint64_t seed) const {
  const uint64_t pass = index / windows_.size();
  const std::lock_guard lock(mutex_);
  if (order_.empty() || pass != ordered_pass_ || seed != ordered_seed_) {
    order_.resize(windows_.size());
    std::iota(order_.begin(), order_.end(), 0u);
    Random(seed, kOrders + pass).shuffle(order_);
    ordered_pass_ = pass, ordered_seed_ = seed;
  }
  return windows_[order_[index % windows_.size()]];
}

}  // namespace focus::data
