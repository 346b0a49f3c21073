#include "word_rows.h"

#include <algorithm>

namespace focus::compress {

using at::Tensor;

int64_t rows_of(const TablesConfig& config) { return int64_t{1} << (2 * config.word); }
int64_t words_of(const TablesConfig& config) { return static_cast<int64_t>(config.offsets.size()); }
int64_t reach_of(const TablesConfig& config) {
  return *std::max_element(config.offsets.begin(), config.offsets.end()) + config.word;
}

Tensor word_rows(const Tensor& codes_BN, int64_t n, const TablesConfig& config) {
  const int64_t reach = reach_of(config), missing = n + reach - 1 - codes_BN.size(1);
  Tensor codes = codes_BN.to(at::kLong);
  if (missing > 0) codes = at::constant_pad_nd(codes, {missing, 0}, kUnknownBase);
  codes = codes.narrow(1, codes.size(1) - (n + reach - 1), n + reach - 1);
  std::vector<Tensor> rows;
  for (const int64_t offset : config.offsets) {
    Tensor row = at::zeros({codes.size(0), n}, codes.options()),
           unknown = at::zeros({codes.size(0), n}, codes.options().dtype(at::kBool));
    for (int64_t letter = 0; letter < config.word; ++letter) {
      const Tensor at_letter = codes.narrow(1, reach - 1 - offset - letter, n);
      row = row + at_letter.clamp_max(3) * (int64_t{1} << (2 * letter));
      unknown = unknown.logical_or(at_letter.eq(kUnknownBase));
    }
    rows.push_back(row.masked_fill(unknown, rows_of(config)));
  }
  return at::stack(rows);
}

}  // namespace focus::compress
