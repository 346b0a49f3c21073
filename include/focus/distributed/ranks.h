// Several processes, the ranks, share one run: of training each takes a share of a step's micro-batches, of
// an evaluation some segments.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "focus/distributed/rank_environment.h"

namespace focus::distributed {

/// The ranks of a run. Every rank makes the same calls in the same order; each call waits for all. A rank
/// that died makes the call throw DeviceError on the others at once, one that is silent after the timeout.
class Ranks {
 public:
  virtual ~Ranks() = default;
  virtual int64_t rank() const = 0;
  virtual int64_t size() const = 0;
  /// The only one that writes files.
  bool is_first() const { return rank() == 0; }
  /// Each tensor becomes its sum over the ranks, the same bits on all. Shapes, dtypes and order agree between
  /// ranks; any device.
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

/// Something that all ranks of a run must have in common: what it is called in a message, and a text that
/// tells one from another.
using Shared = std::pair<std::string, std::string>;
/// ConfigError on every rank, naming what differs, unless all ranks have the same texts. One rank has nothing
/// to compare.
void require_agreement(Ranks& ranks, const std::vector<Shared>& shared);

struct JoinOptions {
  int64_t meet_seconds = 600;    // how long the ranks may take to start
  int64_t answer_seconds = 600;  // how long a call waits for the slowest
  std::string advice;            // ends the message about a lost rank: what to do then
};

/// Meets the other ranks. One rank needs no network. DeviceError: the build has no way to connect ranks, or
/// they did not all arrive in time.
std::unique_ptr<Ranks> join_ranks(const RankEnvironment& environment, const at::Device& device,
                                  const JoinOptions& options);
/// The only rank of a run.
std::unique_ptr<Ranks> one_rank();

}  // namespace focus::distributed
