#include "focus/core/processors.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <string>

#include "support/temporary_folder.h"

namespace focus {
namespace {

class ProcessorsTest : public ::testing::Test {
 protected:
  void write(const std::string& path, const std::string& text) const {
    std::filesystem::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }
  Processors read(const std::map<std::string, std::string>& environment = {}) const {
    return read_processors(root_.path(), [&](const std::string& name) {
      const auto found = environment.find(name);
      return found == environment.end() ? std::nullopt : std::optional(found->second);
    });
  }

  testing::TemporaryFolder root_;
};

TEST_F(ProcessorsTest, TheLeastOfAllLimitsCounts) {
  Processors processors{.machine = 16, .allowed = 8, .quota = 3, .openmp = 2};
  EXPECT_EQ(processors.shared(), 3);
  EXPECT_EQ(processors.usable(), 2);
  EXPECT_EQ(processors.limited_by(), "OMP_NUM_THREADS");
  processors.openmp = 64;
  EXPECT_EQ(processors.usable(), 3);
  EXPECT_EQ(processors.limited_by(), "cgroup quota");
  processors.quota = 100;
  EXPECT_EQ(processors.usable(), 8);
  EXPECT_EQ(processors.limited_by(), "affinity");
  processors.allowed.reset();
  EXPECT_EQ(processors.usable(), 16);
  EXPECT_EQ(processors.limited_by(), "machine");
}

TEST_F(ProcessorsTest, NothingKnownIsWhatTheMachineHas) {
  const Processors processors = read();
  EXPECT_GE(processors.machine, 1);
  EXPECT_GE(processors.allowed, 1);
  EXPECT_EQ(processors.quota, std::nullopt);
  EXPECT_EQ(processors.openmp, std::nullopt);
}

TEST_F(ProcessorsTest, PartsOfAProcessorAreRoundedUp) {
  write("proc/self/cgroup", "0::/job\n");
  for (const auto& [text, expected] :
       std::map<std::string, std::optional<int64_t>>{{"max 100000\n", std::nullopt},
                                                     {"50000 100000\n", 1},
                                                     {"100000 100000\n", 1},
                                                     {"250000 100000\n", 3},
                                                     {"20000 10000\n", 2},
                                                     {"150000\n", 2},
                                                     {"", std::nullopt}}) {
    write("sys/fs/cgroup/job/cpu.max", text);
    EXPECT_EQ(read().quota, expected) << text;
  }
}

TEST_F(ProcessorsTest, ANestedGroupsQuotaIsSeenThoughOthersHaveNone) {
  write("proc/self/cgroup", "0::/slice/job/step\n");
  write("sys/fs/cgroup/slice/job/step/cpu.max", "max 100000\n");
  write("sys/fs/cgroup/slice/job/cpu.max", "400000 100000\n");
  EXPECT_EQ(read().quota, 4);
  write("sys/fs/cgroup/slice/cpu.max", "200000 100000\n");
  EXPECT_EQ(read().quota, 2);
}

TEST_F(ProcessorsTest, VersionOneIsReadByItsController) {
  write("proc/self/cgroup", "5:memory:/other\n3:cpu,cpuacct:/slurm/job_7/step\n0::/\n");
  const std::string job = "sys/fs/cgroup/cpu,cpuacct/slurm/job_7/";
  write(job + "step/cpu.cfs_quota_us", "-1\n");
  write(job + "step/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(read().quota, std::nullopt);
  write(job + "cpu.cfs_quota_us", "350000\n");
  write(job + "cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(read().quota, 4);
  write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "10000\n");  // inside a container
  write("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(read().quota, 1);
}

TEST_F(ProcessorsTest, OpenMpsVariables) {
  EXPECT_EQ(read({{"OMP_NUM_THREADS", "3"}}).openmp, 3);
  EXPECT_EQ(read({{"OMP_NUM_THREADS", " 4 ,2"}}).openmp, 4);
  EXPECT_EQ(read({{"OMP_NUM_THREADS", "4"}, {"OMP_THREAD_LIMIT", "2"}}).openmp, 2);
  for (const char* text : {"", "0", "-1", "all", "2x", "99999999999999999999"})
    EXPECT_EQ(read({{"OMP_NUM_THREADS", text}}).openmp, std::nullopt) << text;
  EXPECT_EQ(read({{"OMP_NUM_THREADS", "1"}}).usable(), 1);
}

}  // namespace
}  // namespace focus
