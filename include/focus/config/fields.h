// One field list per configuration struct. A struct names each of its fields once, in visit(Fields&);
// reading, writing, validating, documenting, --set overrides and the refusal of settings without effect walk
// that list.
//
//   struct WindowConfig {
//     int64_t size = 1024;
//     WindowUnit unit = WindowUnit::bases;
//     int64_t shared = 1;
//     void visit(config::Fields& f) {
//       f.integer("size", size, {1, 1 << 24}, "bases (or Focus tokens) per window");
//       f.choice("unit", unit, {{"bases", WindowUnit::bases}, {"focus", WindowUnit::focus}}, "what size
//       counts"); f.only(f.when(unit == WindowUnit::focus, "unit", "is 'focus'"))
//           .integer("shared", shared, {0, 1}, "Focus tokens that neighbours share");
//     }
//   };
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <optional>
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

/// When a setting has an effect: always, or where all of some clauses hold.
struct Condition {
  std::vector<std::string> clauses;  // "focus.unit is 'paper'"
  std::string unmet;                 // the first that does not hold now; empty: all do
  friend Condition operator&&(Condition a, const Condition& b) {
    a.clauses.insert(a.clauses.end(), b.clauses.begin(), b.clauses.end());
    if (a.unmet.empty()) a.unmet = b.unmet;
    return a;
  }
};

class Fields {
 public:
  using Visit = std::function<void(Fields&)>;

  /// `prefix`: path of the visited struct, "focus.paper."; empty for the outermost.
  explicit Fields(std::string prefix = "") : prefix_(std::move(prefix)) {}
  virtual ~Fields() = default;
  virtual void boolean(std::string_view name, bool& value, std::string_view doc) = 0;
  virtual void integer(std::string_view name, int64_t& value, IntegerRange range, std::string_view doc) = 0;
  virtual void number(std::string_view name, double& value, NumberRange range, std::string_view doc) = 0;
  virtual void text(std::string_view name, std::string& value, std::string_view doc) = 0;
  virtual void integers(std::string_view name, std::vector<int64_t>& value, IntegerRange range,
                        std::string_view doc) = 0;
  virtual void texts(std::string_view name, std::vector<std::string>& value, std::string_view doc) = 0;
  /// A file or folder that is read. Written in a configuration file, it counts from the working folder or,
  /// where nothing is there, from the configuration file's; which is said.
  virtual void file(std::string_view name, std::string& value, std::string_view doc) {
    text(name, value, doc);
  }
  /// Regions by name, or BED files, which are found like file().
  virtual void regions(std::string_view name, std::vector<std::string>& value, std::string_view doc) {
    texts(name, value, doc);
  }
  /// An object of files, each found like file(), whose keys are names of the user's own.
  virtual void named_files(std::string_view name, std::map<std::string, std::string>& value,
                           std::string_view doc) = 0;

  /// "setting predicate" as a condition; `setting` is a path from the visited struct on. Conditions count
  /// when everything has been read, so they may ask for fields that stand later in the list.
  Condition when(bool met, std::string_view setting, std::string_view predicate) const {
    std::string clause = path(setting) + " " + std::string(predicate);
    return {{clause}, met ? "" : clause};
  }
  /// The next field has an effect on this condition alone; with a group or list, all that is in it.
  Fields& only(const Condition& condition) {
    restrict_next(condition);
    return *this;
  }

  /// As integer(), `unset` standing for no value.
  void integer_or(std::string_view name, std::optional<int64_t>& value, int64_t unset, IntegerRange range,
                  std::string_view doc) {
    int64_t number = value.value_or(unset);
    integer(name, number, range, doc);
    value = number == unset ? std::nullopt : std::optional(number);
  }
  /// An enum, written as one of the given names.
  template <class E>
  void choice(std::string_view name, E& value, std::vector<std::pair<std::string, E>> options,
              std::string_view doc) {
    std::vector<std::string> names;
    int64_t index = -1;
    for (const auto& [text, option] : options) {
      if (option == value) index = static_cast<int64_t>(names.size());
      names.push_back(text);
    }
    choose(name, index, names, doc);
    value = options.at(static_cast<std::size_t>(index)).second;
  }
  /// As choice(), `unset` standing for no value.
  template <class E>
  void choice_or(std::string_view name, std::optional<E>& value, std::string unset,
                 const std::vector<std::pair<std::string, E>>& options, std::string_view doc) {
    std::vector<std::pair<std::string, std::optional<E>>> all = {{std::move(unset), std::nullopt}};
    all.insert(all.end(), options.begin(), options.end());
    choice(name, value, std::move(all), doc);
  }
  /// A nested object: any struct with visit(Fields&), or what `visit` lists.
  template <class T>
  void group(std::string_view name, T& value, std::string_view doc) {
    nest(name, [&](Fields& inner) { value.visit(inner); }, doc);
  }
  void group(std::string_view name, const Visit& visit, std::string_view doc) { nest(name, visit, doc); }
  /// A list of objects; reading resizes it.
  template <class T>
  void list(std::string_view name, std::vector<T>& value, std::string_view doc) {
    list(name, value, [](T& element, Fields& inner) { element.visit(inner); }, doc);
  }
  template <class T, class VisitElement>
  void list(std::string_view name, std::vector<T>& value, const VisitElement& visit, std::string_view doc) {
    each(
        name, static_cast<int64_t>(value.size()),
        [&](int64_t size) { value.assign(static_cast<std::size_t>(size), T{}); },
        [&](int64_t i, Fields& inner) { visit(value[static_cast<std::size_t>(i)], inner); }, doc);
  }

