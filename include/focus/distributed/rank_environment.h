// What launchers tell a process about the ranks of its run.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace focus::distributed {

/// Where this process stands among those that a launcher started, read from the variables that launchers set:
///   RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE (torchrun, or by hand); SLURM_STEP_NUM_TASKS,
///   SLURM_PROCID, SLURM_LOCALID (srun); OMPI_COMM_WORLD_* (Open MPI's mpirun); PMI_* and MPI_LOCAL* (MPICH,
///   Intel MPI).
/// MASTER_ADDR and MASTER_PORT name where rank 0 listens. Without MASTER_ADDR it is this machine when all
/// ranks run here, or the first node of a Slurm step; without MASTER_PORT 29500, or a port made of the Slurm
/// job's number.
struct RankEnvironment {
  int64_t rank = 0, size = 1;
  int64_t local_rank = 0, local_size = 1;  // among the ranks of this machine
  std::string launcher = "none";
  std::string address;
  int64_t port = 0;
  bool store_is_running = false;  // torchrun listens itself: rank 0 must not
  std::string key_prefix;         // of this attempt, when torchrun starts the ranks again
};

/// The value of an environment variable; nothing when it is unset or empty.
using Variables = std::function<std::optional<std::string>(const std::string&)>;
/// ConfigError: variables that are no numbers, contradict each other, or leave no way for the ranks to find
/// rank 0.
RankEnvironment read_rank_environment(const Variables& variables);
RankEnvironment read_rank_environment();

}  // namespace focus::distributed
