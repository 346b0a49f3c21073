#include "digest.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <set>
#include <span>

#include "focus/core/error.h"
#include "focus/report/fidelity_report.h"

namespace focus::report {
namespace {

constexpr int64_t kPositionBins = 160;
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

void check_result(const FidelityResult& result) {
  FOCUS_CHECK(result.positions >= 1 && result.window >= 1, "fidelity result with ", result.positions,
              " positions and window ", result.window);
  FOCUS_CHECK(!result.segments.empty() && !result.methods.empty(), "fidelity result with ",
              result.segments.size(), " segments and ", result.methods.size(), " methods");
  const std::size_t expected = result.segments.size() * static_cast<std::size_t>(result.positions);
  std::set<std::string> names;
  for (const MethodResult& method : result.methods) {
    FOCUS_CHECK(names.insert(method.name).second && !method.name.empty(), "method name '", method.name,
                "' is empty or occurs twice");
    for (int m = 0; m < kNumMeasures; ++m) {
      const std::size_t size = method.values[static_cast<std::size_t>(m)].size();
      FOCUS_CHECK(size == 0 || size == expected, "method '", method.name, "', ",
                  kMeasureNames[static_cast<std::size_t>(m)], ": ", size, " values, expected ", expected);
    }
  }
}

// The values of a column, [segment * positions + position]; empty when the method does not have it.
std::vector<float> column_values(const MethodResult& method, const MethodResult* full, int c) {
  if (c < kNumMeasures) return method.values[static_cast<std::size_t>(c)];
  const std::vector<float>& own = method.values[static_cast<std::size_t>(column(Measure::cross_entropy))];
  if (full == nullptr || full->values[static_cast<std::size_t>(column(Measure::cross_entropy))].empty())
    return {};
  const std::vector<float>& base = full->values[static_cast<std::size_t>(column(Measure::cross_entropy))];
  std::vector<float> difference(own.size());
  for (std::size_t i = 0; i < own.size(); ++i) difference[i] = own[i] - base[i];
  return difference;
}

// Every method's statistics in the classes of every grouping, at the positions behind `first`.
void add_classes(const FidelityResult& result, int64_t first, const metrics::BootstrapOptions& bootstrap,
                 ReportDigest& digest) {
  const std::size_t num_segments = result.segments.size();
  const MethodResult* const full =
      digest.full >= 0 ? &result.methods[static_cast<std::size_t>(digest.full)] : nullptr;
  const auto positions = static_cast<std::size_t>(result.positions);
  for (int g = 0; g < kNumGroupings; ++g) {
    const auto at = static_cast<std::size_t>(g);
    const bool known =
        std::all_of(result.segments.begin(), result.segments.end(),
                    [&](const Segment& segment) { return segment.classes[at].size() == positions; });
    if (!known) continue;
    const std::size_t num_classes = class_names(static_cast<Grouping>(g)).size();
    using Totals = std::vector<std::vector<metrics::Total>>;  // [class][segment]
    const auto totals_of = [&](const std::vector<float>& values) {
      Totals totals(num_classes, std::vector<metrics::Total>(num_segments));
      for (std::size_t s = 0; !values.empty() && s < num_segments; ++s) {
        for (auto p = static_cast<std::size_t>(first); p < positions; ++p) {
          const float value = values[s * positions + p];
          if (!std::isnan(value)) totals[result.segments[s].classes[at][p]][s].add(value);
        }
      }
      return totals;
    };
    Totals state_only;
    if (digest.state_only >= 0)
      state_only = totals_of(column_values(result.methods[static_cast<std::size_t>(digest.state_only)], full,
                                           kDeltaCrossEntropy));
    const auto pooled = [](const std::vector<metrics::Total>& segments) {
      metrics::Total all;
      for (const metrics::Total& segment : segments) all.add(segment);
      return all;
    };
    for (MethodDigest& entry : digest.methods) {
      const Totals kl = totals_of(entry.method->values[static_cast<std::size_t>(column(Measure::kl))]);
      const Totals entropy =
          totals_of(entry.method->values[static_cast<std::size_t>(column(Measure::cross_entropy))]);
      const Totals delta = totals_of(column_values(*entry.method, full, kDeltaCrossEntropy));
      for (std::size_t c = 0; c < num_classes; ++c) {
        ClassStatistics& statistics = entry.by_class[at].emplace_back();
        statistics.count = std::max(pooled(kl[c]).count, pooled(entropy[c]).count);
        statistics.kl = pooled(kl[c]).mean();
        statistics.kl_interval = metrics::bootstrap_mean(kl[c], bootstrap);
        statistics.cross_entropy = pooled(entropy[c]).mean();
        statistics.delta_cross_entropy = pooled(delta[c]).mean();
        statistics.recall = {kNan, {kNan, kNan}};
        if (state_only.empty()) continue;
        const metrics::Total lost = pooled(state_only[c]);
        if (lost.count >= kFewestCopied && lost.mean() >= kLeastLoss)
          statistics.recall = metrics::recovered_share(delta[c], state_only[c], bootstrap);
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
  const int64_t positions = result.positions, window = result.window;
  const std::size_t num_segments = result.segments.size();
  ReportDigest digest;
  digest.result = &result;
  digest.crosses_boundary = positions > window;
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
  // Positions and segments of a scope; the two repeat scopes look behind the first boundary, where there is
  // one.
  const auto first_position = [&](Scope scope) {
    return scope != Scope::all && digest.crosses_boundary ? window : int64_t{0};
  };
  const auto in_scope = [&](Scope scope, std::size_t segment) {
    return scope == Scope::repeat_rich ? bool(rich[segment])
           : scope == Scope::ordinary  ? !rich[segment]
                                       : true;
  };
  const auto scope_totals = [&](std::span<const float> values, Scope scope) {
    std::vector<metrics::Total> totals(num_segments);
    if (!values.empty()) totals = metrics::segment_totals(values, positions, first_position(scope));
    for (std::size_t s = 0; s < num_segments; ++s) {
      if (!in_scope(scope, s)) totals[s] = {};
    }
    return totals;
  };
  for (const Segment& segment : result.segments)
    digest.copied_positions += std::count(segment.copied.begin(), segment.copied.end(), true);
  // What a method loses against full memory where only what lies behind the window can tell the next base.
  const auto copied_totals = [&](const MethodResult& method) {
    std::vector<metrics::Total> totals(num_segments);
    const MethodResult* const full =
        digest.full < 0 ? nullptr : &result.methods[static_cast<std::size_t>(digest.full)];
    const std::vector<float> values = column_values(method, full, kDeltaCrossEntropy);
    for (std::size_t s = 0; !values.empty() && s < num_segments; ++s) {
      const std::vector<bool>& copied = result.segments[s].copied;
      for (std::size_t p = 0; p < copied.size(); ++p) {
        const float value = values[s * static_cast<std::size_t>(positions) + p];
        if (copied[p] && !std::isnan(value)) totals[s].add(value);
      }
    }
    return totals;
  };
  const metrics::BootstrapOptions bootstrap{.draws = result.bootstrap_draws, .seed = result.bootstrap_seed};
  const MethodResult* const full =
      digest.full >= 0 ? &result.methods[static_cast<std::size_t>(digest.full)] : nullptr;
  const std::size_t kl = static_cast<std::size_t>(column(Measure::kl));
  for (const MethodResult& method : result.methods) {
    MethodDigest& entry = digest.methods.emplace_back();
    entry.method = &method;
    for (int c = 0; c < kNumColumns; ++c) {
      const auto at = static_cast<std::size_t>(c);
      const std::vector<float> values = column_values(method, full, c);
      for (const Scope scope : digest.scopes) {
        std::vector<float> inside;
        if (!values.empty()) {
          for (std::size_t s = 0; s < num_segments; ++s) {
            const auto begin = values.begin() + static_cast<std::ptrdiff_t>(s) * positions;
            if (in_scope(scope, s))
              inside.insert(inside.end(), begin + first_position(scope), begin + positions);
          }
        }
        ColumnStatistics& statistics = entry.scopes[static_cast<std::size_t>(scope)].columns[at];
        statistics.summary = metrics::summarise(inside);
        statistics.interval = metrics::bootstrap_mean(scope_totals(values, scope), bootstrap);
        if (c < kNumDistances && scope == digest.main_scope) entry.distributions[at].add(inside);
      }
      if (values.empty()) continue;
      entry.by_position[at] = metrics::bin_by_position(values, positions, window, kPositionBins);
      entry.by_offset[at] = metrics::bin_by_offset(values, positions, window);
    }
    for (const Scope scope : digest.scopes) {
      metrics::Recovered& recovered = entry.scopes[static_cast<std::size_t>(scope)].recovered;
      recovered = {kNan, {kNan, kNan}};
      if (digest.state_only < 0 || !digest.crosses_boundary || scope == Scope::all ||
          method.values[kl].empty())
        continue;
      recovered = metrics::recovered_share(
          scope_totals(method.values[kl], scope),
          scope_totals(result.methods[static_cast<std::size_t>(digest.state_only)].values[kl], scope),
          bootstrap);
    }
    entry.recall = {kNan, {kNan, kNan}};
    if (digest.full >= 0 && digest.state_only >= 0 && digest.copied_positions > 0)
      entry.recall = metrics::recovered_share(
          copied_totals(method), copied_totals(result.methods[static_cast<std::size_t>(digest.state_only)]),
          bootstrap);
    const std::vector<metrics::Total> own = scope_totals(method.values[kl], digest.main_scope);
    for (const metrics::Total& total : own) entry.segment_kl.push_back(total.mean());
    entry.kl_above_subject = kNan;
    entry.kl_above_subject_interval = {kNan, kNan};
    if (digest.subject >= 0) {
      std::vector<metrics::Total> above = scope_totals(
          result.methods[static_cast<std::size_t>(digest.subject)].values[kl], digest.main_scope);
      metrics::Total all;
      for (std::size_t s = 0; s < num_segments; ++s) {
        above[s].sum = own[s].sum - above[s].sum;
        if (own[s].count != above[s].count) above[s] = {};  // not the same positions
        all.add(above[s]);
      }
      entry.kl_above_subject = all.mean();
      entry.kl_above_subject_interval = metrics::bootstrap_mean(above, bootstrap);
    }
    const auto ce = static_cast<std::size_t>(column(Measure::cross_entropy));
    for (const metrics::Total& total : scope_totals(method.values[ce], digest.main_scope))
      entry.segment_cross_entropy.push_back(total.mean());
  }
  add_classes(result, first_position(digest.main_scope), bootstrap, digest);
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
