#include "focus/core/interrupt.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <system_error>
#include <thread>

#include "focus/core/error.h"
#include "focus/core/temporary.h"

namespace focus {
namespace {

// A lock-free atomic may be touched inside a signal handler.
std::atomic<int> first_signal{0};
std::atomic<int64_t> request_ms{0};  // of the latest request
std::atomic<bool> ending{false};
static_assert(std::atomic<int>::is_always_lock_free && std::atomic<int64_t>::is_always_lock_free);

constexpr int64_t kSameRequestMs = 1000;
constexpr int kStops[] = {SIGINT, SIGTERM, SIGHUP, SIGXCPU, SIGUSR1, SIGUSR2};

// A handler may not remove files. It wakes a thread that does, through a pipe, which a forked process would
// share without the thread.
int wake[2] = {-1, -1};
std::atomic<pid_t> watched{0};

int64_t monotonic_ms() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);  // safe in a signal handler
  return static_cast<int64_t>(now.tv_sec) * 1000 + now.tv_nsec / 1'000'000;
}

void end_at_once(int signal) {
  const auto number = static_cast<char>(signal);
  if (watched.load() != ::getpid() || ending.exchange(true) || ::write(wake[1], &number, 1) != 1)
    ::_exit(128 + signal);
}

void watch() {
  char signal = 0;
  while (::read(wake[0], &signal, 1) != 1) {
    if (errno != EINTR) return;
  }
  remove_temporaries();
  if (signal == SIGPIPE) {  // as if nobody had caught it
    ::signal(SIGPIPE, SIG_DFL);
    sigset_t none;
    ::sigemptyset(&none);
    ::pthread_sigmask(SIG_SETMASK, &none, nullptr);
    ::raise(SIGPIPE);
  }
  ::_exit(128 + signal);
}

/// Whoever read has gone: the program ends quietly, but leaves nothing behind. The writer waits for that.
extern "C" void on_closed_pipe(int signal) {
  end_at_once(signal);
  for (;;) ::pause();
}

extern "C" void on_signal(int signal) {
  const int saved_errno = errno;
  int none = 0;
  if (first_signal.compare_exchange_strong(none, signal)) {
    request_ms.store(monotonic_ms());
    static constexpr char kMessage[] =
        "\ninterrupted: finishing the current step; press Ctrl-C again to stop at once\n";
    [[maybe_unused]] const auto ignored = ::write(STDERR_FILENO, kMessage, sizeof kMessage - 1);
  } else if (signal != SIGXCPU &&
             monotonic_ms() - request_ms.load() > kSameRequestMs) {  // SIGXCPU comes again every second
    request_ms.store(monotonic_ms());
    end_at_once(signal);
  }
  errno = saved_errno;
}

}  // namespace

void install_interrupt_handlers() {
  if (watched.load() != ::getpid() && ::pipe2(wake, O_CLOEXEC) == 0) {
    // The thread takes no signals: they shall interrupt the work, as they always do.
    sigset_t all, before;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
      std::thread(watch).detach();
      watched.store(::getpid());
    } catch (const std::system_error&) {  // no more threads are allowed: a later signal then ends the process
                                          // without tidying up
    }
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }
  struct sigaction action{};
  action.sa_handler = on_signal;
  ::sigemptyset(&action.sa_mask);
  // Restarting keeps library code, which may not expect EINTR, out of it.
  action.sa_flags = SA_RESTART;
  for (const int signal : kStops) {
    struct sigaction inherited{};
    if (signal == SIGHUP && ::sigaction(signal, nullptr, &inherited) == 0 && inherited.sa_handler == SIG_IGN)
      continue;  // nohup
    ::sigaction(signal, &action, nullptr);
  }
  action.sa_handler = on_closed_pipe;
  ::sigaction(SIGPIPE, &action, nullptr);
  ::signal(SIGXFSZ, SIG_IGN);
}

bool interrupt_requested() { return first_signal.load() != 0; }

int interrupt_signal() { return first_signal.load(); }

void request_interrupt(int signal) {
  int none = 0;
  if (first_signal.compare_exchange_strong(none, signal)) request_ms.store(monotonic_ms());
}

void reset_interrupt() { first_signal.store(0); }

Interrupted::Interrupted(const std::string& message)
    : Error(message, static_cast<ExitCode>(128 + (interrupt_signal() > 0 ? interrupt_signal() : SIGINT))) {}

}  // namespace focus