 protected:
  virtual void restrict_next(const Condition&) {}
  virtual void choose(std::string_view name, int64_t& index, const std::vector<std::string>& names,
                      std::string_view doc) = 0;
  virtual void nest(std::string_view name, const Visit& visit, std::string_view doc) = 0;
  virtual void each(std::string_view name, int64_t size, const std::function<void(int64_t)>& resize,
                    const std::function<void(int64_t, Fields&)>& visit, std::string_view doc) = 0;
  std::string path(std::string_view name) const { return prefix_ + std::string(name); }

 private:
  std::string prefix_;
};

using Visit = Fields::Visit;

/// Visits a copy of `value`, which itself need not be changeable.
template <class T>
Visit visiting(const T& value) {
  return [copy = value](Fields& f) mutable { copy.visit(f); };
}

// What the functions of structs below stand on.
void read_text(std::string_view json, const std::string& source, const std::vector<std::string>& overrides,
               const Visit& visit, const Visit& fresh, const std::filesystem::path& folder);
std::string file_text(const std::string& path);
std::string to_json(const Visit& visit);
std::string describe(const Visit& visit);
void refuse_idle(const Visit& visit, const Visit& fresh, const std::string& prefix);

/// Reads JSON text (// and /* */ comments allowed) over the defaults already in `value`, then applies
/// `overrides`, each "path.to.key=value" (value parsed as JSON, else taken as text; list elements as
/// "key.0.sub"). ConfigError, which leaves `value` as it was, names `source` or the override, the JSON path,
/// what was expected and, for an unknown key, the nearest known one. A key that stands twice is an error too,
/// and so is a setting without effect, unless it says what a fresh T has: resolved configurations name every
/// field and stay readable. A number too small for a double is an error, as is nesting beyond kDeepestJson.
/// `folder`: where files are looked for that the working folder does not have (Fields::file); empty =
/// nowhere.
template <class T>
void read_text(std::string_view json, const std::string& source, const std::vector<std::string>& overrides,
               T& value, const std::filesystem::path& folder = {}) {
  T read = value, fresh;
  read_text(
      json, source, overrides, [&](Fields& f) { read.visit(f); }, [&](Fields& f) { fresh.visit(f); }, folder);
  value = std::move(read);
}
/// As read_text for a file ("" = no file, only overrides).
template <class T>
void read_file(const std::string& path, const std::vector<std::string>& overrides, T& value) {
  read_text(file_text(path), path, overrides, value, std::filesystem::path(path).parent_path());
}
/// What a message that a file is missing should add: that it was looked for beside the configuration file
/// too. Often "".
std::string tried_too(std::string_view message);
/// All fields as pretty-printed JSON, in field order: what was resolved, and itself readable again.
template <class T>
std::string to_json(const T& value) {
  return to_json(visiting(value));
}
/// One line per field, for --help-config: path, type, default, range or choices, meaning, when it has an
/// effect.
template <class T>
std::string describe(const T& value) {
  return describe(visiting(value));
}
/// ConfigError naming the first setting that is not as in a fresh T and has no effect, however it came to be
/// set. `prefix`: path of `value` within the configuration, "focus.".
template <class T>
void refuse_idle(const T& value, const std::string& prefix = "") {
  T fresh;
  refuse_idle(visiting(value), [&](Fields& f) { fresh.visit(f); }, prefix);
}

}  // namespace focus::config
