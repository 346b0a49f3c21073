// Several processes, the ranks, share one run: of training each takes a share of a step's micro-batches, of an evaluation some segments.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace focus::distributed {

/// Where this process stands among those that a launcher started, read from the variables that launchers set:
///   RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE (torchrun, or by hand); SLURM_STEP_NUM_TASKS, SLURM_PROCID, SLURM_LOCALID (srun);
///   OMPI_COMM_WORLD_* (Open MPI's mpirun); PMI_* and MPI_LOCAL* (MPICH, Intel MPI).
/// MASTER_ADDR and MASTER_PORT name where rank 0 listens. Without MASTER_ADDR it is this machine when all ranks run here, or the first node
/// of a Slurm step; without MASTER_PORT 29500, or a port made of the Slurm job's number.
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
/// ConfigError: variables that are no numbers, contradict each other, or leave no way for the ranks to find rank 0.
RankEnvironment read_rank_environment(const Variables& variables);
RankEnvironment read_rank_environment();

/// The ranks of a run. Every rank makes the same calls in the same order; each call waits for all. A rank that died makes the call throw
/// DeviceError on the others at once, one that is silent after the timeout.
class Ranks {
 public:
  virtual ~Ranks() = default;
  virtual int64_t rank() const = 0;
  virtual int64_t size() const = 0;
  /// The only one that writes files.
  bool is_first() const { return rank() == 0; }
  /// Each tensor becomes its sum over the ranks, the same bits on all. Shapes, dtypes and order agree between ranks; any device.
  virtual void all_reduce_sum(const std::vector<at::Tensor>& tensors) = 0;
  /// Each tensor becomes rank 0's.
  virtual void broadcast(const std::vector<at::Tensor>& tensors) = 0;
  virtual void barrier() = 0;

  std::vector<double> sum(const std::vector<double>& values);
  /// Of each value the largest of all ranks.
  std::vector<double> largest(const std::vector<double>& values);
  std::vector<int64_t> from_first(const std::vector<int64_t>& values);
  std::vector<double> from_first(const std::vector<double>& values);
  /// For each value how many ranks have another than rank 0.
  std::vector<double> count_differing(const std::vector<int64_t>& values);
};

/// Something that all ranks of a run must have in common: what it is called in a message, and a text that tells one from another.
using Shared = std::pair<std::string, std::string>;
/// ConfigError on every rank, naming what differs, unless all ranks have the same texts. One rank has nothing to compare.
void require_agreement(Ranks& ranks, const std::vector<Shared>& shared);

struct JoinOptions {
  int64_t meet_seconds = 600;    // how long the ranks may take to start
  int64_t answer_seconds = 600;  // how long a call waits for the slowest
  std::string advice;            // ends the message about a lost rank: what to do then
};

/// Meets the other ranks. One rank needs no network. DeviceError: the build has no way to connect ranks, or they did not all arrive in
/// time.
std::unique_ptr<Ranks> join_ranks(const RankEnvironment& environment, const at::Device& device, const JoinOptions& options);
/// The only rank of a run.
std::unique_ptr<Ranks> one_rank();

}  // namespace focus::distributed
