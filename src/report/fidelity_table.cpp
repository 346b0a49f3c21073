#include "focus/report/fidelity_table.h"

#include <algorithm>
#include <cmath>

#include "digest.h"
#include "focus/core/error.h"
#include "focus/core/units.h"
#include "needles.h"
#include "text.h"

namespace focus::report {
std::string fidelity_table(const FidelityResult& result) {
  const ReportDigest digest = digest_result(result);
  std::vector<std::vector<std::string>> rows{{"method", "entries", "kept", "KL mean", "95% interval",
                                              "KL median", "L1", "L2", "Hellinger", "JS", "CE", "dCE",
                                              "top-1", "R", "recall"}};
  const bool asked = !result.questions.empty();
  if (asked) rows[0].insert(rows[0].end(), {"exact", "bases"});
  for (std::size_t m = 0; m < digest.methods.size(); ++m) {
    const ScopeStatistics& statistics = digest.main(m);
    const auto of = [&](Measure measure) -> const ColumnStatistics& {
      return statistics.columns[static_cast<std::size_t>(column(measure))];
    };
    const auto mean = [&](Measure measure) { return rounded(of(measure).summary.mean); };
    const ColumnStatistics& kl = of(Measure::kl);
    const bool interval = !std::isnan(kl.interval.low);
    const bool is_full = static_cast<int>(m) == digest.full;
    const MethodResult& method = *digest.methods[m].method;
    rows.push_back(
        {method.name, format_count(method.kept_entries), format_bytes(method.kept_bytes), mean(Measure::kl),
         interval ? concat(rounded(kl.interval.low), " .. ", rounded(kl.interval.high)) : "\u2013",
         rounded(kl.summary.median), mean(Measure::l1), mean(Measure::l2), mean(Measure::hellinger),
         mean(Measure::js), mean(Measure::cross_entropy),
         is_full ? "\u2013" : rounded_difference(statistics.columns[kDeltaCrossEntropy].summary.mean),
         percent(of(Measure::top1_agreement).summary.mean),
         is_full ? "\u2013" : percent(statistics.recovered.share),
         is_full ? "\u2013" : percent(digest.methods[m].recall.share)});
    if (!asked) continue;
    const NeedleStatistics needles = needle_statistics(result, method);
    rows.back().push_back(percent(needles.exact_match));
    rows.back().push_back(percent(needles.base_accuracy));
  }
  std::vector<std::size_t> widths(rows[0].size(), 0);
  for (const auto& row : rows) {
    for (std::size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], width_of(row[c]));
  }
  std::string text;
  if (digest.random_weights) text = concat(kRandomWeights, ".\n");
  if (digest.crosses_boundary) {
    text += concat(result.segments.size(), " segment(s) of ", format_count(result.length), " bases, window ",
                   format_count(result.window), ", k ", format_count(result.kmer),
                   "; means over the positions behind the first boundary\n");
  } else {
    text += concat(
        "NO BOUNDARY WAS CROSSED: segments of ", format_count(result.length),
        " bases fit into one window of ", format_count(result.window),
        ", so nothing was compressed and these numbers say nothing about compression. Use longer segments.\n",
        result.segments.size(), " segment(s); means over all positions\n");
  }
  for (const auto& row : rows) {
    for (std::size_t c = 0; c < row.size(); ++c) {
      const std::string padding(widths[c] - width_of(row[c]), ' ');
      text += c == 0 ? row[c] + padding : "  " + padding + row[c];
    }
    text += '\n';
  }
  return text;
}

}  // namespace focus::report
