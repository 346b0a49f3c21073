// A kernel with a choice of mistakes, each of which the emulation must report.
#pragma once

enum class Fault {
  kNone,
  kDivergentBarrier,
  kExitBeforeBarrier,
  kExitBeforeShuffle,
  kLaneNotInMask,
  kMissingBarrier,
  kMissingWarpBarrier,
  kMissingCopyWait,
  kUninitialised,
  kOverwriteWhileRead,
  kBlocksAddWithoutAtomics,
  kReadPastBuffer,
  kWritePastShared,
  kMisaligned,
  kGridBeyondTheLimits
};

/// out[i] = in[i] + in[i's right neighbour in the block] for 256 elements in blocks of 64 threads, and every
/// block adds 1 to total; or what goes wrong on the way.
void faulty(Fault fault, const float* in, float* out, float* total);
