#include <cmath>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "focus/config/field_lines.h"
#include "focus/config/fields.h"
#include "focus/core/error.h"
#include "focus/core/file.h"
#include "focus/core/json_depth.h"
#include "focus/core/log.h"
#include "focus/core/text.h"
#include "ranges.h"

namespace focus::config {
namespace {

using Json = nlohmann::ordered_json;

/// What an override's sparse tree ("a.0.c=v" -> {"a": {"0": {"c": v}}}) needs beside the JSON value; nullptr
/// when reading a file.
struct Override {
  std::string raw;  // the text after '=', which a text field takes as it stands
};

/// Where each setting that was written stands: the file, or the last override.
using Written = std::map<std::string, std::string>;

/// A path of a configuration file that is missing in both places: as it was written, and beside the file.
struct Missing {
  std::string written, beside;
};
std::vector<Missing>& all_missing() {
  static std::vector<Missing> all;
  return all;
}

struct Context {
  std::string source;
  const Visit& visit;
  Written& written;
  std::filesystem::path folder = {};  // of the configuration file; empty for other text
  const Override* set = nullptr;
};

std::string shown(const Json& node) {
  constexpr std::size_t kLongest = 60;
  std::string text = node.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() > kLongest) text = text.substr(0, kLongest) + "...";
  if (node.is_structured()) return concat(node.is_object() ? "the object " : "the list ", text);
  return text;
}

class Reader final : public Fields {
 public:
  Reader(const Json& node, std::string prefix, const Context& context)
      : Fields(std::move(prefix)), node_(node), context_(context) {}

  void boolean(std::string_view name, bool& value, std::string_view) override {
    if (const Json* node = take(name)) {
      if (!node->is_boolean()) wrong(name, "true or false", *node);
      value = node->get<bool>();
    }
  }
  void integer(std::string_view name, int64_t& value, IntegerRange range, std::string_view) override {
    if (const Json* node = take(name)) value = as_integer(name, *node, range);
  }
  void number(std::string_view name, double& value, NumberRange range, std::string_view) override {
    if (const Json* node = take(name)) {
      const std::string expected = expected_text("a number", range_text(range));
      if (!node->is_number()) wrong(name, expected, *node);
      const double read = node->get<double>();
      if (!(read >= range.min && read <= range.max)) wrong(name, expected, *node);
      value = read;
    }
  }
  void text(std::string_view name, std::string& value, std::string_view) override {
    if (const Json* node = take(name)) value = as_text(name, *node);
  }
  void file(std::string_view name, std::string& value, std::string_view) override {
    if (const Json* node = take(name)) value = found(name, as_text(name, *node));
  }
  void integers(std::string_view name, std::vector<int64_t>& value, IntegerRange range,
                std::string_view) override {
    read_list(name, value, "a list of integers",
              [&](const std::string& where, const Json& node) { return as_integer(where, node, range); });
  }
  void texts(std::string_view name, std::vector<std::string>& value, std::string_view) override {
    read_list(name, value, "a list of texts",
              [&](const std::string& where, const Json& node) { return as_text(where, node); });
  }

  void regions(std::string_view name, std::vector<std::string>& value, std::string_view) override {
    read_list(name, value, "a list of texts", [&](const std::string& where, const Json& node) {
      const std::string text = as_text(where, node);
      return text.find(".bed") == std::string::npos ? text : found(where, text);
    });
  }

  void named_files(std::string_view name, std::map<std::string, std::string>& value,
                   std::string_view) override {
    const Json* node = take(name);
    if (node == nullptr) return;
    if (!node->is_object()) wrong(name, "an object of texts", *node);
    // A file's object replaces the default; an override adds to it or changes one element.
    if (context_.set == nullptr) value.clear();
    for (const auto& [key, text] : node->items()) {
      const std::string where = concat(name, ".", key);
      value[key] = found(where, as_text(where, text));
    }
  }

  /// Call after the struct's visit: every key of the object must have been asked for.
  void reject_unknown() const {
    for (const auto& [key, child] : node_.items()) {
      if (known_.count(key) == 0) unknown(key);
    }
  }

