#include "svg_plot.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>

#include "focus/core/error.h"
#include "focus/core/units.h"
#include "text.h"

namespace focus::report {
namespace {

constexpr double kWidth = 760, kHeight = 400, kLeft = 80, kRight = 34, kTop = 14, kBottom = 58;
constexpr double kFloor = kHeight - kBottom;

std::string num(double value) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%.1f", value);
  return buffer;
}

std::string superscript(int exponent) {
  static const std::array<const char*, 10> digits = {"\u2070", "\u00B9", "\u00B2", "\u00B3", "\u2074",
                                                     "\u2075", "\u2076", "\u2077", "\u2078", "\u2079"};
  std::string result = exponent < 0 ? "\u207B" : "";
  for (const char c : std::to_string(std::abs(exponent))) result += digits[static_cast<std::size_t>(c - '0')];
  return result;
}

std::string power_text(int exponent) {
  if (exponent >= 0 && exponent <= 5) return format_count(static_cast<int64_t>(std::llround(std::pow(10.0, exponent))));
  if (exponent < 0 && exponent >= -2) return exponent == -1 ? "0.1" : "0.01";
  return std::string("10").append(superscript(exponent));
}

std::string tick_text(double value, double step) {
  if (std::fabs(value) >= 1000 && std::fabs(value - std::round(value)) < 1e-9) {
    const auto whole = static_cast<int64_t>(std::llround(value));
    return std::string(whole < 0 ? "\u2212" : "").append(format_count(std::abs(whole)));
  }
  if (step < 1e-3 && std::fabs(value) >= step * 1e-6) {
    const int exponent = static_cast<int>(std::floor(std::log10(step) + 1e-9));
    const auto mantissa = static_cast<int64_t>(std::llround(value / std::pow(10.0, exponent)));
    return concat(mantissa < 0 ? "\u2212" : "", std::abs(mantissa), "\u00D710", superscript(exponent));
  }
  if (step < 1e-3) return "0";
  const int decimals = std::clamp(static_cast<int>(std::ceil(-std::log10(step) - 1e-9)), 0, 9);
  char buffer[48];
  std::snprintf(buffer, sizeof buffer, "%.*f", decimals, std::fabs(value) < step * 1e-6 ? 0.0 : std::fabs(value));
  return (value < -step * 1e-6 ? "\u2212" : "") + std::string(buffer);
}

double nice_step(double span, int count) {
  const double raw = span / count, power = std::pow(10.0, std::floor(std::log10(raw)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= raw * (1 - 1e-9)) return factor * power;
  }
  return 10 * power;
}

std::vector<std::pair<double, std::string>> make_ticks(const Axis& axis) {
  if (!axis.ticks.empty()) return axis.ticks;
  std::vector<std::pair<double, std::string>> ticks;
  if (!axis.log) {
    const double step = nice_step(axis.high - axis.low, 6);
    for (double v = std::ceil(axis.low / step - 1e-9) * step; v <= axis.high + step * 1e-9; v += step)
      ticks.emplace_back(v, tick_text(v, step));
    return ticks;
  }
  const double low = std::log10(axis.low), high = std::log10(axis.high);
  const int every = high - low > 6.5 ? 2 : 1;
  for (int e = static_cast<int>(std::ceil(low - 1e-9)); e <= high + 1e-9; ++e) {
    if (e % every == 0) ticks.emplace_back(std::pow(10.0, e), power_text(e));
  }
  if (high - low >= 2.2) return ticks;
  for (int e = static_cast<int>(std::floor(low)); e <= high; ++e) {
    for (const int factor : {2, 5}) {
      const double value = factor * std::pow(10.0, e);
      if (value < axis.low * (1 - 1e-9) || value > axis.high * (1 + 1e-9)) continue;
      char buffer[32];
      std::snprintf(buffer, sizeof buffer, "%.*f", std::max(0, -e), value);
      ticks.emplace_back(value, e >= -3 && e <= 4 ? buffer : std::to_string(factor) + "\u00D7" + power_text(e));
    }
  }
  return ticks;
}

double fraction(const Axis& axis, double value) {
  return axis.log ? (std::log10(value) - std::log10(axis.low)) / (std::log10(axis.high) - std::log10(axis.low))
                  : (value - axis.low) / (axis.high - axis.low);
}

std::string marker_path(int marker, double x, double y, double r) {
  const auto at = [&](double dx, double dy) { return num(x + dx * r) + " " + num(y + dy * r); };
  switch (marker % 6) {
    case 1:
      return "M" + at(-.9, -.9) + "L" + at(.9, -.9) + "L" + at(.9, .9) + "L" + at(-.9, .9) + "Z";
    case 2:
      return "M" + at(0, -1.15) + "L" + at(1.1, .85) + "L" + at(-1.1, .85) + "Z";
    case 3:
      return "M" + at(0, -1.3) + "L" + at(1.1, 0) + "L" + at(0, 1.3) + "L" + at(-1.1, 0) + "Z";
    case 4:
      return "M" + at(-.35, -1.1) + "L" + at(.35, -1.1) + "L" + at(.35, -.35) + "L" + at(1.1, -.35) + "L" + at(1.1, .35) + "L" +
             at(.35, .35) + "L" + at(.35, 1.1) + "L" + at(-.35, 1.1) + "L" + at(-.35, .35) + "L" + at(-1.1, .35) + "L" + at(-1.1, -.35) +
             "L" + at(-.35, -.35) + "Z";
    case 5:
      return "M" + at(0, 1.15) + "L" + at(1.1, -.85) + "L" + at(-1.1, -.85) + "Z";
    default:
      return "M" + at(-1, 0) + "A" + num(r) + " " + num(r) + " 0 1 1 " + at(1, 0) + "A" + num(r) + " " + num(r) + " 0 1 1 " + at(-1, 0) +
             "Z";
  }
}

std::string stroke(const Style& style) {
  return "class=\"" + style.css_class + "\" stroke=\"currentColor\" stroke-width=\"" + num(style.width) + "\"" +
         (style.dash.empty() ? "" : " stroke-dasharray=\"" + style.dash + "\"");
}

std::string title(const std::string& tooltip) { return tooltip.empty() ? "" : "<title>" + escape_html(tooltip) + "</title>"; }

}  // namespace

