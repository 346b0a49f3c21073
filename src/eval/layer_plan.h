// Which memory each attention block gets: what a schedule can name, and the cheapest of it that keeps enough.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "focus/compress/plan/config.h"
#include "focus/model/backbone.h"

namespace focus::eval {

/// state_only, fitted, mixture, quantised_int4, quantised_int8, tables, far_fitted, full: what settings can
/// give to some blocks and not to others.
const std::vector<std::string>& candidate_names();

/// The settings that give each block the memory of that name: of `memory`, the settings that all share, what
/// these memories read, with a schedule.
compress::MemoryConfig with_memories(const model::Backbone& backbone, const compress::MemoryConfig& memory,
                                     const std::map<int64_t, std::string>& by_block);

/// One memory in one block.
struct Option {
  double kl = 0;  // with the other blocks full
  int64_t bytes = 0;
  bool allowed = true;
};
struct BlockOptions {
  double forgetting = 0;        // KL
  std::vector<Option> options;  // at least one is allowed
};

/// The share of forgetting's loss that a choice of one option per block avoids, if the blocks' losses add up;
/// 1 where forgetting costs nothing.
double predicted_share(const std::vector<BlockOptions>& blocks, const std::vector<std::size_t>& chosen);
int64_t total_bytes(const std::vector<BlockOptions>& blocks, const std::vector<std::size_t>& chosen);

/// From the cheapest option of every block on, takes the step that saves most KL per byte, until
/// `min_share` is kept or nothing fits into `max_bytes` any more; then gives back what is not needed for it.
/// ConfigError: not even the cheapest fits into `max_bytes`.
std::vector<std::size_t> choose(const std::vector<BlockOptions>& blocks, double min_share, int64_t max_bytes);

}  // namespace focus::eval