 protected:
  void choose(std::string_view name, int64_t& index, const std::vector<std::string>& names,
              std::string_view) override {
    if (const Json* node = take(name)) {
      const std::string text = node->is_string()         ? node->get<std::string>()
                               : context_.set != nullptr ? context_.set->raw
                                                         : "";
      for (std::size_t i = 0; i < names.size(); ++i) {
        if (names[i] == text && (node->is_string() || context_.set != nullptr)) {
          index = static_cast<int64_t>(i);
          return;
        }
      }
      const std::string meant = nearest(text, names);
      wrong(name, concat("one of ", quoted_list(names)), *node,
            meant.empty() ? "" : concat("; did you mean \"", meant, "\"?"));
    }
    FOCUS_CHECK(index >= 0, "the value of '", path(name), "' is none of its choices");
  }
  void nest(std::string_view name, const Visit& visit, std::string_view) override {
    if (const Json* node = take(name)) {
      if (!node->is_object()) wrong(name, "an object", *node);
      Reader inner(*node, concat(path(name), "."), context_);
      visit(inner);
      inner.reject_unknown();
    }
  }
  void each(std::string_view name, int64_t size, const std::function<void(int64_t)>& resize,
            const std::function<void(int64_t, Fields&)>& visit, std::string_view) override {
    const Json* node = take(name);
    if (node == nullptr) return;
    const auto read_element = [&](int64_t index, const Json& element) {
      if (!element.is_object()) wrong(concat(name, ".", index), "an object", element);
      Reader inner(element, concat(path(name), ".", index, "."), context_);
      visit(index, inner);
      inner.reject_unknown();
    };
    if (node->is_array()) {
      resize(static_cast<int64_t>(node->size()));
      for (std::size_t i = 0; i < node->size(); ++i) read_element(static_cast<int64_t>(i), (*node)[i]);
    } else if (context_.set != nullptr && node->is_object() && node->size() == 1) {
      read_element(element_index(name, node->begin().key(), size), node->begin().value());
    } else {
      wrong(name, "a list of objects", *node);
    }
  }

 private:
  const Json* take(std::string_view name) {
    const std::string key(name);
    FOCUS_CHECK(known_.insert(key).second, "field '", path(key), "' is listed twice");
    const auto found = node_.find(key);
    if (found == node_.end()) return nullptr;
    context_.written[path(key)] = context_.source;
    return &*found;
  }

  static std::string expected_text(const std::string& type, const std::string& range) {
    return range.empty()          ? type
           : range.front() == '[' ? concat(type, " in ", range)
                                  : concat(type, " ", range);
  }

  [[noreturn]] void wrong(std::string_view name, const std::string& expected, const Json& got,
                          const std::string& hint = "") const {
    fail<ConfigError>(context_.source, ": ", path(name), ": expected ", expected, ", got ", shown(got), hint);
  }

  int64_t as_integer(std::string_view name, const Json& node, IntegerRange range) const {
    const std::string expected = expected_text("an integer", range_text(range));
    int64_t value = 0;
    if (node.is_number_float()) {
      // 1.0 and 1e6 are integers to a person. 2^63 itself is a double, but no int64_t.
      const double real = node.get<double>();
      if (real != std::floor(real) || real < -0x1p63 || real >= 0x1p63) wrong(name, expected, node);
      value = static_cast<int64_t>(real);
    } else if (node.is_number_unsigned() &&
               node.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      wrong(name, expected, node);
    } else if (node.is_number_integer()) {
      value = node.get<int64_t>();
    } else {
      wrong(name, expected, node);
    }
    if (value < range.min || value > range.max) wrong(name, expected, node);
    return value;
  }

  std::string as_text(std::string_view name, const Json& node) const {
    if (node.is_string()) return node.get<std::string>();
    // --set chromosome=22 means the name "22"; elements inside a list have no raw text of their own.
    if (context_.set != nullptr && !node.is_structured() && !inside_list_) return context_.set->raw;
    wrong(name, "a text in double quotes", node);
  }