Axis fitted_axis(std::string label, bool log, const std::vector<double>& values) {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (const double value : values) {
    if (!std::isfinite(value) || (log && value <= 0)) continue;
    low = std::min(low, value);
    high = std::max(high, value);
  }
  if (low > high) return {std::move(label), log, log ? 0.1 : 0.0, 1.0, {}};
  if (!log) {
    double span = high - low;
    if (span <= 0) span = std::max(1e-6, std::fabs(high) * 0.1);
    const double step = nice_step(span * 1.1, 6);
    return {std::move(label), false, std::floor((low - 0.02 * span) / step) * step, std::ceil((high + 0.02 * span) / step) * step, {}};
  }
  double from = std::floor(std::log10(low) * 2 - 0.1) / 2, to = std::ceil(std::log10(high) * 2 + 0.1) / 2;
  if (to - from < 1) from = to - 1;
  from = std::max(from, to - 9);
  return {std::move(label), true, std::pow(10.0, from), std::pow(10.0, to), {}};
}

Plot::Plot(Axis x, Axis y, const std::string& description) : x_(std::move(x)), y_(std::move(y)), description_(description) {}

double Plot::place_x(double x) const { return kLeft + std::clamp(fraction(x_, x), -0.05, 1.05) * (kWidth - kLeft - kRight); }
double Plot::place_y(double y) const { return kFloor - std::clamp(fraction(y_, y), -0.05, 1.05) * (kFloor - kTop); }
bool Plot::shown(double x, double y) const { return std::isfinite(x) && std::isfinite(y) && (!x_.log || x > 0) && (!y_.log || y > 0); }

