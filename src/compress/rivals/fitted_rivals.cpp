#include "fitted_rivals.h"

#include <algorithm>
#include <limits>

#include "focus/core/error.h"
#include "key_selection.h"
#include "log_mass_fit.h"
#include "span_entries.h"

namespace focus::compress {
namespace {

using at::Tensor;

/// `count` groups of whole k-mers, as even as they can be; together they cover the span, bases without a k-mer included.
std::vector<Span> groups_of_kmers(const ClosedSpan& span, int64_t count) {
  const auto kmers = static_cast<int64_t>(span.kmers.size());
  std::vector<Span> out;
  int64_t begin = 0;
  for (int64_t i = 1; i <= count; ++i) {
    const int64_t end = i == count ? span.num_bases() : span.kmers[static_cast<std::size_t>(i * kmers / count - 1)].end;
    out.push_back({begin, end});
    begin = end;
  }
  return out;
}

}  // namespace

std::string HeavyFittedPolicy::describe() const {
  return concat("the bases with most attention exactly, and one fitted entry for the rest of every ", kKmersPerEntry, " k-mers, per head");
}

void HeavyFittedPolicy::close(const ClosedSpan& span, EntryStore& retained) const {
  const int64_t bases = span.num_bases(), room = room_for(span, budget_, retained, /*with_beta=*/true);
  if (room >= bases) {
    retained.append(raw_entries(span, 0, bases));
    return;
  }
  if (room == 0) return;
  const auto kmers = static_cast<int64_t>(span.kmers.size());
  const int64_t fitted = std::min({(kmers + kKmersPerEntry - 1) / kKmersPerEntry, kmers, room}), exact = room - fitted;
  const Tensor references = future_queries(span);
  FitItems items{span.k, span.v, {}};
  Entries out;
  if (exact > 0) {
    const Tensor heavy = top_bases(at::softmax(scores_of(references, span.k), -1).sum(2), exact);
    out = raw_entries_per_head(span, heavy);
    out.beta = at::zeros({span.k.size(0), span.k.size(1), exact}, span.k.options().dtype(at::kFloat));
    items.log_mass = at::zeros({span.k.size(0), span.k.size(1), bases}, references.options())
                         .scatter(2, heavy, -std::numeric_limits<double>::infinity());
  }
  Entries rest = fit_log_mass(references, items, groups_of_kmers(span, fitted), FittedKey::free);
  rest.origin = window_origins(span, fitted);
  out.append(rest);
  retained.append(out);
}

void WindowMassPolicy::close(const ClosedSpan& span, EntryStore& retained) const {
  if (room_for(span, budget_, retained, /*with_beta=*/true) == 0) return;
  Entries out = fit_log_mass(future_queries(span), {span.k, span.v, {}}, {{0, span.num_bases()}}, FittedKey::zero);
  out.origin = window_origins(span, 1);
  retained.append(out);
}

}  // namespace focus::compress
