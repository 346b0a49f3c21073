#include "focus/metrics/summary.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "focus/core/error.h"
#include "focus/core/random.h"

namespace focus::metrics {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// By linear interpolation between neighbours.
double quantile(const std::vector<double>& sorted, double share) {
  if (sorted.empty()) return kNan;
  const double place = share * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(place);
  const double low = sorted[below], high = sorted[std::min(below + 1, sorted.size() - 1)];
  return low + (place - static_cast<double>(below)) * (high - low);
}

// The 97.5 % quantile of Student's t: exact for 1 and 2 degrees of freedom, else the series about the normal
// one (Abramowitz and Stegun 26.7.5), off by 0.12 % at 3 and by less beyond.
double t_quantile(double freedom) {
  if (freedom < 3) return freedom < 2 ? 12.706204736 : 4.302652730;
  constexpr double z = 1.959963984540054, z2 = z * z, z3 = z2 * z, z5 = z3 * z2, z7 = z5 * z2, z9 = z7 * z2;
  return z + (z3 + z) / (4 * freedom) + (5 * z5 + 16 * z3 + 3 * z) / (96 * std::pow(freedom, 2)) +
         (3 * z7 + 19 * z5 + 17 * z3 - 15 * z) / (384 * std::pow(freedom, 3)) +
         (79 * z9 + 776 * z7 + 1482 * z5 - 1920 * z3 - 945 * z) / (92160 * std::pow(freedom, 4));
}

// Resamples of n segments vary less than samples do, by n - 1 to n, and know nothing of the spread's own
// error: quantiles further out make up for both (the expanded percentile interval, Hesterberg 2015). It stays
// within what the segments show, and it is no wider for shares R of few segments, as studentised ones are.
Interval expanded_interval(std::vector<double>& statistics, std::size_t num_segments) {
  const auto n = static_cast<double>(num_segments);
  const double tail = 0.5 * std::erfc(std::sqrt(n / (n - 1) / 2) * t_quantile(n - 1));
  std::sort(statistics.begin(), statistics.end());
  return {quantile(statistics, tail), quantile(statistics, 1 - tail)};
}

// Calls `use` with the drawn segment numbers of each resample.
void resample(std::size_t segments, const BootstrapOptions& options,
              const std::function<void(const std::vector<std::size_t>&)>& use) {
  std::vector<std::size_t> drawn(segments);
  for (int64_t draw = 0; draw < options.draws; ++draw) {
    Random random(options.seed, static_cast<uint64_t>(draw));
    for (std::size_t& segment : drawn)
      segment = static_cast<std::size_t>(random.uniform_integer(static_cast<int64_t>(segments)));
    use(drawn);
  }
}

void check_layout(int64_t positions, int64_t window) {
  FOCUS_CHECK(positions >= 1 && window >= 1, positions, " positions, window ", window);
}

}  // namespace

void Histogram::add(float value) {
  const double place = kPerDecade * (std::log10(static_cast<double>(value)) - kLowest);
  if (!(place >= 0)) {  // log10 of zero is -infinity
    ++below_;
  } else {
    ++counts_[static_cast<std::size_t>(std::min<double>(place, kBins - 1))];
  }
}

double Total::mean() const { return count > 0 ? sum / static_cast<double>(count) : kNan; }

Summary summarise(const Total& total, const QuantileSketch& values) {
  FOCUS_CHECK(total.count == values.count(), total.count, " values in the sum, ", values.count(), " sorted");
  return {.count = total.count,
          .mean = total.mean(),
          .median = values.quantile(0.5),
          .q25 = values.quantile(0.25),
          .q75 = values.quantile(0.75),
          .p99 = values.quantile(0.99),
          .max = values.max()};
}

Interval bootstrap_mean(std::span<const Total> segments, const BootstrapOptions& options) {
  std::vector<Total> present;
  std::copy_if(segments.begin(), segments.end(), std::back_inserter(present),
               [](const Total& total) { return total.count > 0; });
  if (present.size() < 2) return {kNan, kNan};
  std::vector<double> means;
  resample(present.size(), options, [&](const std::vector<std::size_t>& drawn) {
    Total total;
    for (const std::size_t segment : drawn) total.add(present[segment]);
    means.push_back(total.mean());
  });
  return expanded_interval(means, present.size());
}

Recovered recovered_share(std::span<const Total> method, std::span<const Total> state_only,
                          const BootstrapOptions& options) {
  FOCUS_CHECK(method.size() == state_only.size(), method.size(), " segments of the method, ",
              state_only.size(), " of state only");
  const auto share = [](const Total& kept, const Total& lost) {
    return lost.mean() > 0 ? 1.0 - kept.mean() / lost.mean() : kNan;
  };
  std::vector<std::size_t> present;
  Total kept, lost;
  for (std::size_t segment = 0; segment < method.size(); ++segment) {
    if (method[segment].count == 0 || state_only[segment].count == 0) continue;
    present.push_back(segment);
    kept.add(method[segment]);
    lost.add(state_only[segment]);
  }
  Recovered result{share(kept, lost), {kNan, kNan}};
  if (present.size() < 2 || std::isnan(result.share)) return result;
  std::vector<double> shares;
  resample(present.size(), options, [&](const std::vector<std::size_t>& drawn) {
    Total drawn_kept, drawn_lost;
    for (const std::size_t place : drawn) {
      drawn_kept.add(method[present[place]]);
      drawn_lost.add(state_only[present[place]]);
    }
    const double value = share(drawn_kept, drawn_lost);
    if (!std::isnan(value)) shares.push_back(value);
  });
  result.interval = expanded_interval(shares, present.size());
  return result;
}

Binning bin_by_position(int64_t positions, int64_t window, int64_t max_bins) {
  check_layout(positions, window);
  window = std::min(window, positions);
  const int64_t windows = (positions + window - 1) / window;
  const int64_t per_window = std::clamp<int64_t>(max_bins / windows, 1, window);
  Binning out;
  out.bin_of.resize(static_cast<std::size_t>(positions));
  for (int64_t w = 0; w < windows; ++w) {
    for (int64_t b = 0; b < per_window; ++b) {
      const int64_t begin = w * window + b * window / per_window,
                    end = std::min(positions, w * window + (b + 1) * window / per_window);
      if (begin >= end) continue;
      std::fill(out.bin_of.begin() + begin, out.bin_of.begin() + end, static_cast<int32_t>(out.bins.size()));
      out.bins.push_back({begin, end, {}});
    }
  }
  return out;
}

Binning bin_by_offset(int64_t positions, int64_t window) {
  check_layout(positions, window);
  Binning out;
  out.bin_of.assign(static_cast<std::size_t>(positions), Binning::kNone);
  if (positions <= window) return out;
  const int64_t offsets = std::min(window, positions - window);
  std::vector<int32_t> bin_of_offset(static_cast<std::size_t>(offsets));
  for (int64_t begin = 0; begin < offsets;) {
    const int64_t end = std::min(offsets, begin + std::max<int64_t>(1, begin / 4));
    std::fill(bin_of_offset.begin() + begin, bin_of_offset.begin() + end,
              static_cast<int32_t>(out.bins.size()));
    out.bins.push_back({begin, end, {}});
    begin = end;
  }
  for (int64_t p = window; p < positions; ++p)
    out.bin_of[static_cast<std::size_t>(p)] = bin_of_offset[static_cast<std::size_t>(p % window)];
  return out;
}

}  // namespace focus::metrics