void Plot::line(const Points& points, const Style& style, const std::string& tooltip) {
  std::string path;
  bool pen_down = false;
  for (const auto& [x, y] : points) {
    if (!shown(x, y)) {
      pen_down = false;
      continue;
    }
    path.append(pen_down ? "L" : "M").append(num(place_x(x))).append(" ").append(num(place_y(y)));
    // A point between two breaks would leave no trace.
    if (!pen_down) path += "h0.1";
    pen_down = true;
  }
  if (!path.empty())
    body_ += "<path fill=\"none\" stroke-linejoin=\"round\" " + stroke(style) + " d=\"" + path + "\">" + title(tooltip) + "</path>\n";
}

void Plot::marker(double x, double y, const Style& style, const std::string& tooltip) {
  if (!shown(x, y)) return;
  body_ += "<path class=\"" + style.css_class + "\" fill=\"currentColor\" stroke=\"var(--bg)\" stroke-width=\"1\" d=\"" +
           marker_path(style.marker, place_x(x), place_y(y), 5.5) + "\">" + title(tooltip) + "</path>\n";
}

void Plot::vertical_bar(double x, double low, double high, const Style& style) {
  if (!shown(x, high) || std::isnan(low)) return;
  const double bottom = y_.log && low <= 0 ? kFloor : place_y(low);
  const std::string at = num(place_x(x)), left = num(place_x(x) - 4), right = num(place_x(x) + 4), y0 = num(bottom),
                    y1 = num(place_y(high));
  body_ += "<path fill=\"none\" class=\"" + style.css_class + "\" stroke=\"currentColor\" stroke-width=\"1.4\" d=\"M" + at + " " + y0 +
           "V" + y1 + "M" + left + " " + y0 + "H" + right + "M" + left + " " + y1 + "H" + right + "\"/>\n";
}

void Plot::box(double x, double half_width, const Box& box, const Style& style, const std::string& tooltip) {
  const auto level = [&](double value) { return y_.log && !(value > 0) ? kFloor : std::min(kFloor, place_y(value)); };
  const double middle = place_x(x), half = std::min(36.0, place_x(x + half_width) - middle);
  const double left = middle - half, right = middle + half;
  const std::string open = "<g class=\"" + style.css_class + "\" stroke=\"currentColor\" stroke-width=\"1.6\">";
  body_ += open + title(tooltip);
  body_ += "<path fill=\"none\" d=\"M" + num(middle) + " " + num(level(box.low)) + "V" + num(level(box.q25)) + "M" + num(middle) + " " +
           num(level(box.q75)) + "V" + num(level(box.high)) + "M" + num(middle - (right - left) / 4) + " " + num(level(box.high)) + "H" +
           num(middle + (right - left) / 4) + "\"/>";
  body_ += "<rect x=\"" + num(left) + "\" y=\"" + num(level(box.q75)) + "\" width=\"" + num(right - left) + "\" height=\"" +
           num(std::max(0.8, level(box.q25) - level(box.q75))) + "\" fill=\"currentColor\" fill-opacity=\"0.22\"/>";
  body_ += "<path stroke-width=\"3\" d=\"M" + num(left) + " " + num(level(box.median)) + "H" + num(right) + "\"/></g>\n";
  marker(x, box.mean, style, tooltip);
}

void Plot::vertical_rule(double x) {
  if (x < x_.low || x > x_.high) return;
  body_ += "<path class=\"rule\" d=\"M" + num(place_x(x)) + " " + num(kTop) + "V" + num(kFloor) + "\"/>\n";
}

void Plot::horizontal_rule(double y, const std::string& label, const Style& style) {
  if (!std::isfinite(y) || (y_.log && y <= 0) || fraction(y_, y) < 0 || fraction(y_, y) > 1) return;
  body_ += "<path fill=\"none\" " + stroke(style) + " d=\"M" + num(kLeft) + " " + num(place_y(y)) + "H" + num(kWidth - kRight) + "\"/>\n";
  const double right = kWidth - kRight - 6, baseline = place_y(y) - 5;
  body_ += "<text class=\"halo " + style.css_class + "\" fill=\"currentColor\" text-anchor=\"end\" x=\"" + num(right) + "\" y=\"" +
           num(baseline) + "\">" + escape_html(label) + "</text>\n";
}

