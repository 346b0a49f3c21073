#include "focus/core/progress.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <mutex>

#include "focus/core/error.h"
#include "focus/core/log.h"
#include "focus/core/units.h"
#include "terminal_line.h"

namespace focus {
namespace {

constexpr double kLineEverySeconds = 30, kRedrawEverySeconds = 0.1;
constexpr int64_t kBarWidth = 24;

double monotonic_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void write_stderr(const std::string& text) {
  TerminalLine& line = TerminalLine::instance();
  const std::lock_guard lock(line.mutex);
  std::fputs(text.c_str(), stderr);
  std::fflush(stderr);
  line.bar_shown = text.back() != '\n';
}

std::string rate_text(double per_second, const std::string& unit) {
  std::array<char, 48> buffer{};
  if (per_second >= 1000) return concat(format_count(static_cast<int64_t>(per_second)), " ", unit, "/s");
  if (per_second >= 1 || per_second <= 0) {
    std::snprintf(buffer.data(), buffer.size(), "%.1f ", per_second);
    return concat(buffer.data(), unit, "/s");
  }
  return concat(format_duration(1 / per_second), " each");
}

}  // namespace

struct Progress::State {
  ProgressOptions options;
  std::mutex mutex;
  int64_t done = 0;
  double began = 0, last_shown = 0;
  std::string note;
  bool silent = false, terminal = false, bar_open = false, finished = false;

  double per_second(double now) const {
    return now > began ? static_cast<double>(done - options.start) / (now - began) : 0;
  }
  std::string counts() const {
    if (options.total <= 0) return concat(format_count(done), " ", options.unit);
    return concat(format_count(done), "/", format_count(options.total), " ", options.unit);
  }
  std::string status(double now) const {
    const double rate = per_second(now);
    std::string text = counts();
    if (options.total > 0)
      text += concat(" (", std::clamp<int64_t>(done * 100 / options.total, 0, 100), "%)");
    if (rate > 0) text += concat(", ", rate_text(rate, options.unit));
    if (rate > 0 && options.total > done)
      text += concat(", ", format_duration(static_cast<double>(options.total - done) / rate), " left");
    if (!note.empty()) text += concat(", ", note);
    return text;
  }
  void show(double now) {
    if (silent || finished) return;
    if (now - last_shown < (terminal ? kRedrawEverySeconds : kLineEverySeconds)) return;
    last_shown = now;
    if (!terminal) {
      options.write_line(concat(options.label, ": ", status(now)));
      return;
    }
    std::string bar;
    if (options.total > 0) {
      const int64_t filled = std::clamp<int64_t>(done * kBarWidth / options.total, 0, kBarWidth);
      bar = concat("[", std::string(static_cast<std::size_t>(filled), '='),
                   std::string(static_cast<std::size_t>(kBarWidth - filled), ' '), "] ");
    }
    options.write_terminal(concat(kClearLine, options.label, " ", bar, status(now)));
    bar_open = true;
  }
};

Progress::Progress(ProgressOptions options) : state_(std::make_unique<State>()) {
  if (!options.is_terminal) options.is_terminal = [] { return ::isatty(STDERR_FILENO) == 1; };
  if (!options.write_terminal) options.write_terminal = write_stderr;
  if (!options.write_line) options.write_line = log::info;
  if (!options.now_seconds) options.now_seconds = monotonic_seconds;
  state_->options = std::move(options);
  state_->done = state_->options.start;
  state_->silent = log::verbosity() <= 0;
  state_->terminal = state_->options.is_terminal();
  state_->began = state_->last_shown = state_->options.now_seconds();
}

Progress::~Progress() {
  if (!state_->finished && state_->bar_open) {
    try {
      state_->options.write_terminal("\n");
    } catch (...) {  // a destructor has nobody to tell
    }
  }
}

void Progress::advance(int64_t count, const std::string& note) {
  const std::lock_guard lock(state_->mutex);
  state_->done += count;
  if (!note.empty()) state_->note = note;
  state_->show(state_->options.now_seconds());
}

void Progress::set(int64_t done, const std::string& note) {
  const std::lock_guard lock(state_->mutex);
  state_->done = done;
  if (!note.empty()) state_->note = note;
  state_->show(state_->options.now_seconds());
}

void Progress::finish() {
  const std::lock_guard lock(state_->mutex);
  State& s = *state_;
  if (s.finished) return;
  s.finished = true;
  if (s.silent) return;
  const double now = s.options.now_seconds();
  const double rate = s.per_second(now);
  std::string text = concat(s.options.label, ": ", s.counts(), " in ", format_duration(now - s.began));
  if (rate > 0) text += concat(", ", rate_text(rate, s.options.unit));
  if (!s.note.empty()) text += concat(", ", s.note);
  if (s.terminal) {
    s.options.write_terminal(concat(kClearLine, text, "\n"));
  } else {
    s.options.write_line(text);
  }
}

}  // namespace focus
