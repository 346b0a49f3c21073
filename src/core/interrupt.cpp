#include "focus/core/interrupt.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

#include "focus/core/error.h"

namespace focus {
namespace {

// A lock-free atomic may be touched inside a signal handler.
std::atomic<bool> requested{false};
std::atomic<int> num_sigints{0};
static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<int>::is_always_lock_free);

extern "C" void on_signal(int signal) {
  const int saved_errno = errno;
  if (signal == SIGINT && num_sigints.fetch_add(1) > 0) ::_exit(static_cast<int>(ExitCode::interrupted));
  if (!requested.exchange(true)) {
    static constexpr char kMessage[] = "\ninterrupted: finishing the current step; press Ctrl-C again to stop at once\n";
    [[maybe_unused]] const auto ignored = ::write(STDERR_FILENO, kMessage, sizeof kMessage - 1);
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

bool interrupt_requested() { return requested.load(); }

void reset_interrupt() {
  requested.store(false);
  num_sigints.store(0);
}

}  // namespace focus