void Plot::labels(const std::vector<Label>& labels) {
  constexpr double line_height = 15;
  struct Placed {
    const Label* label;
    double x, y, left, right, baseline;
  };
  std::vector<Placed> placed;
  for (const Label& label : labels) {
    if (shown(label.x, label.y)) placed.push_back({&label, place_x(label.x), place_y(label.y), 0, 0, place_y(label.y) + 4});
  }
  // Points side by side have their labels beside the whole group, so that no text covers a neighbour's marker.
  std::sort(placed.begin(), placed.end(), [](const Placed& a, const Placed& b) { return a.x < b.x; });
  for (std::size_t first = 0; first < placed.size();) {
    std::size_t last = first + 1;
    while (last < placed.size() && placed[last].x - placed[last - 1].x < 16) ++last;
    double widest = 0;
    for (std::size_t i = first; i < last; ++i) widest = std::max(widest, 7.4 * static_cast<double>(placed[i].label->text.size()));
    const bool flip = placed[last - 1].x + 12 + widest > kWidth - kRight;
    for (std::size_t i = first; i < last; ++i) {
      const double width = 7.4 * static_cast<double>(placed[i].label->text.size());
      placed[i].left = flip ? placed[first].x - 12 - width : placed[last - 1].x + 12;
      placed[i].right = placed[i].left + width;
    }
    first = last;
  }
  std::sort(placed.begin(), placed.end(), [](const Placed& a, const Placed& b) { return a.y < b.y; });
  // Pairs that overlap push each other apart until none do.
  for (int round = 0; round < 400; ++round) {
    bool moved = false;
    for (std::size_t i = 0; i < placed.size(); ++i) {
      for (std::size_t j = i + 1; j < placed.size(); ++j) {
        Placed &upper = placed[i], &lower = placed[j];
        const double overlap = upper.baseline + line_height - lower.baseline;
        if (overlap < 0.01 || upper.left > lower.right || lower.left > upper.right) continue;
        upper.baseline -= overlap / 2;
        lower.baseline += overlap / 2;
        moved = true;
      }
    }
    for (Placed& entry : placed) entry.baseline = std::clamp(entry.baseline, kTop + 12, kFloor - 6);
    if (!moved) break;
  }
  for (const Placed& entry : placed) {
    const bool flip = entry.left < entry.x;
    if (std::fabs(entry.baseline - entry.y - 4) > 9 || std::fabs((flip ? entry.right : entry.left) - entry.x) > 20)
      body_ += "<path class=\"leader\" d=\"M" + num(entry.x) + " " + num(entry.y) + "L" + num(flip ? entry.right + 2 : entry.left - 2) +
               " " + num(entry.baseline - 4) + "\"/>";
    body_ += "<text class=\"halo " + entry.label->style.css_class + "\" fill=\"currentColor\" x=\"" + num(entry.left) + "\" y=\"" +
             num(entry.baseline) + "\">" + escape_html(entry.label->text) + "</text>\n";
  }
}

std::vector<double> Plot::side_by_side(const std::vector<double>& xs) const {
  constexpr double apart = 9;
  std::vector<std::size_t> order(xs.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return xs[a] < xs[b]; });
  std::vector<double> result = xs;
  for (std::size_t first = 0; first < order.size();) {
    std::size_t last = first + 1;
    while (last < order.size() && place_x(xs[order[last]]) - place_x(xs[order[last - 1]]) < apart) ++last;
    const double centre = 0.5 * (place_x(xs[order[first]]) + place_x(xs[order[last - 1]]));
    for (std::size_t i = first; i < last; ++i) {
      if (last - first == 1) break;
      const double pixel = centre + apart * (static_cast<double>(i - first) - 0.5 * static_cast<double>(last - first - 1));
      const double share = (pixel - kLeft) / (kWidth - kLeft - kRight);
      result[order[i]] = x_.log ? x_.low * std::pow(x_.high / x_.low, share) : x_.low + share * (x_.high - x_.low);
    }
    first = last;
  }
  return result;
}

