#include "focus/config/differences.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "focus/core/error.h"

namespace focus::config {
namespace {

using Json = nlohmann::ordered_json;

Json parsed(const std::string& text) {
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) fail<ConfigError>("a configuration is malformed JSON");
  return json;
}

bool covered(const std::string& path, const std::vector<std::string>& ignored) {
  for (const std::string& whole : ignored) {
    if (path == whole || path.starts_with(whole + ".")) return true;
  }
  return false;
}

void compare(const Json& before, const Json& after, const std::string& path,
             const std::vector<std::string>& ignored, std::vector<std::string>& out) {
  if (covered(path, ignored)) return;
  const auto below = [&](const std::string& key) { return path.empty() ? key : path + "." + key; };
  if (before.is_object() && after.is_object()) {
    for (const auto& [key, node] : before.items())
      compare(node, after.value(key, Json()), below(key), ignored, out);
    for (const auto& [key, node] : after.items()) {
      if (!before.contains(key)) compare(Json(), node, below(key), ignored, out);
    }
  } else if (before.is_array() && after.is_array()) {
    for (std::size_t i = 0; i < std::max(before.size(), after.size()); ++i)
      compare(i < before.size() ? before[i] : Json(), i < after.size() ? after[i] : Json(),
              below(std::to_string(i)), ignored, out);
  } else if (before != after) {
    const auto shown = [](const Json& node) {
      return node.is_null() ? std::string("(absent)") : node.dump();
    };
    out.push_back(concat(path, ": ", shown(before), " -> ", shown(after)));
  }
}

}  // namespace

std::vector<std::string> differences(const std::string& before, const std::string& after,
                                     const std::vector<std::string>& ignored) {
  std::vector<std::string> out;
  compare(parsed(before), parsed(after), "", ignored, out);
  return out;
}

std::string with_defaults(const std::string& text, const std::string& defaults) {
  Json whole = parsed(defaults);
  whole.merge_patch(parsed(text));
  return whole.dump();
}

}  // namespace focus::config
