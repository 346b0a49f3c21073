// Initial weights for training from scratch.
#pragma once

#include <cstdint>

#include "focus/config/fields.h"
#include "focus/model/striped_hyena.h"

namespace focus::model {

struct InitConfig {
  double embedding_std = 0.3;
  double final_norm_scale = 0.15;  // with a tied unembedding it sets the size of the first logits
  double output_gain = 0.7;        // output projections of Hyena blocks; the MLP's is 0.3 times that
  double attention_gain = 0.7;     // the same of attention blocks
  bool delay_pair = true;
  double delay_pair_gain = 2.0;
  double delay_pair_output = 2.8;
  double nucleotide_gap = 8.0;
  int64_t seed = 0;
  void visit(config::Fields& f);
};

/// Fills every parameter, deterministically from the seed. With delay_pair the last short or medium Hyena
/// block before each attention block (a long one, whose filters see too far to tell a context, where there is
/// no other) starts with the upper half of its channels a copy of the lower half delayed by one base, and
/// attention starts as a similarity search: queries read the lower half, keys the upper half, through the
/// same matrix. A hit then points at the base that followed the matching context, which is what copying
/// needs; training finds it more than ten times sooner.
void initialise(StripedHyena& model, const InitConfig& config);

}  // namespace focus::model
