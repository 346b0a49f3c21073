#include "kmer_entries.h"

#include <algorithm>

namespace focus::compress {

using at::Tensor;

Tensor anchor_positions(const ClosedSpan& span, Anchor anchor) {
  const Kmers::Table& table = span.kmers.table(span.positions.device());
  const auto at_bases = [&](const Tensor& bases) {
    return span.positions.index_select(0, bases).to(at::kDouble);
  };
  if (anchor == Anchor::end) return at_bases(table.lasts);
  if (anchor == Anchor::start) return at_bases(table.firsts);
  return (at_bases(table.firsts) + at_bases(table.lasts)) / 2;
}

std::vector<EntryOrigin> kmer_origins(const ClosedSpan& span, int64_t entries_per_kmer) {
  std::vector<EntryOrigin> out;
  for (std::size_t j = 0; j < span.kmers.size(); ++j) {
    const auto count = static_cast<std::size_t>(std::min(entries_per_kmer, span.kmers[j].size()));
    out.insert(out.end(), count, {span.window, span.first_kmer + static_cast<int64_t>(j)});
  }
  return out;
}

}  // namespace focus::compress
