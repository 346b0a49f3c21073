// Settings without effect, as a struct's own field list names them: each must be refused where it is written.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "focus/config/field_lines.h"
#include "focus/core/error.h"

namespace focus::testing {

using Overrides = std::vector<std::string>;

/// Values to write into a field, as text.
inline std::vector<std::string> possible_values(const config::FieldLine& line) {
  if (line.type == "boolean") return {"true", "false"};
  if (line.type == "integer") return {"2", "3"};
  if (line.type == "number") return {"0.5", "0.25"};
  if (line.type == "text") return {"other"};
  if (line.type == "integers") return {"[1]", "[2]"};
  if (line.type == "texts") return {"[\"other\"]"};
  if (line.type == "named texts") return {"{\"label\": \"other\"}"};
  if (line.type == "list") return {"[{}]", "[{}, {}]"};
  std::vector<std::string> names;
  std::istringstream in(line.allowed);
  for (std::string name; std::getline(in, name, '|');) names.push_back(name);
  return names;
}

/// A value that the field does not have in a fresh struct.
inline std::string other_value(const config::FieldLine& line, const std::string& fresh) {
  for (const std::string& value : possible_values(line)) {
    const std::string shown = line.type == "list" ? (value == "[{}]" ? "1 element" : "2 elements") : value;
    if (shown != fresh && '"' + shown + '"' != fresh) return value;
  }
  return "";
}

/// For each of `states`, the overrides that make it of a fresh T: it survives writing and reading, and every
/// setting that has no effect in it is refused by its path when another value is written. In some state each
/// condition of T must fail.
template <class T>
void expect_idle_settings_refused(const std::vector<Overrides>& states) {
  std::set<std::string> clauses, failed;
  std::map<std::string, std::string> fresh;
  T defaults;
  for (const auto& line : config::field_lines(config::visiting(defaults))) fresh[line.pattern] = line.initial;
  for (const Overrides& state : states) {
    T value, again;
    ASSERT_NO_THROW(config::read_text("{}", "state", state, value));
    ASSERT_NO_THROW(config::read_text(config::to_json(value), "written", {}, again));
    EXPECT_EQ(config::to_json(again), config::to_json(value));
    for (const auto& line : config::field_lines(config::visiting(value), /*by_element=*/true)) {
      clauses.insert(line.only_if.begin(), line.only_if.end());
      if (line.unmet.empty() || line.type == "group") continue;
      const std::string setting = line.path + "=" + other_value(line, fresh.at(line.pattern));
      Overrides written = state;
      written.push_back(setting);
      std::string message = "accepted";
      try {
        again = defaults;
        config::read_text("{}", "state", written, again);
      } catch (const ConfigError& error) {
        message = error.what();
      }
      EXPECT_EQ(message, "--set " + setting + ": " + line.path + " has no effect unless " + line.unmet +
                             "; remove it");
      failed.insert(line.unmet);
    }
  }
  for (const std::string& clause : clauses)
    EXPECT_TRUE(failed.contains(clause)) << "no state in which it fails: " << clause;
}

}  // namespace focus::testing
