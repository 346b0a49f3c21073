#include "focus/core/progress.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "focus/core/log.h"

namespace focus {
namespace {

struct Recorder {
  double now = 100;
  std::string terminal;
  std::vector<std::string> lines;
  ProgressOptions options(bool is_terminal) {
    ProgressOptions made;
    made.label = "train";
    made.total = 100;
    made.is_terminal = [is_terminal] { return is_terminal; };
    made.write_terminal = [this](const std::string& text) { terminal += text; };
    made.write_line = [this](const std::string& text) { lines.push_back(text); };
    made.now_seconds = [this] { return now; };
    return made;
  }
};

TEST(Progress, LogsALineEveryThirtySecondsOffTerminal) {
  Recorder recorder;
  Progress progress(recorder.options(false));
  for (int step = 0; step < 40; ++step) {
    recorder.now += 2;
    progress.advance(1, "loss 1.5");
  }
  ASSERT_EQ(recorder.lines.size(), 2u);
  EXPECT_EQ(recorder.lines[0], "train: 15/100 steps (15%), 2.00 s each, 2m 50s left, loss 1.5");
  EXPECT_EQ(recorder.lines[1], "train: 30/100 steps (30%), 2.00 s each, 2m 20s left, loss 1.5");
  progress.set(100);
  progress.finish();
  progress.finish();
  ASSERT_EQ(recorder.lines.size(), 3u);
  EXPECT_EQ(recorder.lines[2], "train: 100/100 steps in 1m 20s, 1.2 steps/s, loss 1.5");
  EXPECT_EQ(recorder.terminal, "");
}

TEST(Progress, DrawsABarOnATerminal) {
  Recorder recorder;
  {
    Progress progress(recorder.options(true));
    recorder.now += 1;
    progress.advance(50);
    progress.advance(1);  // too soon to redraw
    recorder.now += 1;
    EXPECT_EQ(recorder.terminal,
              "\r\x1b[Ktrain [============            ] 50/100 steps (50%), 50.0 steps/s, 1.00 s left");
  }
  EXPECT_EQ(recorder.terminal.back(), '\n');
  EXPECT_TRUE(recorder.lines.empty());
}

TEST(Progress, ResumedWorkDoesNotCountInTheRate) {
  Recorder recorder;
  ProgressOptions options = recorder.options(false);
  options.start = 80;
  Progress progress(options);
  recorder.now += 30;
  progress.advance(10);
  ASSERT_EQ(recorder.lines.size(), 1u);
  EXPECT_EQ(recorder.lines[0], "train: 90/100 steps (90%), 3.00 s each, 30.0 s left");
}

TEST(Progress, UnknownTotalHasNoShareAndNoEnd) {
  Recorder recorder;
  ProgressOptions options = recorder.options(false);
  options.total = 0;
  options.unit = "bases";
  Progress progress(options);
  recorder.now += 40;
  progress.advance(4'000'000);
  ASSERT_EQ(recorder.lines.size(), 1u);
  EXPECT_EQ(recorder.lines[0], "train: 4,000,000 bases, 100,000 bases/s");
}

TEST(Progress, SilentWhenQuiet) {
  const int before = log::verbosity();
  log::set_verbosity(0);
  Recorder recorder;
  for (const bool terminal : {false, true}) {
    Progress progress(recorder.options(terminal));
    recorder.now += 60;
    progress.advance();
    progress.finish();
  }
  log::set_verbosity(before);
  EXPECT_EQ(recorder.terminal, "");
  EXPECT_TRUE(recorder.lines.empty());
}

}  // namespace
}  // namespace focus
