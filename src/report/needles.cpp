#include "needles.h"

#include <cmath>
#include <vector>

namespace focus::report {

NeedleStatistics needle_statistics(const FidelityResult& result, const MethodResult& method,
                                   std::optional<std::size_t> depth) {
  const std::size_t questions = result.needle_depths.size();
  std::vector<metrics::Total> exact(result.segments.size()), bases(result.segments.size());
  for (std::size_t i = 0; i < method.right_bases.size(); ++i) {
    const auto right = static_cast<double>(method.right_bases[i]);
    if (std::isnan(right) || (depth && i % questions != *depth)) continue;
    const auto size = static_cast<double>(result.needle_bases);
    exact[i / questions].add(right == size ? 1.0 : 0.0);
    bases[i / questions].add(right / size);
  }
  metrics::Total all_exact, all_bases;
  for (std::size_t s = 0; s < exact.size(); ++s) {
    all_exact.add(exact[s]);
    all_bases.add(bases[s]);
  }
  const metrics::BootstrapOptions bootstrap{.draws = result.bootstrap_draws, .seed = result.bootstrap_seed};
  return {all_exact.count, all_exact.mean(), all_bases.mean(), metrics::bootstrap_mean(exact, bootstrap),
          metrics::bootstrap_mean(bases, bootstrap)};
}

bool looks_at_question(const MethodResult& method) { return method.far_bytes > 0; }

}  // namespace focus::report
