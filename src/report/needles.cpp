#include "needles.h"

#include <string>
#include <vector>

namespace focus::report {

NeedleStatistics needle_statistics(const FidelityResult& result, const MethodResult& method,
                                   std::optional<std::size_t> depth) {
  const std::size_t questions = result.needle_depths.size();
  std::vector<metrics::Total> exact(result.segments.size()), bases(result.segments.size());
  for (std::size_t i = 0; i < method.answers.size(); ++i) {
    if (depth && i % questions != *depth) continue;
    const std::string &answer = method.answers[i], &value = result.questions[i].value;
    double right = 0;
    for (std::size_t b = 0; b < value.size(); ++b) right += answer.at(b) == value[b] ? 1 : 0;
    exact[i / questions].add(answer == value ? 1.0 : 0.0);
    bases[i / questions].add(right / static_cast<double>(value.size()));
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
