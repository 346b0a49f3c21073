#include <cmath>
#include <nlohmann/json.hpp>
#include <string>

#include "focus/config/fields.h"
#include "focus/core/error.h"

namespace focus::config {
namespace {

using Json = nlohmann::ordered_json;

class Writer final : public Fields {
 public:
  Writer(Json& node, std::string prefix) : Fields(std::move(prefix)), node_(node) {}

  void boolean(std::string_view name, bool& value, std::string_view) override { put(name, value); }
  void integer(std::string_view name, int64_t& value, IntegerRange, std::string_view) override {
    put(name, value);
  }
  void number(std::string_view name, double& value, NumberRange, std::string_view) override {
    FOCUS_CHECK(std::isfinite(value), "'", path(name), "' is not finite, which JSON cannot hold");
    put(name, value);
  }
  void text(std::string_view name, std::string& value, std::string_view) override { put(name, value); }
  void integers(std::string_view name, std::vector<int64_t>& value, IntegerRange, std::string_view) override {
    put(name, value);
  }
  void texts(std::string_view name, std::vector<std::string>& value, std::string_view) override {
    put(name, value);
  }
  void named_files(std::string_view name, std::map<std::string, std::string>& value,
                   std::string_view) override {
    Json child = Json::object();
    for (const auto& [key, text] : value) child[key] = text;
    put(name, std::move(child));
  }

 protected:
  void choose(std::string_view name, int64_t& index, const std::vector<std::string>& names,
              std::string_view) override {
    FOCUS_CHECK(index >= 0, "the value of '", path(name), "' is none of its choices");
    put(name, names[static_cast<std::size_t>(index)]);
  }
  void nest(std::string_view name, const Visit& visit, std::string_view) override {
    Json child = Json::object();
    Writer inner(child, concat(path(name), "."));
    visit(inner);
    put(name, std::move(child));
  }
  void each(std::string_view name, int64_t size, const std::function<void(int64_t)>&,
            const std::function<void(int64_t, Fields&)>& visit, std::string_view) override {
    Json children = Json::array();
    for (int64_t i = 0; i < size; ++i) {
      Json child = Json::object();
      Writer inner(child, concat(path(name), ".", i, "."));
      visit(i, inner);
      children.push_back(std::move(child));
    }
    put(name, std::move(children));
  }

 private:
  template <class T>
  void put(std::string_view name, T&& value) {
    const std::string key(name);
    FOCUS_CHECK(!node_.contains(key), "field '", path(key), "' is listed twice");
    node_[key] = std::forward<T>(value);
  }

  Json& node_;
};

/// As dump(2), but lists of plain values stay on one line.
void print(const Json& node, const std::string& indent, std::string& out) {
  const bool is_list = node.is_array();
  bool nested = node.is_object();
  for (const Json& child : node) nested = nested || child.is_structured();
  if (node.empty() && node.is_structured()) {
    out += is_list ? "[]" : "{}";
  } else if (!node.is_structured()) {
    out += node.dump();
  } else {
    const std::string inner = indent + "  ";
    const char* separator = "";
    out += is_list ? '[' : '{';
    for (const auto& [key, child] : node.items()) {
      out += separator;
      if (nested) out += '\n' + inner;
      if (!is_list) out += Json(key).dump() + ": ";
      print(child, inner, out);
      separator = nested ? "," : ", ";
    }
    if (nested) out += '\n' + indent;
    out += is_list ? ']' : '}';
  }
}

}  // namespace

std::string to_json(const Visit& visit) {
  Json root = Json::object();
  Writer writer(root, "");
  visit(writer);
  std::string out;
  try {
    print(root, "", out);
  } catch (const Json::exception& error) {
    fail<ConfigError>("a text value cannot be written as JSON (is it valid UTF-8?): ", error.what());
  }
  return out + '\n';
}

}  // namespace focus::config
