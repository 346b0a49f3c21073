#include "focus/core/text.h"

#include <algorithm>
#include <cctype>

#include "focus/core/error.h"

namespace focus {

int64_t edit_distance(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return static_cast<char>(std::tolower(static_cast<unsigned char>(c))); };
  const std::size_t width = b.size() + 1;
  std::vector<int64_t> cost((a.size() + 1) * width);
  for (std::size_t i = 0; i <= a.size(); ++i) {
    for (std::size_t j = 0; j <= b.size(); ++j) {
      int64_t& here = cost[i * width + j];
      if (i == 0 || j == 0) {
        here = static_cast<int64_t>(i + j);
        continue;
      }
      const int64_t replace = lower(a[i - 1]) == lower(b[j - 1]) ? 0 : 1;
      here = std::min({cost[(i - 1) * width + j] + 1, cost[i * width + j - 1] + 1,
                       cost[(i - 1) * width + j - 1] + replace});
      if (i > 1 && j > 1 && lower(a[i - 1]) == lower(b[j - 2]) && lower(a[i - 2]) == lower(b[j - 1])) {
        here = std::min(here, cost[(i - 2) * width + j - 2] + 1);
      }
    }
  }
  return cost.back();
}

std::string nearest(std::string_view word, const std::vector<std::string>& candidates) {
  // The cost table is quadratic, and a word far longer than any field name is no slip of the hand.
  constexpr std::size_t kLongest = 200;
  if (word.size() > kLongest) return "";
  const int64_t near_enough = std::max<int64_t>(2, static_cast<int64_t>(word.size()) / 3);
  int64_t best = near_enough + 1;
  std::string found;
  for (const std::string& candidate : candidates) {
    const int64_t distance = edit_distance(word, candidate);
    // A distance as long as the word itself means that nothing of it was kept.
    if (distance < best && distance < static_cast<int64_t>(std::max(word.size(), candidate.size()))) {
      best = distance;
      found = candidate;
    }
  }
  return found;
}

std::string quoted_list(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& word : words) {
    if (!out.empty()) out += ", ";
    out += '"' + word + '"';
  }
  return out;
}

void append_list(std::string& message, const char* title, const std::vector<std::string>& items) {
  if (items.empty()) return;
  constexpr std::size_t kShown = 20;
  message += concat("\n  ", title, " (", items.size(), "):");
  for (std::size_t i = 0; i < items.size() && i < kShown; ++i) message += "\n    " + items[i];
  if (items.size() > kShown) message += concat("\n    ... and ", items.size() - kShown, " more");
}

}  // namespace focus
