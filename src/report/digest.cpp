#include "digest.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <set>

#include "focus/core/error.h"
#include "focus/report/fidelity_report.h"

namespace focus::report {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

void check_result(const FidelityResult& result) {
  FOCUS_CHECK(result.positions >= 1 && result.window >= 1, "fidelity result with ", result.positions,
              " positions and window ", result.window);
  FOCUS_CHECK(!result.segments.empty() && !result.methods.empty(), "fidelity result with ",
              result.segments.size(), " segments and ", result.methods.size(), " methods");
  std::set<std::string> names;
  for (const MethodResult& method : result.methods) {
    FOCUS_CHECK(names.insert(method.name).second && !method.name.empty(), "method name '", method.name,
                "' is empty or occurs twice");
    FOCUS_CHECK(method.segments.size() == result.segments.size(), "method '", method.name,
                "': ", method.segments.size(), " segments, expected ", result.segments.size());
  }
}

using Totals = std::vector<metrics::Total>;  // [segment]

metrics::Total pooled(const Totals& segments) {
  metrics::Total all;
  for (const metrics::Total& segment : segments) all.add(segment);
  return all;
}

// Every method's statistics in the classes of every grouping, at the positions behind the first boundary.
void add_classes(const FidelityResult& result, const metrics::BootstrapOptions& bootstrap,
                 ReportDigest& digest) {
  for (std::size_t g = 0; g < kNumGroupings; ++g) {
    std::size_t num_classes = 0;
    for (const MethodResult& method : result.methods) {
      for (const SegmentTotals& segment : method.segments)
        num_classes = std::max(num_classes, segment.classes[g].size());
    }
    using Of = metrics::Total SegmentTotals::Class::*;
    const auto totals_of = [&](const MethodResult& method, std::size_t c, Of of) {
      Totals totals;
      for (const SegmentTotals& segment : method.segments)
        totals.push_back(c < segment.classes[g].size() ? segment.classes[g][c].*of : metrics::Total{});
      return totals;
    };
    for (std::size_t c = 0; c < num_classes; ++c) {
      Totals state_only;
      if (digest.state_only >= 0)
        state_only = totals_of(result.methods[static_cast<std::size_t>(digest.state_only)], c,
                               &SegmentTotals::Class::delta_cross_entropy);
      const metrics::Total lost = pooled(state_only);
      for (MethodDigest& entry : digest.methods) {
        const Totals kl = totals_of(*entry.method, c, &SegmentTotals::Class::kl),
                     delta = totals_of(*entry.method, c, &SegmentTotals::Class::delta_cross_entropy);
        const metrics::Total entropy =
            pooled(totals_of(*entry.method, c, &SegmentTotals::Class::cross_entropy));
        ClassStatistics& statistics = entry.by_class[g].emplace_back();
        statistics.count = std::max(pooled(kl).count, entropy.count);
        statistics.kl = pooled(kl).mean();
        statistics.kl_interval = metrics::bootstrap_mean(kl, bootstrap);
        statistics.cross_entropy = entropy.mean();
        statistics.delta_cross_entropy = pooled(delta).mean();
        statistics.recall = {kNan, {kNan, kNan}};
        if (lost.count >= kFewestCopied && lost.mean() >= kLeastLoss)
          statistics.recall = metrics::recovered_share(delta, state_only, bootstrap);
      }
    }
  }
}

double effective_length(const std::vector<ClassStatistics>& by_distance, int64_t window) {
  double length = kNan;
  for (int c = 1; c < static_cast<int>(by_distance.size()); ++c) {
    const double recall = by_distance[static_cast<std::size_t>(c)].recall.share;
    if (distance_from(c) < window || std::isnan(recall)) continue;
    if (std::isnan(length)) length = 0;
    if (recall < kEffectiveRecall) return length;
    length = static_cast<double>(distance_from(c + 1) - 1);
  }
  return length;
}

}  // namespace

const std::vector<std::string>& class_names(Grouping grouping) {
  static const auto all = [] {
    std::array<std::vector<std::string>, kNumGroupings> names;
    names[static_cast<std::size_t>(Grouping::repeat)] = {"upper case", "lower case"};
    names[static_cast<std::size_t>(Grouping::gc)] = {"below 35 %", "35 to 45 %", "45 to 55 %",
                                                     "55 % and more"};
    auto& distances = names[static_cast<std::size_t>(Grouping::last_copy)];
    distances = {"nowhere", "1-63"};
    constexpr int kFarthest = 40;  // powers of two
    for (int power = 6; power < kFarthest; ++power)
      distances.push_back(concat(int64_t{1} << power, "-", (int64_t{2} << power) - 1));
    return names;
  }();
  return all[static_cast<std::size_t>(grouping)];
}

int distance_class(int64_t distance) {
  if (distance <= 0) return 0;
  constexpr int kFirst = 7;  // bits of 64, the first whole power
  return std::max(1, static_cast<int>(std::bit_width(static_cast<uint64_t>(distance))) - kFirst + 2);
}

int64_t distance_from(int distance_class) {
  return distance_class <= 1 ? distance_class : int64_t{1} << (distance_class + 4);
}

bool is_random(double cross_entropy) {
  // A trained model stays below 1 even where it knows nothing; one whose weights are random spreads its
  // probability over the whole vocabulary, and 512 tokens give 4.5.
  constexpr double kFarWorse = 1.5;
  return cross_entropy > kFarWorse * std::log(4.0);
}

