#include "expectation.h"

#include <nlohmann/json.hpp>

#include "focus/core/error.h"
#include "focus/core/file.h"

namespace focus::tools {
namespace {

using Json = nlohmann::json;

Json read_json(const std::filesystem::path& path) {
  std::string text;
  try {
    text = read_file(path);
  } catch (const DataError& e) {
    fail<ConfigError>("expectations: ", e.what(), "; name the file with --expectations, or give --loss and --tolerance");
  }
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false, /*ignore_comments=*/true);
  if (!json.is_object()) fail<ConfigError>("'", path.string(), "': expected a JSON object of expectations by name");
  return json;
}

}  // namespace

Expectation read_expectation(const std::filesystem::path& path, const std::string& name) {
  const Json json = read_json(path);
  if (!json.contains(name)) {
    std::string known;
    for (const auto& item : json.items()) known += (known.empty() ? "" : ", ") + item.key();
    fail<ConfigError>("'", path.string(), "' has no expectation '", name, "'; known: ", known);
  }
  const Json& entry = json[name];
  if (!entry.is_object()) fail<ConfigError>("'", path.string(), "': ", name, ": expected an object with loss and tolerance");
  Expectation out{.name = name, .loss = 0, .tolerance = 0, .accuracy = std::nullopt};
  const auto number = [&](const std::string& key, double least, double most) {
    if (!entry.contains(key)) fail<ConfigError>("'", path.string(), "': ", name, ".", key, " is missing");
    if (!entry[key].is_number() || entry[key].get<double>() < least || entry[key].get<double>() > most)
      fail<ConfigError>("'", path.string(), "': ", name, ".", key, " is ", entry[key].dump(), ", expected a number from ", least, " to ",
                        most);
    return entry[key].get<double>();
  };
  for (const auto& item : entry.items()) {
    if (item.key() != "loss" && item.key() != "tolerance" && item.key() != "accuracy")
      fail<ConfigError>("'", path.string(), "': unknown key ", name, ".", item.key(), "; known: loss, tolerance, accuracy");
  }
  out.loss = number("loss", 0, 1e6);
  out.tolerance = number("tolerance", 0, 1e6);
  if (entry.contains("accuracy")) out.accuracy = number("accuracy", 0, 1);
  return out;
}

}  // namespace focus::tools