  /// A path of a configuration file counts from the working folder. Where nothing is there, from the file's
  /// own.
  std::string found(std::string_view name, const std::string& text) const {
    namespace fs = std::filesystem;
    if (context_.set != nullptr || context_.folder.empty() || text.empty() || fs::path(text).is_absolute())
      return text;
    std::error_code ignored;
    if (fs::exists(text, ignored)) return text;
    const std::string beside = (context_.folder / text).lexically_normal().string();
    if (!fs::exists(beside, ignored)) {
      if (beside != fs::path(text).lexically_normal()) all_missing().push_back({text, beside});
      return text;
    }
    log::info(concat(path(name), ": '", beside, "', as the working folder has no '", text, "'"));
    return beside;
  }

  template <class T, class Convert>
  void read_list(std::string_view name, std::vector<T>& value, const char* expected, const Convert& convert) {
    const Json* node = take(name);
    if (node == nullptr) return;
    if (node->is_array()) {
      inside_list_ = true;
      std::vector<T> read;
      for (std::size_t i = 0; i < node->size(); ++i)
        read.push_back(convert(concat(name, ".", i), (*node)[i]));
      value = std::move(read);
      inside_list_ = false;
    } else if (context_.set != nullptr && node->is_object() && node->size() == 1) {
      const int64_t index = element_index(name, node->begin().key(), static_cast<int64_t>(value.size()));
      value[static_cast<std::size_t>(index)] = convert(concat(name, ".", index), node->begin().value());
    } else {
      wrong(name, expected, *node);
    }
  }

  int64_t element_index(std::string_view name, const std::string& key, int64_t size) const {
    const bool digits =
        !key.empty() && key.size() < 10 && key.find_first_not_of("0123456789") == std::string::npos;
    const int64_t index = digits ? std::stoll(key) : -1;
    if (index < 0 || index >= size) {
      fail<ConfigError>(context_.source, ": ", path(name), ".", key, ": the list has ", size,
                        size == 1 ? " element" : " elements",
                        "; expected an index below that, or the whole list as JSON");
    }
    return index;
  }

  [[noreturn]] void unknown(const std::string& key) const {
    const std::vector<std::string> siblings(known_.begin(), known_.end());
    std::string meant;
    // The right key under the wrong group is as common a slip as a wrong letter, and the surer guess.
    for (const FieldLine& line : field_lines(context_.visit)) {
      const std::size_t dot = line.path.rfind('.');
      if (meant.empty() && dot != std::string::npos && line.path.substr(dot + 1) == key) meant = line.path;
    }
    if (meant.empty()) {
      meant = nearest(key, siblings);
      if (!meant.empty()) meant = path(meant);
    }
    fail<ConfigError>(context_.source, ": ", path(key), ": unknown key; ",
                      meant.empty() ? concat("known here: ", quoted_list(siblings))
                                    : concat("did you mean \"", meant, "\"?"));
  }

