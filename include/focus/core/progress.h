// How far a long task is: a bar on a terminal, otherwise one log line every 30 seconds, so that a batch job's
// log stays short but alive.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace focus {

struct ProgressOptions {
  std::string label;  // what is being done, e.g. "train"
  std::string unit = "steps";
  int64_t total = 0;  // 0: not known, then no bar, share or remaining time
  int64_t start = 0;  // already done, e.g. on resume; not counted in the rate
  // Replaceable for tests. By default: whether stderr is a terminal, stderr, log::info and a monotonic clock.
  std::function<bool()> is_terminal = {};
  std::function<void(const std::string&)> write_terminal = {};
  std::function<void(const std::string&)> write_line = {};
  std::function<double()> now_seconds = {};
};

/// Messages go to stderr; nothing at verbosity 0. Safe to call from several threads. Shows rate and remaining
/// time, from the work done since construction. Destruction without finish() (an exception) ends the bar's
/// line without claiming success.
class Progress {
 public:
  explicit Progress(ProgressOptions options);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// `note` is shown behind the bar, e.g. "loss 1.234"; an empty one leaves the last.
  void advance(int64_t count = 1, const std::string& note = "");
  /// Sets the absolute position.
  void set(int64_t done, const std::string& note = "");
  /// Says how much was done in what time. Further calls do nothing.
  void finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace focus
