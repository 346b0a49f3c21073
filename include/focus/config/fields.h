// One field list per configuration struct. A struct names each of its fields once, in visit(Fields&); reading, writing, validating,
// documenting and --set overrides all walk that list.
//
//   struct WindowConfig {
//     int64_t size = 1024;
//     WindowUnit unit = WindowUnit::bases;
//     void visit(config::Fields& f) {
//       f.integer("size", size, {1, 1 << 24}, "bases (or Focus tokens) per window");
//       f.choice("unit", unit, {{"bases", WindowUnit::bases}, {"focus", WindowUnit::focus}}, "what `size` counts");
//     }
//   };
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace focus::config {

struct IntegerRange {
  int64_t min = std::numeric_limits<int64_t>::min();
  int64_t max = std::numeric_limits<int64_t>::max();
};
struct NumberRange {
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
};

class Fields {
 public:
  virtual ~Fields() = default;
  virtual void boolean(std::string_view name, bool& value, std::string_view doc) = 0;
  virtual void integer(std::string_view name, int64_t& value, IntegerRange range, std::string_view doc) = 0;
  virtual void number(std::string_view name, double& value, NumberRange range, std::string_view doc) = 0;
  virtual void text(std::string_view name, std::string& value, std::string_view doc) = 0;
  virtual void integers(std::string_view name, std::vector<int64_t>& value, IntegerRange range, std::string_view doc) = 0;
  virtual void texts(std::string_view name, std::vector<std::string>& value, std::string_view doc) = 0;

  /// An enum, written as one of the given names.
  template <class E>
  void choice(std::string_view name, E& value, std::vector<std::pair<std::string, E>> options, std::string_view doc) {
    std::vector<std::string> names;
    int64_t index = -1;
    for (const auto& [text, option] : options) {
      if (option == value) index = static_cast<int64_t>(names.size());
      names.push_back(text);
    }
    choose(name, index, names, doc);
    value = options.at(static_cast<std::size_t>(index)).second;
  }
  /// A nested object: any struct with visit(Fields&).
  template <class T>
  void group(std::string_view name, T& value, std::string_view doc) {
    nest(
        name, [&](Fields& inner) { value.visit(inner); }, doc);
  }
  /// A list of objects; reading resizes it.
  template <class T>
  void list(std::string_view name, std::vector<T>& value, std::string_view doc) {
    each(
        name, static_cast<int64_t>(value.size()), [&](int64_t size) { value.assign(static_cast<std::size_t>(size), T{}); },
        [&](int64_t i, Fields& inner) { value[static_cast<std::size_t>(i)].visit(inner); }, doc);
  }

 protected:
  virtual void choose(std::string_view name, int64_t& index, const std::vector<std::string>& names, std::string_view doc) = 0;
  virtual void nest(std::string_view name, const std::function<void(Fields&)>& visit, std::string_view doc) = 0;
  virtual void each(std::string_view name, int64_t size, const std::function<void(int64_t)>& resize,
                    const std::function<void(int64_t, Fields&)>& visit, std::string_view doc) = 0;
};

using Visit = std::function<void(Fields&)>;

/// Reads JSON text (// and /* */ comments allowed) over the defaults already in the visited struct, then applies `overrides`, each
/// "path.to.key=value" (value parsed as JSON, else taken as text; list elements as "key.0.sub"). Throws ConfigError naming `source`,
/// the JSON path, what was expected and, for an unknown key, the nearest known one; a duplicate key is an error too.
void read_text(std::string_view json, const std::string& source, const std::vector<std::string>& overrides, const Visit& visit);
/// As read_text for a file ("" = no file, only overrides).
void read_file(const std::string& path, const std::vector<std::string>& overrides, const Visit& visit);
/// All fields as pretty-printed JSON, in field order: what was resolved, and itself readable again.
std::string to_json(const Visit& visit);
/// One line per field: path, type, default, range or choices, meaning. For --help-config.
std::string describe(const Visit& visit);

template <class T>
void read_file(const std::string& path, const std::vector<std::string>& overrides, T& value) {
  read_file(path, overrides, [&](Fields& f) { value.visit(f); });
}
template <class T>
std::string to_json(T& value) {
  return to_json([&](Fields& f) { value.visit(f); });
}

}  // namespace focus::config
