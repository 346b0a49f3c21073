#include "describe.h"

#include <algorithm>
#include <charconv>
#include <limits>

#include "focus/core/error.h"
#include "focus/core/text.h"

namespace focus::config {
namespace {

template <class T>
std::string bounds_text(bool has_min, bool has_max, const T& min, const T& max) {
  if (has_min && has_max) return concat("[", min, ", ", max, "]");
  if (has_min) return ">= " + min;
  if (has_max) return "<= " + max;
  return "";
}

class Describer final : public Fields {
 public:
  Describer(std::vector<FieldLine>& lines, std::string prefix) : lines_(lines), prefix_(std::move(prefix)) {}

  void boolean(std::string_view name, bool& value, std::string_view doc) override {
    add(name, "boolean", value ? "true" : "false", "", doc);
  }
  void integer(std::string_view name, int64_t& value, IntegerRange range, std::string_view doc) override {
    add(name, "integer", std::to_string(value), range_text(range), doc);
  }
  void number(std::string_view name, double& value, NumberRange range, std::string_view doc) override {
    add(name, "number", number_text(value), range_text(range), doc);
  }
  void text(std::string_view name, std::string& value, std::string_view doc) override {
    add(name, "text", concat('"', value, '"'), "", doc);
  }
  void integers(std::string_view name, std::vector<int64_t>& value, IntegerRange range, std::string_view doc) override {
    std::string list;
    for (const int64_t v : value) list += concat(list.empty() ? "" : ", ", v);
    const std::string allowed = range_text(range);
    add(name, "integers", concat("[", list, "]"), allowed.empty() ? "" : "each " + allowed, doc);
  }
  void texts(std::string_view name, std::vector<std::string>& value, std::string_view doc) override {
    add(name, "texts", concat("[", quoted_list(value), "]"), "", doc);
  }

 protected:
  void choose(std::string_view name, int64_t& index, const std::vector<std::string>& names, std::string_view doc) override {
    FOCUS_CHECK(index >= 0, "the value of '", prefix_, name, "' is none of its choices");
    std::string allowed;
    for (const std::string& option : names) allowed += (allowed.empty() ? "" : "|") + option;
    add(name, "choice", concat('"', names[static_cast<std::size_t>(index)], '"'), allowed, doc);
  }
  void nest(std::string_view name, const std::function<void(Fields&)>& visit, std::string_view doc) override {
    add(name, "group", "", "", doc, true);
    Describer inner(lines_, concat(prefix_, name, "."));
    visit(inner);
  }
  void each(std::string_view name, int64_t size, const std::function<void(int64_t)>& resize,
            const std::function<void(int64_t, Fields&)>& visit, std::string_view doc) override {
    add(name, "list", concat(size, size == 1 ? " element" : " elements"), "", doc, true);
    // An empty list lends one element to look at; a filled one is left alone, since resizing would reset its elements.
    if (size == 0) resize(1);
    Describer inner(lines_, concat(prefix_, name, ".N."));
    visit(0, inner);
    if (size == 0) resize(0);
  }

 private:
  void add(std::string_view name, std::string type, std::string initial, std::string allowed, std::string_view doc, bool is_group = false) {
    lines_.push_back({concat(prefix_, name), std::move(type), std::move(initial), std::move(allowed), std::string(doc), is_group});
  }

  std::vector<FieldLine>& lines_;
  std::string prefix_;
};

}  // namespace

std::string number_text(double value) {
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value).ptr;
  return {buffer, end};
}

std::string range_text(IntegerRange range) {
  return bounds_text(range.min != std::numeric_limits<int64_t>::min(), range.max != std::numeric_limits<int64_t>::max(),
                     std::to_string(range.min), std::to_string(range.max));
}
std::string range_text(NumberRange range) {
  return bounds_text(range.min != -std::numeric_limits<double>::infinity(), range.max != std::numeric_limits<double>::infinity(),
                     number_text(range.min), number_text(range.max));
}

std::vector<FieldLine> field_lines(const Visit& visit) {
  std::vector<FieldLine> lines;
  Describer describer(lines, "");
  visit(describer);
  return lines;
}

std::string describe(const Visit& visit) {
  const std::vector<FieldLine> lines = field_lines(visit);
  std::size_t path_width = 0, type_width = 0;
  for (const FieldLine& line : lines) {
    path_width = std::max(path_width, line.path.size());
    type_width = std::max(type_width, line.type.size());
  }
  std::string out;
  for (const FieldLine& line : lines) {
    std::string text =
        line.path + std::string(path_width + 2 - line.path.size(), ' ') + line.type + std::string(type_width + 2 - line.type.size(), ' ');
    if (!line.is_group) text += "default " + line.initial;
    if (!line.allowed.empty()) text += "  " + line.allowed;
    if (!line.doc.empty()) text += (line.is_group ? "" : "  ") + line.doc;
    text.erase(text.find_last_not_of(' ') + 1);
    out += text + '\n';
  }
  return out;
}

}  // namespace focus::config
