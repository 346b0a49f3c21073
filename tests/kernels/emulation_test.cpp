// What the emulation reports, and in which of its builds.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <stdexcept>

#include "kernels/buffer.h"
#include "kernels/faulty.h"

namespace focus::testing {
namespace {

constexpr const char *kRight = "right outputs", *kWrong = "wrong outputs",
                     *kUnwritten = "reads what no thread of the block has written";

struct Expected {
  Fault fault;
  const char *plain, *address, *memory;
};
constexpr Expected everywhere(Fault fault, const char* message) { return {fault, message, message, message}; }

std::string outputs(Fault fault) {
  Buffer<float> in(256), out(256), total(1);
  in.randomise(1);
  total[0] = 0;
  faulty(fault, in, out, total);
  bool right = total[0] == 4;
  for (int i = 0; i < 256; ++i)
    right &= std::abs(out[i] - (value(in[i]) + value(in[i / 64 * 64 + (i + 1) % 64]))) <= 1e-6;
  return right ? kRight : kWrong;
}

/// What a child process prints, whatever becomes of it: a sanitizer ends it.
std::string printed_by_child(Fault fault) {
  int ends[2];
  if (pipe(ends) != 0) std::abort();
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], 1);
    dup2(ends[1], 2);
    try {
      std::printf("%s", outputs(fault).c_str());
    } catch (const std::exception& error) {  // after which the emulation works on
      std::printf("%s; then %s", error.what(), outputs(Fault::kNone).c_str());
      if (outputs(Fault::kNone) != kRight) std::abort();
    }
    std::fflush(stdout);
    _exit(0);
  }
  ::close(ends[1]);
  std::string text;
  char part[4096];
  for (ssize_t n; (n = read(ends[0], part, sizeof(part))) > 0;)
    text.append(part, static_cast<std::size_t>(n));
  ::close(ends[0]);
  waitpid(child, nullptr, 0);
  return text;
}

class EmulationTest : public ::testing::TestWithParam<Expected> {};

TEST_P(EmulationTest, ReportsTheFault) {
  const auto& [fault, plain, address, memory] = GetParam();
  const std::string build = FOCUS_EMULATION_CHECK, expected = build == "plain"     ? plain
                                                              : build == "address" ? address
                                                                                   : memory;
  const std::string text = printed_by_child(fault);
  EXPECT_NE(text.find(expected), std::string::npos) << text.substr(0, 400);
}

INSTANTIATE_TEST_SUITE_P(
    Faults, EmulationTest,
    ::testing::Values(everywhere(Fault::kNone, kRight),
                      everywhere(Fault::kDivergentBarrier, "divergence: threads meet in different barriers"),
                      everywhere(Fault::kExitBeforeBarrier, "threads 50-63 have exited"),
                      everywhere(Fault::kExitBeforeShuffle, "threads 40-40 have exited"),
                      everywhere(Fault::kLaneNotInMask, "a lane is not in the mask"),
                      everywhere(Fault::kGridBeyondTheLimits, "invalid configuration"),
                      Expected{Fault::kMissingBarrier, kWrong, kWrong, kUnwritten},
                      Expected{Fault::kMissingWarpBarrier, kWrong, kWrong, kUnwritten},
                      Expected{Fault::kMissingCopyWait, kWrong, kWrong, kUnwritten},
                      Expected{Fault::kUninitialised, kWrong, kWrong,
                               "shared memory 'tile' + 252: reads what no thread"},
                      Expected{Fault::kOverwriteWhileRead, kWrong, kWrong, "race: another thread"},
                      Expected{Fault::kBlocksAddWithoutAtomics, kRight, kRight,
                               "race: another block of this launch wrote this"},
                      Expected{Fault::kReadPastBuffer, kWrong, "heap-buffer-overflow", kWrong},
                      Expected{Fault::kWritePastShared, kRight, "use-after-poison",
                               "shared memory: outside of every array"},
                      Expected{Fault::kMisaligned, kRight, "misaligned address", kRight}));

}  // namespace
}  // namespace focus::testing
