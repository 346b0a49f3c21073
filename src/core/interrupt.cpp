#include "focus/core/interrupt.h"

#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>

#include "focus/core/error.h"

namespace focus {
namespace {

// A lock-free atomic may be touched inside a signal handler.
std::atomic<int> first_signal{0};
std::atomic<int64_t> first_ms{0};
static_assert(std::atomic<int>::is_always_lock_free && std::atomic<int64_t>::is_always_lock_free);

constexpr int64_t kSameRequestMs = 1000;

int64_t monotonic_ms() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);  // safe in a signal handler
  return static_cast<int64_t>(now.tv_sec) * 1000 + now.tv_nsec / 1'000'000;
}

extern "C" void on_signal(int signal) {
  const int saved_errno = errno;
  int none = 0;
  if (first_signal.compare_exchange_strong(none, signal)) {
    first_ms.store(monotonic_ms());
    static constexpr char kMessage[] = "\ninterrupted: finishing the current step; press Ctrl-C again to stop at once\n";
    [[maybe_unused]] const auto ignored = ::write(STDERR_FILENO, kMessage, sizeof kMessage - 1);
  } else if (monotonic_ms() - first_ms.load() > kSameRequestMs) {
    ::_exit(128 + signal);
  }
  errno = saved_errno;
}

}  // namespace

void install_interrupt_handlers() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  ::sigemptyset(&action.sa_mask);
  // Restarting keeps library code, which may not expect EINTR, out of it.
  action.sa_flags = SA_RESTART;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

bool interrupt_requested() { return first_signal.load() != 0; }

int interrupt_signal() { return first_signal.load(); }

void request_interrupt(int signal) {
  int none = 0;
  if (first_signal.compare_exchange_strong(none, signal)) first_ms.store(monotonic_ms());
}

void reset_interrupt() { first_signal.store(0); }

Interrupted::Interrupted(const std::string& message)
    : Error(message, interrupt_signal() == SIGTERM ? ExitCode::terminated : ExitCode::interrupted) {}

}  // namespace focus
