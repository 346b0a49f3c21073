// The one line at the bottom of a terminal that a progress bar redraws, shared with the log so that messages
// do not land inside it.
#pragma once

#include <mutex>

namespace focus {

struct TerminalLine {
  std::mutex mutex;
  bool bar_shown = false;
  static TerminalLine& instance() {
    static TerminalLine line;
    return line;
  }
};

inline constexpr char kClearLine[] = "\r\x1b[K";

}  // namespace focus
