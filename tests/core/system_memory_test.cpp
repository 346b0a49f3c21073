#include "focus/core/system_memory.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cinttypes>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <vector>

#include "support/temporary_folder.h"

namespace focus {
namespace {

constexpr int64_t kMiB = 1 << 20;

/// A machine of 1,000 MiB with 600 available, as its files describe it.
class SystemMemoryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    write("proc/meminfo", "MemTotal:  1024000 kB\nMemAvailable:  614400 kB\nSwapTotal:  0 kB\n");
  }
  void write(const std::string& path, const std::string& text) const {
    std::filesystem::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }
  void group(const std::string& folder, const std::string& limit, int64_t used, int64_t idle) const {
    write("sys/fs/cgroup/" + folder + "memory.max", limit + "\n");
    write("sys/fs/cgroup/" + folder + "memory.current", std::to_string(used));
    write("sys/fs/cgroup/" + folder + "memory.stat",
          "anon 1\ninactive_file " + std::to_string(idle) + "\nslab 2\n");
  }
  SystemMemory read() const { return read_system_memory(root_.path()); }

  testing::TemporaryFolder root_;
};

TEST_F(SystemMemoryTest, WithoutControlGroupsTheMachineIsTheLimit) {
  const SystemMemory memory = read();
  EXPECT_EQ(memory.total, 1000 * kMiB);
  EXPECT_EQ(memory.available, 600 * kMiB);
  EXPECT_EQ(memory.swap, 0);
  EXPECT_EQ(memory.limit, std::nullopt);
  EXPECT_EQ(memory.usable(), 600 * kMiB);
}

TEST_F(SystemMemoryTest, ANestedGroupsLimitIsSeenThoughTheRootHasNone) {
  write("proc/self/cgroup", "0::/system.slice/job.service/step\n");
  group("system.slice/job.service/step/", "max", 50 * kMiB, 0);
  group("system.slice/job.service/", std::to_string(300 * kMiB), 120 * kMiB, 20 * kMiB);
  group("system.slice/", std::to_string(800 * kMiB), 790 * kMiB, 700 * kMiB);
  const SystemMemory memory = read();
  EXPECT_EQ(memory.limit, 300 * kMiB);
  EXPECT_EQ(memory.left, 200 * kMiB);
  EXPECT_EQ(memory.usable(), 200 * kMiB);
}

TEST_F(SystemMemoryTest, AParentThatIsAlmostFullLeavesLessThanTheGroupsOwnLimit) {
  write("proc/self/cgroup", "0::/job/step\n");
  group("job/step/", std::to_string(300 * kMiB), 10 * kMiB, 0);
  group("job/", std::to_string(400 * kMiB), 395 * kMiB, 0);
  EXPECT_EQ(read().limit, 300 * kMiB);
  EXPECT_EQ(read().usable(), 5 * kMiB);
  group("job/", std::to_string(400 * kMiB), 401 * kMiB, 0);
  EXPECT_EQ(read().usable(), 0);
}

TEST_F(SystemMemoryTest, VersionOneIsReadByItsController) {
  write("proc/self/cgroup", "5:cpu,cpuacct:/other\n3:memory:/slurm/job_7\n0::/\n");
  const std::string job = "sys/fs/cgroup/memory/slurm/job_7/", top = "sys/fs/cgroup/memory/";
  write(job + "memory.limit_in_bytes", std::to_string(256 * kMiB));
  write(job + "memory.usage_in_bytes", std::to_string(56 * kMiB));
  write(job + "memory.stat", "inactive_file 1\ntotal_inactive_file " + std::to_string(6 * kMiB) + "\n");
  write(top + "memory.limit_in_bytes", "9223372036854771712");
  write(top + "memory.usage_in_bytes", "1");
  EXPECT_EQ(read().limit, 256 * kMiB);
  EXPECT_EQ(read().usable(), 206 * kMiB);
}

TEST_F(SystemMemoryTest, BesideVersionOneVersionTwoLiesDeeper) {
  write("proc/self/cgroup", "0::/user.slice/job\n4:memory:/\n");
  group("unified/user.slice/", std::to_string(200 * kMiB), 150 * kMiB, 0);
  EXPECT_EQ(read().usable(), 50 * kMiB);
}

TEST_F(SystemMemoryTest, InsideAContainerTheRootIsTheGroup) {
  write("proc/self/cgroup", "0::/docker/0123abcd\n");  // a folder that only the host sees
  group("", std::to_string(128 * kMiB), 28 * kMiB, 0);
  EXPECT_EQ(read().usable(), 100 * kMiB);
}

TEST_F(SystemMemoryTest, NothingKnownIsNoLimit) {
  const testing::TemporaryFolder empty;
  const SystemMemory memory = read_system_memory(empty.path());
  EXPECT_EQ(memory.total, std::nullopt);
  EXPECT_EQ(memory.usable(), std::numeric_limits<int64_t>::max());
}

TEST(ProcessMemoryTest, GrowsWithWhatIsTouched) {
  const ProcessMemory before = read_process_memory();
  std::vector<char> block(64 * kMiB, 1);
  const ProcessMemory now = read_process_memory();
  EXPECT_GE(now.own, before.own + 60 * kMiB);
  EXPECT_GE(now.peak, now.own);
  EXPECT_EQ(block[block.size() / 2], 1);
}

TEST(HugePagesTest, AreAskedForWhereTheMemoryLies) {
  constexpr std::size_t kBytes = 8 * kMiB;
  void* memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  const auto middle = reinterpret_cast<std::uintptr_t>(memory) + kBytes / 2;
  if (madvise(memory, 4096, MADV_HUGEPAGE) != 0) GTEST_SKIP() << "this system has no huge pages";
  const auto is_asked_for = [&] {
    std::ifstream maps("/proc/self/smaps");
    bool here = false;
    for (std::string line; std::getline(maps, line);) {
      std::uintptr_t begin = 0, end = 0;
      if (std::sscanf(line.c_str(), "%" SCNxPTR "-%" SCNxPTR " ", &begin, &end) == 2)
        here = begin <= middle && middle < end;
      if (here && line.starts_with("VmFlags:")) return line.find(" hg") != std::string::npos;
    }
    return false;
  };
  prefer_huge_pages(memory, kMiB);  // less than one
  EXPECT_FALSE(is_asked_for());
  prefer_huge_pages(static_cast<char*>(memory) + 4096, kBytes - 4096);
  EXPECT_TRUE(is_asked_for());
  munmap(memory, kBytes);
}

}  // namespace
}  // namespace focus
