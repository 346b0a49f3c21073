#include "focus/core/interrupt.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>

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

TEST(InterruptDeathTest, SecondInterruptEndsWith130) {
  EXPECT_EXIT(
      {
        install_interrupt_handlers();
        ::raise(SIGINT);
        ::raise(SIGINT);
        std::_Exit(0);
      },
      testing::ExitedWithCode(130), "press Ctrl-C again");
}

TEST(InterruptDeathTest, RepeatedTerminationRequestsAreOneRequest) {
  EXPECT_EXIT(
      {
        install_interrupt_handlers();
        ::raise(SIGTERM);
        ::raise(SIGTERM);
        std::_Exit(interrupt_requested() ? 7 : 8);
      },
      testing::ExitedWithCode(7), "");
}

}  // namespace
}  // namespace focus
