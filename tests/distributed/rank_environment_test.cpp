#include "focus/distributed/ranks.h"

#include <gtest/gtest.h>

#include <map>

#include "focus/core/error.h"

namespace focus::distributed {
namespace {

RankEnvironment read(const std::map<std::string, std::string>& variables) {
  return read_rank_environment([&](const std::string& name) -> std::optional<std::string> {
    const auto found = variables.find(name);
    return found == variables.end() ? std::nullopt : std::optional(found->second);
  });
}

std::string error_of(const std::map<std::string, std::string>& variables) {
  try {
    read(variables);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no error";
}

TEST(RankEnvironment, WithoutALauncherThereIsOneRank) {
  EXPECT_EQ(read({}).size, 1);
  EXPECT_EQ(read({{"WORLD_SIZE", "1"}, {"RANK", "0"}}).size, 1);
  // A batch script is one process, however many tasks its job may start.
  EXPECT_EQ(read({{"SLURM_NTASKS", "8"}, {"SLURM_PROCID", "0"}, {"SLURM_JOB_ID", "7"}}).size, 1);
  // torchrun inside a Slurm task: the nearer launcher counts.
  EXPECT_EQ(
      read({{"WORLD_SIZE", "1"}, {"RANK", "0"}, {"SLURM_STEP_NUM_TASKS", "4"}, {"SLURM_PROCID", "2"}}).size,
      1);
}

TEST(RankEnvironment, Torchrun) {
  const RankEnvironment found = read({{"RANK", "5"},
                                      {"WORLD_SIZE", "8"},
                                      {"LOCAL_RANK", "1"},
                                      {"LOCAL_WORLD_SIZE", "4"},
                                      {"MASTER_ADDR", "host7"},
                                      {"MASTER_PORT", "1234"},
                                      {"TORCHELASTIC_USE_AGENT_STORE", "True"},
                                      {"TORCHELASTIC_RESTART_COUNT", "2"}});
  EXPECT_EQ(found.rank, 5);
  EXPECT_EQ(found.size, 8);
  EXPECT_EQ(found.local_rank, 1);
  EXPECT_EQ(found.local_size, 4);
  EXPECT_EQ(found.address, "host7");
  EXPECT_EQ(found.port, 1234);
  EXPECT_TRUE(found.store_is_running);
  EXPECT_EQ(found.key_prefix, "/worker/attempt_2");
}

TEST(RankEnvironment, SlurmNamesTheFirstNode) {
  const auto at = [](const std::string& nodes) {
    return read({{"SLURM_STEP_NUM_TASKS", "6"},
                 {"SLURM_PROCID", "4"},
                 {"SLURM_LOCALID", "0"},
                 {"SLURM_STEP_TASKS_PER_NODE", "4,2"},
                 {"SLURM_STEP_NODELIST", nodes},
                 {"SLURM_JOB_ID", "1234567"}});
  };
  EXPECT_EQ(at("gpu[03-04]").address, "gpu03");
  EXPECT_EQ(at("gpu[07,09]").address, "gpu07");
  EXPECT_EQ(at("alpha,beta[1-2]").address, "alpha");
  EXPECT_EQ(at("alpha").local_size, 4);
  EXPECT_EQ(at("alpha").port, 20000 + 1234567 % 10000);
}

TEST(RankEnvironment, MpirunOnOneMachineNeedsNoAddress) {
  const RankEnvironment open_mpi = read({{"OMPI_COMM_WORLD_SIZE", "2"},
                                         {"OMPI_COMM_WORLD_RANK", "1"},
                                         {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                                         {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}});
  EXPECT_EQ(open_mpi.address, "127.0.0.1");
  EXPECT_EQ(open_mpi.rank, 1);
  EXPECT_EQ(
      read({{"PMI_SIZE", "3"}, {"PMI_RANK", "2"}, {"MPI_LOCALRANKID", "2"}, {"MPI_LOCALNRANKS", "3"}}).rank,
      2);
  const std::string error = error_of({{"OMPI_COMM_WORLD_SIZE", "4"},
                                      {"OMPI_COMM_WORLD_RANK", "1"},
                                      {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                                      {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}});
  EXPECT_NE(error.find("MASTER_ADDR"), std::string::npos) << error;
}

TEST(RankEnvironment, NonsenseIsRefused) {
  EXPECT_NE(error_of({{"WORLD_SIZE", "two"}}).find("WORLD_SIZE='two'"), std::string::npos);
  EXPECT_NE(error_of({{"WORLD_SIZE", "2"}}).find("RANK is not set"), std::string::npos);
  EXPECT_NE(error_of({{"WORLD_SIZE", "2"}, {"RANK", "2"}}).find("count from 0"), std::string::npos);
  EXPECT_NE(error_of({{"WORLD_SIZE", "2"}, {"RANK", "0"}, {"MASTER_PORT", "70000"}}).find("65535"),
            std::string::npos);
}

}  // namespace
}  // namespace focus::distributed
