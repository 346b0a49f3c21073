#include "focus/train/run/metrics_log.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>

#include "focus/core/error.h"
#include "focus/core/file.h"
#include "support/temporary_folder.h"

namespace focus::train {
namespace {

TEST(MetricsLog, OneOrderedLinePerWriteAtOnce) {
  const testing::TemporaryFolder folder;
  const auto path = folder.path() / "metrics.jsonl";
  MetricsLog log(path);
  log.write(1, {{"loss", 1.25}, {"kind", "train"}, {"bases", int64_t{1} << 60}});
  // Read while the log is still open: nothing waits in a buffer.
  EXPECT_EQ(read_file(path), "{\"step\":1,\"loss\":1.25,\"kind\":\"train\",\"bases\":1152921504606846976}\n");
  log.write(2, {{"loss", std::nan("")}, {"norm", std::numeric_limits<double>::infinity()}, {"a", 0.0}});
  EXPECT_NE(read_file(path).find("\n{\"step\":2,\"loss\":null,\"norm\":null,\"a\":0.0}\n"),
            std::string::npos);
  EXPECT_THROW(log.write(3, {{"loss", 1.0}, {"loss", 2.0}}), InternalError);
  EXPECT_THROW(log.write(3, {{"step", 1.0}}), InternalError);
  log.sync();
}

TEST(MetricsLog, ResumeDropsLaterStepsAndATornLine) {
  const testing::TemporaryFolder folder;
  const auto path = folder.path() / "metrics.jsonl";
  const auto fill = [&](MetricsLog& log, int begin, int end) {
    for (int step = begin; step <= end; ++step) {
      log.write(step, {{"loss", 1.0 / step}});
      if (step % 3 == 0) log.write(step, {{"eval_loss", 2.0 / step}});
    }
  };
  {
    MetricsLog log(path);
    fill(log, 1, 10);
  }
  const std::string uninterrupted = read_file(path);
  std::ofstream(path, std::ios::app) << "{\"step\":11,\"lo";
  {
    MetricsLog log(path, 6);
    EXPECT_NE(read_file(path).find("\"step\":6,\"eval_loss\""), std::string::npos);
    EXPECT_EQ(read_file(path).find("\"step\":7"), std::string::npos);
    fill(log, 7, 10);
  }
  EXPECT_EQ(read_file(path), uninterrupted);
  {
    MetricsLog log(path, 0);
  }
  EXPECT_EQ(read_file(path), "");
}

TEST(MetricsLog, FreshStartEmptiesAndResumeWithoutFileStartsOne) {
  const testing::TemporaryFolder folder;
  const auto path = folder.path() / "metrics.jsonl";
  {
    MetricsLog log(path, 5);
    log.write(6, {});
  }
  EXPECT_EQ(read_file(path), "{\"step\":6}\n");
  MetricsLog again(path);
  EXPECT_EQ(read_file(path), "");
}

TEST(MetricsLog, RefusesAMalformedLineInTheMiddle) {
  const testing::TemporaryFolder folder;
  const auto path = folder.path() / "metrics.jsonl";
  write_file(path, "{\"step\":1}\nrubbish\n{\"step\":2}\n");
  try {
    MetricsLog log(path, 2);
    FAIL() << "expected DataError";
  } catch (const DataError& error) {
    EXPECT_NE(std::string(error.what()).find("line 2"), std::string::npos) << error.what();
  }
  EXPECT_THROW(MetricsLog(folder.path() / "no" / "metrics.jsonl"), DataError);
}

}  // namespace
}  // namespace focus::train
