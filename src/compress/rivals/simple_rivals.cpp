#include "simple_rivals.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "focus/core/error.h"
#include "focus/core/random.h"
#include "span_entries.h"

namespace focus::compress {
namespace {

using at::Tensor;

constexpr uint64_t kRandomSeed = 20251118;

}  // namespace

std::string SlidingPolicy::describe() const {
  return sinks_ > 0 ? concat("raw keys and values of the first ", sinks_, " bases and of the newest")
                    : "raw keys and values of the newest bases";
}

void SlidingPolicy::close(const ClosedSpan& span, EntryStore& retained) const {
  retained.append(raw_entries(span, 0, span.num_bases()));
  const int64_t allowed = std::min(held_by(span, budget_, retained, /*with_beta=*/false), retained.size());
  const int64_t sinks = std::min(sinks_, allowed);
  if (sinks == 0) {
    retained.keep(retained.size() - allowed, retained.size());
    return;
  }
  std::vector<int64_t> kept(static_cast<std::size_t>(allowed));
  std::iota(kept.begin(), kept.begin() + sinks, int64_t{0});
  std::iota(kept.begin() + sinks, kept.end(), retained.size() - (allowed - sinks));
  retained.select(kept);
}

void StridedPolicy::close(const ClosedSpan& span, EntryStore& retained) const {
  const int64_t count = std::min(room_for(span, budget_, retained, /*with_beta=*/false), span.num_bases());
  if (count == 0) return;
  std::vector<int64_t> bases;
  for (int64_t i = 1; i <= count; ++i) bases.push_back(i * span.num_bases() / count - 1);
  retained.append(raw_entries(span, bases));
}

std::string RandomPolicy::describe() const { return concat("raw keys and values of random bases of each window, seed ", kRandomSeed); }

void RandomPolicy::close(const ClosedSpan& span, EntryStore& retained) const {
  const int64_t count = std::min(room_for(span, budget_, retained, /*with_beta=*/false), span.num_bases());
  if (count == 0) return;
  std::vector<int64_t> bases(static_cast<std::size_t>(span.num_bases()));
  std::iota(bases.begin(), bases.end(), int64_t{0});
  // A stream of the generator for each window: the choice does not depend on what was closed before.
  Random(kRandomSeed, static_cast<uint64_t>(span.window)).shuffle(bases);
  bases.resize(static_cast<std::size_t>(count));
  std::sort(bases.begin(), bases.end());
  retained.append(raw_entries(span, bases));
}

void MeanPoolPolicy::close(const ClosedSpan& span, EntryStore& retained) const {
  if (span.kmers.empty()) return;
  const auto wide = span.k.options().dtype(span.k.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  const Tensor& mean = span.kmers.mean_matrix(span.num_bases(), wide);
  Entries out;
  out.k = at::matmul(mean, span.k.to(wide)).to(span.k.scalar_type());
  out.v = at::matmul(mean, span.v.to(wide)).to(span.v.scalar_type());
  std::vector<float> log_size;
  for (std::size_t j = 0; j < span.kmers.size(); ++j) {
    log_size.push_back(std::log(static_cast<float>(span.kmers[j].size())));
    out.origin.push_back({span.window, span.first_kmer + static_cast<int64_t>(j)});
  }
  if (with_beta_) out.beta = at::tensor(log_size).to(span.k.device()).expand({span.k.size(0), span.k.size(1), -1}).contiguous();
  retained.append(out);
}

}  // namespace focus::compress
