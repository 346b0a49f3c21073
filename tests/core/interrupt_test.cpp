#include "focus/core/interrupt.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <utility>

#include "focus/core/error.h"

namespace focus {
namespace {

TEST(Interrupt, FirstSignalOnlySetsTheFlag) {
  install_interrupt_handlers();
  for (const int signal : {SIGINT, SIGTERM}) {
    reset_interrupt();
    EXPECT_FALSE(interrupt_requested());
    ::raise(signal);
    EXPECT_TRUE(interrupt_requested());
  }
  reset_interrupt();
}

TEST(Interrupt, ErrorsCarryTheSignalsExitCode) {
  install_interrupt_handlers();
  for (const auto& [signal, code] : {std::pair{SIGINT, ExitCode::interrupted}, std::pair{SIGTERM, ExitCode::terminated}}) {
    reset_interrupt();
    ::raise(signal);
    EXPECT_EQ(interrupt_signal(), signal);
    EXPECT_EQ(Interrupted("stopped").exit_code(), code);
    reset_interrupt();
    request_interrupt(signal);  // a request that reached another process
    EXPECT_TRUE(interrupt_requested());
    EXPECT_EQ(Interrupted("stopped").exit_code(), code);
  }
  reset_interrupt();
}

// Two signals in one request: a terminal's Ctrl-C reaches the launcher, which passes it on.
TEST(InterruptDeathTest, SignalsOfOneMomentAreOneRequest) {
  EXPECT_EXIT(
      {
        install_interrupt_handlers();
        for (const int signal : {SIGTERM, SIGTERM, SIGINT}) ::raise(signal);
        std::_Exit(interrupt_requested() ? 7 : 8);
      },
      testing::ExitedWithCode(7), "press Ctrl-C again");
}

TEST(InterruptDeathTest, ALaterSignalEndsAtOnce) {
  for (const auto& [signal, code] : {std::pair{SIGINT, 130}, std::pair{SIGTERM, 143}}) {
    EXPECT_EXIT(
        {
          install_interrupt_handlers();
          ::raise(SIGINT);
          ::usleep(1'100'000);
          ::raise(signal);
          std::_Exit(0);
        },
        testing::ExitedWithCode(code), "press Ctrl-C again");
  }
}

}  // namespace
}  // namespace focus