ReportDigest digest_result(const FidelityResult& result) {
  check_result(result);
  const int64_t window = result.window;
  const std::size_t num_segments = result.segments.size();
  ReportDigest digest;
  digest.result = &result;
  digest.crosses_boundary = result.positions > window;
  digest.main_scope = digest.crosses_boundary ? Scope::after_boundary : Scope::all;
  std::vector<bool> rich(num_segments);
  for (std::size_t s = 0; s < num_segments; ++s) {
    rich[s] = result.segments[s].repeat >= kRepeatRich;
    digest.repeat_rich_segments += rich[s] ? 1 : 0;
  }
  digest.scopes = {Scope::all};
  if (digest.crosses_boundary) digest.scopes.push_back(Scope::after_boundary);
  if (digest.repeat_rich_segments > 0 && digest.repeat_rich_segments < static_cast<int64_t>(num_segments)) {
    digest.scopes.push_back(Scope::repeat_rich);
    digest.scopes.push_back(Scope::ordinary);
  }
  for (std::size_t m = 0; m < result.methods.size(); ++m) {
    const std::string& name = result.methods[m].name;
    if (name == "full") digest.full = static_cast<int>(m);
    if (name == "state_only") digest.state_only = static_cast<int>(m);
    if (name == "noise_floor") digest.noise_floor = static_cast<int>(m);
    if (name == result.subject) digest.subject = static_cast<int>(m);
  }
  // The two repeat scopes look behind the first boundary, where there is one.
  const auto in_scope = [&](Scope scope, std::size_t segment) {
    return scope == Scope::repeat_rich ? bool(rich[segment])
           : scope == Scope::ordinary  ? !rich[segment]
                                       : true;
  };
  const auto scope_totals = [&](const MethodResult& method, int c, Scope scope) {
    Totals totals(num_segments);
    for (std::size_t s = 0; s < num_segments; ++s) {
      if (!in_scope(scope, s)) continue;
      const SegmentTotals::Column& sums = method.segments[s].columns[static_cast<std::size_t>(c)];
      if (scope == Scope::all) totals[s].add(sums.before);
      totals[s].add(sums.behind);
    }
    return totals;
  };
  const auto scope_values = [](const ColumnTally& tally, Scope scope) {
    metrics::QuantileSketch values;
    if (scope == Scope::all) values.add(tally.before);
    if (scope != Scope::ordinary) values.add(tally.repeat_rich);
    if (scope != Scope::repeat_rich) values.add(tally.ordinary);
    return values;
  };
  for (const Segment& segment : result.segments) digest.copied_positions += segment.copied;
  // What a method loses against full memory where only what lies behind the window can tell the next base.
  const auto copied_totals = [](const MethodResult& method) {
    Totals totals;
    for (const SegmentTotals& segment : method.segments) totals.push_back(segment.copied);
    return totals;
  };
  const metrics::BootstrapOptions bootstrap{.draws = result.bootstrap_draws, .seed = result.bootstrap_seed};
  constexpr int kl = column(Measure::kl);
  for (const MethodResult& method : result.methods) {
    MethodDigest& entry = digest.methods.emplace_back();
    entry.method = &method;
    for (const Scope scope : digest.scopes) {
      ScopeStatistics& statistics = entry.scopes[static_cast<std::size_t>(scope)];
      for (int c = 0; c < kNumColumns; ++c) {
        const auto at = static_cast<std::size_t>(c);
        const Totals totals = scope_totals(method, c, scope);
        statistics.columns[at] = {metrics::summarise(pooled(totals), scope_values(method.columns[at], scope)),
                                  metrics::bootstrap_mean(totals, bootstrap)};
      }
      statistics.recovered = {kNan, {kNan, kNan}};
      if (digest.state_only < 0 || !digest.crosses_boundary || scope == Scope::all) continue;
      statistics.recovered = metrics::recovered_share(
          scope_totals(method, kl, scope),
          scope_totals(result.methods[static_cast<std::size_t>(digest.state_only)], kl, scope), bootstrap);
    }
    entry.recall = {kNan, {kNan, kNan}};
    if (digest.full >= 0 && digest.state_only >= 0 && digest.copied_positions > 0)
      entry.recall = metrics::recovered_share(
          copied_totals(method), copied_totals(result.methods[static_cast<std::size_t>(digest.state_only)]),
          bootstrap);
    const Totals own = scope_totals(method, kl, digest.main_scope);
    for (const metrics::Total& total : own) entry.segment_kl.push_back(total.mean());
    entry.kl_above_subject = kNan;
    entry.kl_above_subject_interval = {kNan, kNan};
    if (digest.subject >= 0) {
      Totals above =
          scope_totals(result.methods[static_cast<std::size_t>(digest.subject)], kl, digest.main_scope);
      for (std::size_t s = 0; s < num_segments; ++s) {
        above[s].sum = own[s].sum - above[s].sum;
        if (own[s].count != above[s].count) above[s] = {};  // not the same positions
      }
      entry.kl_above_subject = pooled(above).mean();
      entry.kl_above_subject_interval = metrics::bootstrap_mean(above, bootstrap);
    }
    for (const metrics::Total& total :
         scope_totals(method, column(Measure::cross_entropy), digest.main_scope))
      entry.segment_cross_entropy.push_back(total.mean());
  }
  add_classes(result, bootstrap, digest);
  for (MethodDigest& entry : digest.methods)
    entry.effective_length =
        effective_length(entry.by_class[static_cast<std::size_t>(Grouping::last_copy)], window);
  if (digest.full >= 0)
    digest.random_weights = is_random(digest.main(static_cast<std::size_t>(digest.full))
                                          .columns[column(Measure::cross_entropy)]
                                          .summary.mean);
  return digest;
}

}  // namespace focus::report
