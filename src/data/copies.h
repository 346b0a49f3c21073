// Planting far copies in a sequence.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "focus/core/random.h"
#include "focus/data/sampler.h"

namespace focus::data {

/// Writes the number of copies that `config` asks for over `sequence`; copies never overlap one another, nor the source of an earlier
/// copy, so copy_source[t] always shows the letters that were copied. `offset` and `source` get the sequence's length, -1 outside copies.
/// A copy that finds no place in 20 draws is left out.
void plant_copies(const CopyConfig& config, Random& random, std::string& sequence, std::vector<int32_t>& offset,
                  std::vector<int32_t>& source);

}  // namespace focus::data
