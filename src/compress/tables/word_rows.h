// The words that base tables are indexed by. Legend: B batch, N letters, n bases, w words.
#pragma once

#include "focus/compress/tables/base_tables.h"

namespace focus::compress {

/// Words of known letters; a table has one row more, for words with an unknown one.
int64_t rows_of(const TablesConfig& config);
int64_t words_of(const TablesConfig& config);
/// Letters that a prediction looks back, the base's own among them.
int64_t reach_of(const TablesConfig& config);

/// [w, B, n] rows of the words that end `offsets` before each of the last n letters; rows_of() where a letter
/// is unknown or before the first.
at::Tensor word_rows(const at::Tensor& codes_BN, int64_t n, const TablesConfig& config);

}  // namespace focus::compress
