#include "simple_rivals.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "focus/core/random.h"
#include "kmer_entries.h"
#include "span_entries.h"

namespace focus::compress {

using at::Tensor;

void keep_all(const ClosedSpan& span, const Budget&, EntryStore& retained) {
  retained.append(raw_entries(span));
}

void keep_all_codes(const ClosedSpan& span, const Budget&, EntryStore& retained) {
  Entries all = raw_entries(span);
  all.detach();
  retained.append(all);
}

void keep_none(const ClosedSpan&, const Budget&, EntryStore& retained) { retained.clear(); }

void keep_newest_codes(const ClosedSpan& span, const Budget& budget, EntryStore& retained) {
  retained.append(raw_entries(span));
  const int64_t allowed = budget.bytes_after(span.window) * span.k.size(0);
  int64_t fits = retained.size(), too_many = -1;  // first entry of a tail that fits, and of one that does not
  while (fits - too_many > 1) {
    const int64_t middle = (fits + too_many) / 2;
    (retained.bytes_from(middle) <= allowed ? fits : too_many) = middle;
  }
  retained.keep(fits, retained.size());
}

ClosePolicy sliding(int64_t sinks) {
  return [sinks](const ClosedSpan& span, const Budget& budget, EntryStore& retained) {
    retained.append(raw_entries(span));
    const int64_t allowed = std::min(held_by(span, budget, retained, /*with_beta=*/false), retained.size());
    const int64_t first = std::min(sinks, allowed);
    std::vector<int64_t> kept(static_cast<std::size_t>(allowed));
    std::iota(kept.begin(), kept.begin() + first, int64_t{0});
    std::iota(kept.begin() + first, kept.end(), retained.size() - (allowed - first));
    retained.select(kept);
  };
}

ClosePolicy mean_pool(bool with_beta) {
  return [with_beta](const ClosedSpan& span, const Budget&, EntryStore& retained) {
    if (span.kmers.empty()) return;
    const auto wide = compute_options(span.k);
    const Tensor& mean = span.kmers.mean_matrix(span.num_bases(), wide);
    Entries out;
    out.k = at::matmul(mean, span.k.to(wide)).to(span.k.scalar_type());
    out.v = at::matmul(mean, span.v.to(wide)).to(span.v.scalar_type());
    out.origin = kmer_origins(span, 1);
    if (with_beta) {
      const auto log_sizes = [&] {
        std::vector<float> sizes;
        for (const Span& kmer : span.kmers) sizes.push_back(std::log(static_cast<float>(kmer.size())));
        return at::tensor(sizes);
      };
      const Tensor& beta = span.kmers.list({}, span.k.device(), log_sizes);
      out.beta = beta.expand({span.k.size(0), span.k.size(1), -1}).contiguous();
    }
    retained.append(out);
  };
}

Entries strided(const ClosedSpan& span, int64_t room) {
  std::vector<int64_t> bases;
  for (int64_t i = 1; i <= room; ++i) bases.push_back(i * span.num_bases() / room - 1);
  return raw_entries(span, bases);
}

Entries random_bases(const ClosedSpan& span, int64_t room) {
  std::vector<int64_t> bases(static_cast<std::size_t>(span.num_bases()));
  std::iota(bases.begin(), bases.end(), int64_t{0});
  // A stream of the generator for each window: the choice does not depend on what was closed before.
  Random(kRandomSeed, static_cast<uint64_t>(span.window)).shuffle(bases);
  bases.resize(static_cast<std::size_t>(room));
  std::sort(bases.begin(), bases.end());
  return raw_entries(span, bases);
}

}  // namespace focus::compress
