// What a pass over a StripedHyena computes and what it moves through a device's memory, counted from the code
// that runs it there: an operand is read once, a result written once, and what is fused is not moved at all.
// The arithmetic of plans and of the share of a machine that a measurement reached. No torch type appears
// here.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "focus/model/config.h"

namespace focus::model {

/// What a device computes an operation with.
enum class Unit {
  gemm,  // large matrix products, by the vendor's library
  mma,   // attention and long filters, by kernels on tensor cores
  fp32   // fp32 arithmetic
};
const char* name_of(Unit unit);

/// One operation, summed over the blocks that have it.
struct Operation {
  std::string name;
  Unit unit = Unit::fp32;
  double flop = 0;   // a multiplication and its addition count two
  double bytes = 0;  // read and written
};

struct Pass {
  int64_t batch = 1;
  int64_t length = 1;     // bases computed of each sequence
  int64_t calls = 1;      // that they are cut into: each reads all weights
  int64_t element = 2;    // bytes of weights and activations: bf16 2, fp32 4
  int64_t predicted = 0;  // bases of each sequence for which logits are made
  double pairs = 0;       // of a query and a key that it sees, in one sequence, head and attention layer
  double key_bytes = 0;   // keys and values read by one attention layer, of all sequences
};

/// Multiplications with weights that one base takes, logits included; a multiplication and its addition count
/// two.
double dense_flop(const ModelConfig& config);

/// Forward, in the order of a block.
std::vector<Operation> forward_work(const ModelConfig& config, const Pass& pass);
/// What training an adapter adds to the forward pass: the weights are frozen and get no gradient, and blocks
/// before the first attention block have nothing to train below them. `recompute` runs the other blocks
/// forward once more.
std::vector<Operation> backward_work(const ModelConfig& config, const Pass& pass, bool recompute);
/// Bytes of activations that wait for the backward pass, for each base of a batch.
double saved_bytes(const ModelConfig& config, int64_t element, bool recompute);

}  // namespace focus::model
