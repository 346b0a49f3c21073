// A small plot writer: axes with ticks, lines, markers, boxes, as inline SVG whose colours come from style classes.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace focus::report {

struct Axis {
  std::string label;
  bool log = false;
  double low = 0, high = 1;
  /// Own ticks (value, text); computed from the range when empty.
  std::vector<std::pair<double, std::string>> ticks;
};

/// An axis whose range holds all finite values with a margin, ending at round numbers; a log axis takes the positive values only and spans
/// nine decades at most, the highest ones.
Axis fitted_axis(std::string label, bool log, const std::vector<double>& values);

struct Style {
  std::string css_class;  // sets color; drawn with currentColor
  std::string dash;       // SVG dash pattern, "" = solid
  int marker = 0;         // circle, square, triangle, diamond, cross, inverted triangle
  double width = 1.8;
};

using Points = std::vector<std::pair<double, double>>;

class Plot {
 public:
  /// `description` is read out by screen readers.
  Plot(Axis x, Axis y, const std::string& description);

  /// NaN, and values that a log axis cannot show, break the line.
  void line(const Points& points, const Style& style, const std::string& tooltip = "");
  void marker(double x, double y, const Style& style, const std::string& tooltip = "");
  void vertical_bar(double x, double low, double high, const Style& style);
  /// Quartile box with median, a whisker from `low` to `high`, and a dot at the mean; half_width in x units.
  struct Box {
    double low = 0, q25 = 0, median = 0, q75 = 0, high = 0, mean = 0;
  };
  void box(double x, double half_width, const Box& box, const Style& style, const std::string& tooltip);
  void vertical_rule(double x);
  void horizontal_rule(double y, const std::string& label, const Style& style);
  /// Texts beside points; where they would cover one another they are moved up and down, in the order of the points, and joined to their
  /// point by a thin line.
  struct Label {
    double x = 0, y = 0;
    std::string text;
    Style style;
  };
  void labels(const std::vector<Label>& labels);
  /// Places on the x axis for points that share a place: neighbours nearer than a marker's width are set side by side.
  std::vector<double> side_by_side(const std::vector<double>& xs) const;

  /// The whole <svg> element.
  std::string svg() const;

  /// A short sample of line and marker for a legend.
  static std::string swatch(const Style& style, bool with_marker);

 private:
  double place_x(double x) const;
  double place_y(double y) const;
  bool shown(double x, double y) const;
  std::string ticks() const;

  Axis x_, y_;
  std::string description_, body_;
};

}  // namespace focus::report
