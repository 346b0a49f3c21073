// A flat YAML mapping read strictly: every key once, of its type and in its range, none left over. Errors
// name file, line and key.
#pragma once

#include <yaml-cpp/yaml.h>

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <type_traits>
#include <vector>

#include "focus/core/error.h"

namespace focus::model {

class YamlReader {
 public:
  YamlReader(const std::string& yaml, std::string source);

  bool has(const std::string& key) const { return lines_.contains(key); }

  template <class T>
  T get(const std::string& key) {
    if (!has(key)) fail<ConfigError>(source_, ": required key '", key, "' is missing");
    used_.insert(key);
    try {
      const T value = root_[key].as<T>();
      if constexpr (std::is_same_v<T, double>) {
        const std::string text = root_[key].Scalar(), digits = text.substr(0, text.find_first_of("eE"));
        if (value == 0 && digits.find_first_of("123456789") != std::string::npos)
          wrong(key, text, " is too small for a number here and would become 0");
      }
      return value;
    } catch (const YAML::Exception&) {
      wrong(key, "expected ", kind_of(T{}), ", got ", written(key));
    }
  }
  template <class T>
  T get(const std::string& key, T fallback) {
    return has(key) ? get<T>(key) : fallback;
  }
  /// An integer in 1..max; required unless `fallback` is positive.
  int64_t count(const std::string& key, int64_t max, int64_t fallback = 0);
  /// Refuses any value but one.
  template <class T>
  void only(const std::string& key, const T& supported, const char* why) {
    if (has(key) && get<T>(key) != supported)
      wrong(key, "only ", YAML::Dump(YAML::Node(supported)), " is supported, got ", written(key), ": ", why);
  }
  /// The same for a key that must be there, because the reference assumes another value where it is missing.
  template <class T>
  void only_and_required(const std::string& key, const T& supported, const char* why) {
    get<T>(key);
    only(key, supported, why);
  }
  /// Throws the ConfigError of a key; where a key is missing, of the value assumed for it.
  template <class... Args>
  [[noreturn]] void wrong(const std::string& key, const Args&... args) const {
    const auto found = lines_.find(key);
    fail<ConfigError>(source_, found == lines_.end() ? "" : concat(":", found->second), ": key '", key,
                      "': ", args...);
  }
  /// What the file says, on one line.
  std::string written(const std::string& key) const;
  /// Every key must have been read or be one of `ignored`.
  void finish(const std::set<std::string>& ignored) const;
  const std::string& source() const { return source_; }

 private:
  static const char* kind_of(int64_t) { return "an integer"; }
  static const char* kind_of(double) { return "a number"; }
  static const char* kind_of(bool) { return "True or False"; }
  static const char* kind_of(const std::string&) { return "text"; }
  static const char* kind_of(const std::vector<int64_t>&) { return "a list of layer numbers"; }

  std::string source_;
  YAML::Node root_;
  std::map<std::string, int> lines_;  // of every key in the file
  std::set<std::string> used_;
};

}  // namespace focus::model