std::string Plot::ticks() const {
  std::string out;
  for (const auto& [value, text] : make_ticks(y_)) {
    const std::string y = num(place_y(value));
    out += "<path class=\"grid\" d=\"M" + num(kLeft) + " " + y + "H" + num(kWidth - kRight) +
           "\"/><text class=\"tick\" text-anchor=\"end\" x=\"" + num(kLeft - 8) + "\" y=\"" + num(place_y(value) + 4) + "\">" + text +
           "</text>\n";
  }
  const auto x_ticks = make_ticks(x_);
  std::size_t longest = 0;
  for (const auto& tick : x_ticks) longest = std::max(longest, tick.second.size());
  const bool slant = !x_.ticks.empty() && static_cast<double>(longest) * 7.2 >
                                              (kWidth - kLeft - kRight) / static_cast<double>(std::max<std::size_t>(1, x_ticks.size())) - 6;
  for (const auto& [value, text] : x_ticks) {
    const std::string x = num(place_x(value)), y = num(kFloor + (slant ? 14 : 18));
    out += "<path class=\"axis\" d=\"M" + x + " " + num(kFloor) + "v5\"/>";
    if (slant) {
      out += "<text class=\"tick\" text-anchor=\"end\" transform=\"translate(" + x + " " + y + ") rotate(-24)\">" + escape_html(text) +
             "</text>\n";
    } else {
      out += "<text class=\"tick\" text-anchor=\"middle\" x=\"" + x + "\" y=\"" + y + "\">" + escape_html(text) + "</text>\n";
    }
  }
  return out;
}

std::string Plot::svg() const {
  std::string out = "<svg viewBox=\"0 0 " + num(kWidth) + " " + num(kHeight) + "\" role=\"img\" aria-label=\"" + escape_html(description_) +
                    "\">\n" + ticks();
  // Nothing may be drawn outside the axes.
  out += "<svg x=\"" + num(kLeft) + "\" y=\"" + num(kTop) + "\" width=\"" + num(kWidth - kLeft - kRight) + "\" height=\"" +
         num(kFloor - kTop) + "\" viewBox=\"" + num(kLeft) + " " + num(kTop) + " " + num(kWidth - kLeft - kRight) + " " +
         num(kFloor - kTop) + "\">\n" + body_ + "</svg>\n";
  out += "<path class=\"axis\" d=\"M" + num(kLeft) + " " + num(kTop) + "V" + num(kFloor) + "H" + num(kWidth - kRight) + "\"/>\n";
  out += "<text class=\"axis-label\" text-anchor=\"middle\" x=\"" + num((kLeft + kWidth - kRight) / 2) + "\" y=\"" + num(kHeight - 8) +
         "\">" + escape_html(x_.label) + "</text>\n";
  out += "<text class=\"axis-label\" text-anchor=\"middle\" transform=\"translate(18 " + num((kTop + kFloor) / 2) + ") rotate(-90)\">" +
         escape_html(y_.label) + "</text>\n</svg>\n";
  return out;
}

std::string Plot::swatch(const Style& style, bool with_marker) {
  std::string out = "<svg class=\"swatch\" viewBox=\"0 0 34 14\" aria-hidden=\"true\">";
  if (with_marker) {
    out += "<path class=\"" + style.css_class + "\" fill=\"currentColor\" d=\"" + marker_path(style.marker, 17, 7, 5.5) + "\"/>";
  } else {
    out += "<path fill=\"none\" " + stroke(style) + " d=\"M1 7H33\"/>";
  }
  return out + "</svg>";
}

}  // namespace focus::report
