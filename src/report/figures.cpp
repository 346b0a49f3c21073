#include "figures.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "focus/core/error.h"
#include "focus/core/units.h"
#include "svg_plot.h"
#include "text.h"

namespace focus::report {
namespace {

// After Okabe and Ito (2008), told apart with every common colour blindness; dash pattern and marker repeat the distinction.
constexpr std::size_t kNumColours = 8;
constexpr std::array<const char*, kNumColours> kLight = {"#0072b2", "#d55e00", "#008f68", "#b0508c",
                                                         "#b37700", "#2a8fd0", "#7a2e3a", "#5d5d99"};
constexpr std::array<const char*, kNumColours> kDark = {"#5cb3ec", "#ff8f45", "#35cfa0", "#ec9fca",
                                                        "#f2b63c", "#9ad6fb", "#e58a9a", "#b3b3ee"};
constexpr std::array<const char*, 4> kDashes = {"", "8 3", "2 2.5", "10 3 2 3"};

std::vector<Style> method_styles(const ReportDigest& digest) {
  std::vector<Style> styles;
  std::size_t next = 0;
  for (std::size_t m = 0; m < digest.methods.size(); ++m) {
    if (static_cast<int>(m) == digest.full) {
      styles.push_back({"full", "", 0, 2.4});
    } else if (static_cast<int>(m) == digest.noise_floor) {
      styles.push_back({"noise", "4 4", 0, 1.4});
    } else {
      styles.push_back(
          {concat("m", next % kNumColours), kDashes[(next + next / kNumColours) % kDashes.size()], static_cast<int>(next % 6), 1.8});
      ++next;
    }
  }
  return styles;
}

struct Figure {
  std::string title, caption;
};

std::string figure(const ReportDigest& digest, const Figure& text, const Plot& plot, const std::vector<std::size_t>& shown,
                   const std::vector<Style>& styles, bool markers, bool boundary) {
  std::string out = "<figure>\n<h3>" + escape_html(text.title) + "</h3>\n" + plot.svg() + "<ul class=\"legend\">";
  for (const std::size_t m : shown)
    out += "<li>" + Plot::swatch(styles[m], markers && static_cast<int>(m) != digest.noise_floor) +
           escape_html(digest.methods[m].method->name) + "</li>";
  if (boundary)
    out +=
        "<li><svg class=\"swatch\" viewBox=\"0 0 34 14\" aria-hidden=\"true\"><path class=\"rule\" d=\"M17 0V14\"/></svg>window "
        "boundary</li>";
  return out + "</ul>\n<figcaption>" + escape_html(text.caption) + "</figcaption>\n</figure>\n";
}

using Bins = std::array<std::vector<metrics::Bin>, kNumColumns>;

enum class Across { position, offset };

// A log axis whose lower end the methods choose. Rounding lies decades below them; an axis that reached down to it would press them
// together at the top.
Axis axis_of_methods(const std::string& label, std::vector<double> methods, const std::vector<double>& noise_floor) {
  double lowest = std::numeric_limits<double>::infinity();
  for (const double value : methods) {
    if (value > 0) lowest = std::min(lowest, value);
  }
  const bool alone = std::isinf(lowest);
  for (const double value : noise_floor) {
    if (alone || value > lowest) methods.push_back(value);
  }
  return fitted_axis(label, true, methods);
}

// One line per method over the bins of a column.
std::string curves(const ReportDigest& digest, const std::vector<Style>& styles, Across across, int c, bool log, const std::string& y_label,
                   const Figure& text) {
  const FidelityResult& result = *digest.result;
  std::vector<std::size_t> shown;
  std::vector<Points> lines;
  std::vector<double> heights, floor_heights;
  metrics::Total floor;
  for (std::size_t m = 0; m < digest.methods.size(); ++m) {
    const MethodDigest& entry = digest.methods[m];
    const Bins& bins = across == Across::position ? entry.by_position : entry.by_offset;
    const bool is_floor = log && static_cast<int>(m) == digest.noise_floor;
    Points points;
    bool visible = false;
    for (const metrics::Bin& bin : bins[static_cast<std::size_t>(c)]) {
      const double value = bin.total.mean();
      const double x = across == Across::position ? 0.5 * static_cast<double>(bin.begin + bin.end)
                                                  : std::sqrt(static_cast<double>(bin.begin + 1) * static_cast<double>(bin.end));
      points.emplace_back(x, value);
      (is_floor ? floor_heights : heights).push_back(value);
      if (is_floor) floor.add(bin.total);
      visible = visible || (log ? value > 0 : std::isfinite(value) && (static_cast<int>(m) != digest.full || value != 0));
    }
    if (!visible) continue;
    shown.push_back(m);
    lines.push_back(std::move(points));
  }
  if (shown.empty()) return {};
  const Axis y = log ? axis_of_methods(y_label, heights, floor_heights) : fitted_axis(y_label, false, heights);
  Figure described = text;
  const auto drawn_floor = std::find(shown.begin(), shown.end(), static_cast<std::size_t>(digest.noise_floor));
  if (drawn_floor != shown.end() && log &&
      std::none_of(floor_heights.begin(), floor_heights.end(), [&](double value) { return value >= y.low; })) {
    lines.erase(lines.begin() + (drawn_floor - shown.begin()));
    shown.erase(drawn_floor);
    described.caption += concat(" Not drawn: the noise floor, ", rounded(floor.mean()), " on average, which lies below the axis.");
  }
  Axis x;
  if (across == Across::position) {
    x = {"position in the segment (bases)", false, 0, static_cast<double>(result.length), {}};
  } else {
    x = {"bases behind the last window boundary",
         true,
         1,
         static_cast<double>(std::max<int64_t>(10, std::min(result.window, result.positions - result.window))),
         {}};
  }
  Plot plot(x, y, text.title);
  const bool rules = across == Across::position && digest.crosses_boundary && result.positions / result.window <= 128;
  for (int64_t boundary = result.window; rules && boundary < result.positions; boundary += result.window)
    plot.vertical_rule(static_cast<double>(boundary));
  for (std::size_t i = 0; i < shown.size(); ++i) plot.line(lines[i], styles[shown[i]], digest.methods[shown[i]].method->name);
  return figure(digest, described, plot, shown, styles, false, rules);
}

std::string byte_ticks_text(double bytes) { return format_bytes(static_cast<int64_t>(bytes)); }

std::string bytes_scatter(const ReportDigest& digest, const std::vector<Style>& styles) {
  const auto kl = static_cast<std::size_t>(column(Measure::kl));
  std::vector<std::size_t> shown;
  std::vector<double> bytes, heights;
  for (std::size_t m = 0; m < digest.methods.size(); ++m) {
    const ColumnStatistics& statistics = digest.main(m).columns[kl];
    if (static_cast<int>(m) == digest.noise_floor) heights.push_back(statistics.summary.mean);
    if (static_cast<int>(m) == digest.full || static_cast<int>(m) == digest.noise_floor || !(statistics.summary.mean > 0)) continue;
    shown.push_back(m);
    heights.push_back(statistics.summary.mean);
    heights.push_back(statistics.interval.high);
    heights.push_back(statistics.interval.low);
    if (digest.methods[m].method->kept_bytes > 0) bytes.push_back(static_cast<double>(digest.methods[m].method->kept_bytes));
  }
  if (shown.empty()) return {};
  if (digest.full >= 0)
    bytes.push_back(static_cast<double>(std::max<int64_t>(1, digest.methods[static_cast<std::size_t>(digest.full)].method->kept_bytes)));
  if (bytes.empty()) bytes.push_back(1024);
  // Ticks at powers of two, so that they read as KiB, MiB, GiB; a method that keeps nothing stands at a place of its own, left of them.
  double low = std::floor(std::log2(*std::min_element(bytes.begin(), bytes.end()))) - 1,
         high = std::ceil(std::log2(*std::max_element(bytes.begin(), bytes.end()))) + 1;
  const bool any_zero = std::any_of(shown.begin(), shown.end(), [&](std::size_t m) { return digest.methods[m].method->kept_bytes == 0; });
  const double zero = std::exp2(low - 0.08 * (high - low)), span = high - low;
  Axis x{"bytes kept behind closed windows, all layers", true, std::exp2(low - (any_zero ? 0.16 : 0.0) * span), std::exp2(high), {}};
  const int every = span <= 7 ? 1 : span <= 14 ? 2 : static_cast<int>(std::ceil(span / 7));
  if (any_zero) x.ticks.emplace_back(zero, "0");
  for (int e = static_cast<int>(low) + (any_zero ? 1 : 0); e <= static_cast<int>(high); e += every)
    x.ticks.emplace_back(std::exp2(e), byte_ticks_text(std::exp2(e)));
  const Figure text{"Loss against memory",
                    "Mean KL divergence and its 95% interval against the bytes that each method really holds for closed windows. Lower "
                    "left is better. The dashed line is the noise floor: differences below it "
                    "are rounding. Methods that hold the same bytes stand side by side."};
  Plot plot(x, fitted_axis("mean KL (nats)", true, heights), text.title);
  if (any_zero) plot.vertical_rule(std::exp2(low));
  if (digest.noise_floor >= 0)
    plot.horizontal_rule(digest.main(static_cast<std::size_t>(digest.noise_floor)).columns[kl].summary.mean, "noise floor",
                         styles[static_cast<std::size_t>(digest.noise_floor)]);
  std::sort(shown.begin(), shown.end(), [&](std::size_t a, std::size_t b) {
    return digest.main(a).columns[kl].summary.mean > digest.main(b).columns[kl].summary.mean;
  });
  std::vector<double> places;
  for (const std::size_t m : shown)
    places.push_back(digest.methods[m].method->kept_bytes > 0 ? static_cast<double>(digest.methods[m].method->kept_bytes) : zero);
  places = plot.side_by_side(places);
  std::vector<Plot::Label> labels;
  for (std::size_t i = 0; i < shown.size(); ++i) {
    const std::size_t m = shown[i];
    const ColumnStatistics& statistics = digest.main(m).columns[kl];
    const MethodResult& method = *digest.methods[m].method;
    plot.vertical_bar(places[i], statistics.interval.low, statistics.interval.high, styles[m]);
    plot.marker(places[i], statistics.summary.mean, styles[m],
                concat(method.name, ": KL ", rounded(statistics.summary.mean), ", ", format_bytes(method.kept_bytes)));
    labels.push_back({places[i], statistics.summary.mean, method.name, styles[m]});
  }
  plot.labels(labels);
  return figure(digest, text, plot, shown, styles, true, false);
}

std::string distributions(const ReportDigest& digest, const std::vector<Style>& styles) {
  const auto kl = static_cast<std::size_t>(column(Measure::kl));
  std::vector<std::size_t> shown;
  std::vector<double> heights;
  for (std::size_t m = 0; m < digest.methods.size(); ++m) {
    const metrics::Summary& s = digest.main(m).columns[kl].summary;
    if (static_cast<int>(m) == digest.full || !(s.p99 > 0)) continue;
    shown.push_back(m);
    for (const double value : {s.q25, s.median, s.q75, s.p99, s.mean}) heights.push_back(value);
  }
  if (shown.empty()) return {};
  const Figure text{"Distribution over positions",
                    "Box: middle half of the positions; bar: median; whisker: 99th percentile; marker: mean. A mean far above the box says "
                    "that few positions carry most of the loss."};
  Axis x{"", false, 0, static_cast<double>(shown.size()), {}};
  for (std::size_t i = 0; i < shown.size(); ++i) x.ticks.emplace_back(static_cast<double>(i) + 0.5, digest.methods[shown[i]].method->name);
  Plot plot(x, fitted_axis("KL (nats)", true, heights), text.title);
  for (std::size_t i = 0; i < shown.size(); ++i) {
    const metrics::Summary& s = digest.main(shown[i]).columns[kl].summary;
    plot.box(static_cast<double>(i) + 0.5, 0.26, {s.q25, s.q25, s.median, s.q75, s.p99, s.mean}, styles[shown[i]],
             concat(digest.methods[shown[i]].method->name, ": median ", rounded(s.median), ", quartiles ", rounded(s.q25), " to ",
                    rounded(s.q75), ", p99 ", rounded(s.p99), ", mean ", rounded(s.mean)));
  }
  return figure(digest, text, plot, {}, styles, true, false);
}

}  // namespace

std::string render_figures(const ReportDigest& digest) {
  const std::vector<Style> styles = method_styles(digest);
  std::string out = "<div class=\"figures\">\n";
  out += curves(digest, styles, Across::position, column(Measure::kl), true, "mean KL (nats)",
                {"KL divergence by position",
                 "Mean over the segments. Where the output equals the full cache's bit for bit, as in the first window, there is nothing "
                 "to draw on a logarithmic scale."});
  out += curves(digest, styles, Across::offset, column(Measure::kl), true, "mean KL (nats)",
                {"KL divergence behind a boundary",
                 "Mean over the positions behind the first boundary, by their distance from the last one: what the moment of dropping "
                 "costs, and how fast it is made up for."});
  out += bytes_scatter(digest, styles);
  out += distributions(digest, styles);
  out += curves(digest, styles, Across::position, column(Measure::cross_entropy), false, "cross entropy (nats)",
                {"Cross entropy by position",
                 "Mean negative log-probability of the true next base. Positions whose next base is not A, C, G or T are left out."});
  out += curves(digest, styles, Across::position, kDeltaCrossEntropy, false, "difference from full (nats)",
                {"Cross entropy less that of the full cache",
                 "Above zero the method predicts the true base worse than the full cache, below zero better."});
  return out + "</div>\n";
}

std::string figure_styles() {
  std::string light = ".full{color:var(--fg)}.noise{color:var(--muted)}", dark;
  for (std::size_t i = 0; i < kNumColours; ++i) {
    light += concat(".m", i, "{color:", kLight[i], "}");
    dark += concat(".m", i, "{color:", kDark[i], "}");
  }
  return light + "\n@media (prefers-color-scheme:dark){" + dark + "}\n";
}

}  // namespace focus::report