  const Json& node_;
  const Context& context_;
  std::set<std::string> known_;
  bool inside_list_ = false;
};

/// Builds the document from the parser's events and refuses what the JSON library would take in silence: a
/// key that stands twice in one object, a number so small that it becomes 0, and nesting without end.
class Document final : public nlohmann::json_sax<Json> {
 public:
  explicit Document(std::string source) : source_(std::move(source)) {}
  Json take() { return std::move(root_); }

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t& text) override {
    const std::string digits = text.substr(0, text.find_first_of("eE"));
    if (value == 0 && digits.find_first_of("123456789") != std::string::npos)
      fail<ConfigError>(where(), text,
                        " is too small for a number here and would become 0; write 0 where that is meant");
    return add(value);
  }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t&) override { return false; }
  bool start_object(std::size_t) override { return open(Json::object()); }
  bool start_array(std::size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& key) override {
    key_ = key;
    if (open_.back()->contains(key)) fail<ConfigError>(where(), "the key stands twice; keep one of them");
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception& error) override {
    // "[json.exception.parse_error.101] parse error at line 3, column 5: syntax error while ..." -> from
    // "line 3" on.
    std::string what = error.what();
    if (const std::size_t at = what.find("line "); at != std::string::npos) {
      what = what.substr(at);
    } else if (const std::size_t bracket = what.find("] "); bracket != std::string::npos) {
      what = what.substr(bracket + 2);
    }
    fail<ConfigError>(source_, ": ", what);
  }

 private:
  bool add(Json value) {
    place(std::move(value));
    return true;
  }
  bool open(Json value) {
    refuse_deeper<ConfigError>(open_.size(), source_);
    if (!open_.empty()) names_.push_back(name());
    open_.push_back(place(std::move(value)));
    return true;
  }
  bool close() {
    open_.pop_back();
    if (!names_.empty()) names_.pop_back();
    return true;
  }
  /// The last element of what is open; it stays where it is until that is closed.
  Json* place(Json value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    Json& parent = *open_.back();
    if (parent.is_object()) return &(parent[key_] = std::move(value));
    parent.push_back(std::move(value));
    return &parent.back();
  }
  /// Of the value that comes next.
  std::string name() const { return open_.back()->is_object() ? key_ : std::to_string(open_.back()->size()); }
  /// "FILE: path.to.value: "
  std::string where() const {
    std::string path;
    for (const std::string& outer : names_) path += outer + ".";
    return concat(source_, ": ", path, open_.empty() ? "" : name() + ": ");
  }

  std::string source_, key_;
  Json root_;
  std::vector<Json*> open_;         // objects and lists that have begun, the innermost last
  std::vector<std::string> names_;  // of all of these but the first
};

Json parse(std::string_view text, const std::string& source) {
  Document document(source);
  Json::sax_parse(text, &document, Json::input_format_t::json, true, true);
  return document.take();
}

void apply_override(const std::string& text, const Visit& visit, Written& written) {
  const std::string source = "--set " + text;
  const std::size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0) fail<ConfigError>(source, ": expected path.to.key=value");
  const std::string path = text.substr(0, equals);
  const Override set{text.substr(equals + 1)};

  Json node;
  // Text that is no JSON stands for itself.
  if (Json::accept(set.raw)) {
    node = parse(set.raw, source);
  } else {
    node = set.raw;
  }
  std::vector<std::string> steps;
  for (std::size_t begin = 0; begin <= path.size();) {
    const std::size_t end = std::min(path.find('.', begin), path.size());
    refuse_deeper<ConfigError>(steps.size(), source);
    steps.push_back(path.substr(begin, end - begin));
    if (steps.back().empty()) fail<ConfigError>(source, ": the path '", path, "' has an empty part");
    begin = end + 1;
  }
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    Json parent = Json::object();
    parent[*step] = std::move(node);
    node = std::move(parent);
  }
  const Context context{source, visit, written, {}, &set};
  Reader reader(node, "", context);
  visit(reader);
  reader.reject_unknown();
}

}  // namespace

void read_text(std::string_view json, const std::string& source, const std::vector<std::string>& overrides,
               const Visit& visit, const Visit& fresh, const std::filesystem::path& folder) {
  const Json root = parse(json, source);
  if (!root.is_object())
    fail<ConfigError>(source, ": expected an object { ... } at the top, got ", shown(root));
  Written written;
  const Context context{source, visit, written, folder};
  Reader reader(root, "", context);
  visit(reader);
  reader.reject_unknown();
  for (const std::string& text : overrides) apply_override(text, visit, written);
  for (const FieldLine& line : idle_lines(visit, fresh)) {
    if (const auto found = written.find(line.path); found != written.end())
      fail<ConfigError>(found->second, ": ", idle_text(line));
  }
}

std::string tried_too(std::string_view message) {
  for (const Missing& missing : all_missing()) {
    if (message.find(concat("'", missing.written, "'")) != std::string_view::npos)
      return concat("; there is no '", missing.beside, "' beside the configuration file either");
  }
  return "";
}

std::string file_text(const std::string& path) {
  if (path.empty()) return "{}";
  try {
    return ::focus::read_file(path);
  } catch (const DataError& error) {
    fail<ConfigError>("configuration file: ", error.what());
  }
}

}  // namespace focus::config
