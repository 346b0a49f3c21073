#include "focus/config/field_lines.h"

#include <algorithm>
#include <map>

#include "focus/core/error.h"
#include "focus/core/text.h"
#include "ranges.h"

namespace focus::config {
namespace {

std::string joined(const std::vector<std::string>& parts, const char* separator) {
  std::string out;
  for (const std::string& part : parts) out += (out.empty() ? "" : separator) + part;
  return out;
}

class Describer final : public Fields {
 public:
  Describer(std::vector<FieldLine>& lines, bool by_element, std::string prefix, std::string pattern,
            std::string unmet)
      : Fields(std::move(prefix)),
        lines_(lines),
        by_element_(by_element),
        pattern_(std::move(pattern)),
        unmet_(std::move(unmet)) {}

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
  void integers(std::string_view name, std::vector<int64_t>& value, IntegerRange range,
                std::string_view doc) override {
    std::string list;
    for (const int64_t v : value) list += concat(list.empty() ? "" : ", ", v);
    const std::string allowed = range_text(range);
    add(name, "integers", concat("[", list, "]"), allowed.empty() ? "" : "each " + allowed, doc);
  }
  void texts(std::string_view name, std::vector<std::string>& value, std::string_view doc) override {
    add(name, "texts", concat("[", quoted_list(value), "]"), "", doc);
  }
  void named_files(std::string_view name, std::map<std::string, std::string>& value,
                   std::string_view doc) override {
    std::string list;
    for (const auto& [key, text] : value)
      list += concat(list.empty() ? "" : ", ", '"', key, "\": \"", text, '"');
    add(name, "named texts", concat("{", list, "}"), "", doc);
  }

 protected:
  void restrict_next(const Condition& condition) override { next_ = condition; }
  void choose(std::string_view name, int64_t& index, const std::vector<std::string>& names,
              std::string_view doc) override {
    FOCUS_CHECK(index >= 0, "the value of '", path(name), "' is none of its choices");
    add(name, "choice", concat('"', names[static_cast<std::size_t>(index)], '"'), joined(names, "|"), doc);
  }
  void nest(std::string_view name, const Visit& visit, std::string_view doc) override {
    const std::string unmet = add(name, "group", "", "", doc, true);
    Describer inner(lines_, by_element_, concat(path(name), "."), concat(pattern_, name, "."), unmet);
    visit(inner);
  }
  void each(std::string_view name, int64_t size, const std::function<void(int64_t)>& resize,
            const std::function<void(int64_t, Fields&)>& visit, std::string_view doc) override {
    const std::string unmet =
        add(name, "list", concat(size, size == 1 ? " element" : " elements"), "", doc, true);
    if (!by_element_) resize(1);
    for (int64_t i = 0; i < (by_element_ ? size : 1); ++i) {
      const std::string pattern = concat(pattern_, name, ".N.");
      Describer inner(lines_, by_element_, by_element_ ? concat(path(name), ".", i, ".") : pattern, pattern,
                      unmet);
      visit(i, inner);
    }
  }

 private:
  /// The first clause that does not hold for the field.
  std::string add(std::string_view name, std::string type, std::string initial, std::string allowed,
                  std::string_view doc, bool is_group = false) {
    const Condition own = std::exchange(next_, {});
    lines_.push_back({path(name), std::move(type), std::move(initial), std::move(allowed), std::string(doc),
                      own.clauses, unmet_.empty() ? own.unmet : unmet_, concat(pattern_, name), is_group});
    return lines_.back().unmet;
  }

  std::vector<FieldLine>& lines_;
  bool by_element_;
  std::string pattern_, unmet_;  // unmet_: of the groups around
  Condition next_;
};

}  // namespace

std::vector<FieldLine> field_lines(const Visit& visit, bool by_element, const std::string& prefix) {
  std::vector<FieldLine> lines;
  Describer describer(lines, by_element, prefix, prefix, "");
  visit(describer);
  return lines;
}

std::vector<FieldLine> idle_lines(const Visit& visit, const Visit& fresh, const std::string& prefix) {
  std::map<std::string, std::string> initial;
  for (const FieldLine& line : field_lines(fresh, false, prefix)) initial[line.pattern] = line.initial;
  std::vector<FieldLine> idle = field_lines(visit, true, prefix);
  std::erase_if(idle, [&](const FieldLine& line) {
    return line.unmet.empty() || line.initial == initial.at(line.pattern);
  });
  return idle;
}

std::string idle_text(const FieldLine& line) {
  return concat(line.path, " has no effect unless ", line.unmet, "; remove it");
}

void refuse_idle(const Visit& visit, const Visit& fresh, const std::string& prefix) {
  const std::vector<FieldLine> idle = idle_lines(visit, fresh, prefix);
  if (!idle.empty()) fail<ConfigError>(idle_text(idle.front()));
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
    std::string text = line.path + std::string(path_width + 2 - line.path.size(), ' ') + line.type +
                       std::string(type_width + 2 - line.type.size(), ' ');
    if (!line.is_group) text += "default " + line.initial;
    if (!line.allowed.empty()) text += "  " + line.allowed;
    if (!line.doc.empty()) text += (line.is_group ? "" : "  ") + line.doc;
    if (!line.only_if.empty()) text += "  (only if " + joined(line.only_if, " and ") + ")";
    text.erase(text.find_last_not_of(' ') + 1);
    out += text + '\n';
  }
  return out;
}

}  // namespace focus::config
