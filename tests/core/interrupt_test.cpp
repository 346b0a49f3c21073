#include "focus/core/interrupt.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <utility>

#include "focus/core/error.h"
#include "focus/core/file.h"
#include "focus/core/staged_folder.h"
#include "support/temporary_folder.h"

namespace focus {
namespace {

// A runner that was started by nohup ignores it, and so would these tests.
[[maybe_unused]] const auto inherited_hangup = ::signal(SIGHUP, SIG_DFL);

TEST(Interrupt, FirstSignalOnlySetsTheFlag) {
  install_interrupt_handlers();
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGXCPU, SIGUSR1, SIGUSR2}) {
    reset_interrupt();
    EXPECT_FALSE(interrupt_requested());
    ::raise(signal);
    EXPECT_TRUE(interrupt_requested());
  }
  reset_interrupt();
}

TEST(Interrupt, ErrorsCarryTheSignalsExitCode) {
  install_interrupt_handlers();
  for (const auto& [signal, code] :
       {std::pair{SIGINT, ExitCode::interrupted}, std::pair{SIGTERM, ExitCode::terminated},
        std::pair{SIGHUP, ExitCode{129}}, std::pair{SIGXCPU, ExitCode{152}}}) {
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
      ::testing::ExitedWithCode(7), "press Ctrl-C again");
}

TEST(InterruptDeathTest, ALaterSignalEndsAtOnce) {
  for (const auto& [signal, code] :
       {std::pair{SIGINT, 130}, std::pair{SIGTERM, 143}, std::pair{SIGHUP, 129}}) {
    EXPECT_EXIT(
        {
          install_interrupt_handlers();
          ::raise(SIGINT);
          ::usleep(1'100'000);
          ::raise(signal);
          ::sleep(60);
          std::_Exit(0);
        },
        ::testing::ExitedWithCode(code), "press Ctrl-C again");
  }
}

TEST(InterruptDeathTest, ALaterSignalLeavesNothingUnderTemporaryNames) {
  const testing::TemporaryFolder folder;
  EXPECT_EXIT(
      {
        install_interrupt_handlers();
        AtomicFile file(folder / "table.tsv");
        file.write("half");
        StagedFolder report(folder / "report");
        AtomicFile inside(report.temporary() / "values");
        std::ofstream(report.temporary() / "page") << "half";
        ::raise(SIGHUP);
        ::usleep(1'100'000);
        ::raise(SIGTERM);
        ::sleep(60);
        std::_Exit(0);
      },
      ::testing::ExitedWithCode(143), "");
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(InterruptDeathTest, AClosedPipeEndsQuietlyAndLeavesNothing) {
  const testing::TemporaryFolder folder;
  EXPECT_EXIT(
      {
        install_interrupt_handlers();
        AtomicFile file(folder / "table.tsv");
        int ends[2];
        if (::pipe(ends) != 0) std::_Exit(8);
        ::close(ends[0]);
        [[maybe_unused]] const auto count = ::write(ends[1], "x", 1);
        std::_Exit(9);
      },
      ::testing::KilledBySignal(SIGPIPE), "");
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(InterruptDeathTest, WhatNohupIgnoresStaysIgnored) {
  EXPECT_EXIT(
      {
        ::signal(SIGHUP, SIG_IGN);
        install_interrupt_handlers();
        ::raise(SIGHUP);
        std::_Exit(interrupt_requested() ? 8 : 7);
      },
      ::testing::ExitedWithCode(7), "");
}

// The system sends it again every second until the hard limit kills.
TEST(InterruptDeathTest, TheLimitOfProcessorTimeLeavesTimeToFinish) {
  EXPECT_EXIT(
      {
        install_interrupt_handlers();
        ::raise(SIGXCPU);
        ::usleep(1'100'000);
        ::raise(SIGXCPU);
        std::_Exit(interrupt_signal() == SIGXCPU ? 7 : 8);
      },
      ::testing::ExitedWithCode(7), "");
}

TEST(InterruptDeathTest, AFileThatMayNotGrowIsAnError) {
  const testing::TemporaryFolder folder;
  EXPECT_EXIT(
      {
        install_interrupt_handlers();
        rlimit limit{};
        limit.rlim_cur = limit.rlim_max = 1000;
        ::setrlimit(RLIMIT_FSIZE, &limit);
        try {
          AtomicFile file(folder / "table.tsv");
          file.write(std::string(2000, 'x'));
        } catch (const DataError& error) {
          std::_Exit(std::string(error.what()).find("too large") != std::string::npos ? 7 : 8);
        }
        std::_Exit(9);
      },
      ::testing::ExitedWithCode(7), "");
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

}  // namespace
}  // namespace focus
