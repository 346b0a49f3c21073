#include <algorithm>
#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <set>

#include "focus/core/error.h"
#include "focus/core/json_depth.h"
#include "focus/eval/sweep.h"

namespace focus::eval {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kMostValues = 10000;

std::string joined(const std::vector<std::string>& parts) {
  std::string out;
  for (const std::string& part : parts) out += (out.empty() ? "" : ", ") + part;
  return out;
}

/// Refuses a key that stands twice in one object, which the JSON library takes in silence.
struct KeyWatch {
  DepthWatch<ConfigError> depth;
  std::vector<std::set<std::string>> open = {};
  bool operator()(int level, Json::parse_event_t event, const Json& parsed) {
    depth(level, event, parsed);
    if (event == Json::parse_event_t::object_start) open.emplace_back();
    if (event == Json::parse_event_t::object_end) open.pop_back();
    if (event == Json::parse_event_t::key && !open.back().insert(parsed.get<std::string>()).second)
      fail<ConfigError>(depth.where, ": ", parsed.get<std::string>(),
                        ": the key stands twice; keep one of them");
    return true;
  }
};

Json parse(const std::string& text, const std::string& source) {
  try {
    return Json::parse(text, KeyWatch{{source}}, /*allow_exceptions=*/true, /*ignore_comments=*/true);
  } catch (const Json::parse_error& error) {
    const std::string what = error.what();
    const std::size_t line = what.find("line ");
    fail<ConfigError>(source, ": ", line == std::string::npos ? what : what.substr(line));
  }
}

/// {"from": 25, "to": 400, "factor": 2} as a list.
Json range(const Json& object, const std::string& where) {
  const auto refuse = [&](const std::string& why) {
    fail<ConfigError>(where, ": ", why, "; expected {\"from\": a, \"to\": b} with \"step\" or \"factor\"");
  };
  for (const auto& [key, value] : object.items()) {
    if (key != "from" && key != "to" && key != "step" && key != "factor") refuse(concat("unknown key '", key, "'"));
    if (!value.is_number()) refuse(concat("'", key, "' is no number"));
  }
  if (!object.contains("from") || !object.contains("to") ||
      object.contains("step") == object.contains("factor"))
    refuse("the range is not whole");
  const bool by_step = object.contains("step");
  const double from = object["from"], to = object["to"], by = by_step ? object["step"] : object["factor"];
  const bool whole =
      std::all_of(object.begin(), object.end(), [](const Json& v) { return v.is_number_integer(); });
  if (by_step ? by <= 0 : (by <= 1 || from <= 0)) refuse("the range does not grow");
  Json list = Json::array();
  constexpr double kRounding = 1e-9;
  for (int64_t i = 0;; ++i) {
    const auto n = static_cast<double>(i);
    const double value = by_step ? from + n * by : from * std::pow(by, n);
    if (value > to + kRounding * std::abs(to)) break;
    if (i == kMostValues) refuse(concat("more than ", kMostValues, " values"));
    list.push_back(whole ? Json(std::llround(value)) : Json(value));
  }
  return list;
}

SweepAxis axis(const std::string& name, Json values, const std::string& source) {
  const std::string where = concat(source, ": sweep.", name);
  SweepAxis out;
  for (std::size_t begin = 0; begin <= name.size();) {
    const std::size_t end = std::min(name.find(',', begin), name.size());
    std::string key = name.substr(begin, end - begin);
    key.erase(0, key.find_first_not_of(' '));
    key.erase(key.find_last_not_of(' ') + 1);
    if (key.empty()) fail<ConfigError>(where, ": a setting's name is empty");
    out.keys.push_back(key);
    begin = end + 1;
  }
  if (values.is_string()) values = parse(values.get<std::string>(), where);  // of a resolved configuration
  if (values.is_object()) values = range(values, where);
  if (!values.is_array() || values.empty())
    fail<ConfigError>(where, ": expected a list of values, or a range {\"from\": a, \"to\": b, \"step\": c}");
  std::set<std::string> seen;
  for (const Json& value : values) {
    if (!seen.insert(value.dump()).second)
      fail<ConfigError>(where, ": the value ", value.dump(), " stands twice");
    std::vector<std::string>& row = out.values.emplace_back();
    if (out.keys.size() == 1) {
      row.push_back(value.dump());
      continue;
    }
    if (!value.is_array() || value.size() != out.keys.size())
      fail<ConfigError>(where, ": each value is a list of ", out.keys.size(), ", one per setting; got ",
                        value.dump());
    for (const Json& part : value) row.push_back(part.dump());
  }
  return out;
}

}  // namespace

void SweepTrainConfig::visit(config::Fields& f) {
  f.file("config", config, "configuration of focus-train; empty = nothing is trained");
  f.only(f.when(!config.empty(), "config", "is set"))
      .texts("set", set, "overrides of it, each \"path.to.key=value\"");
}

void SweepConfig::visit(config::Fields& f) {
  evaluation.visit(f);
  std::map<std::string, std::string> grid;
  for (const SweepAxis& axis : axes) {
    std::string& text = grid[joined(axis.keys)];
    for (const auto& value : axis.values) {
      const std::string one = axis.keys.size() == 1 ? value[0] : concat("[", joined(value), "]");
      text += concat(text.empty() ? "[" : ", ", one);
    }
    text += ']';
  }
  f.named_files("sweep", grid,
                "the grid: {\"setting\": [values], or {\"from\": a, \"to\": b, \"step\" or \"factor\": c}}; "
                "\"train.\" and \"eval.\" before a setting restrict it to one of the two");
  f.group("train", train, "each cell trains an adapter first, its method 'focus'");
  f.number("scale", scale, {1e-6, 1}, "of segments and training steps: a quick look at a large protocol");
  f.integer("cached_logits", cached_logits, {0, int64_t{1} << 50},
            "bytes of memory for full memory's logits, which cells over the same segments share; 0 = none");
}

SweepConfig read_sweep_config(const std::string& path, const std::vector<std::string>& overrides) {
  const std::string source = path.empty() ? "the configuration" : path;
  Json root = parse(config::file_text(path), source);
  if (!root.is_object()) fail<ConfigError>(source, ": expected an object { ... } at the top");
  Json grid = root.value("sweep", Json::object());
  root.erase("sweep");
  std::vector<std::string> others;
  for (const std::string& text : overrides) {
    const std::string set = concat("--set ", text);
    if (text.starts_with("sweep=")) {
      grid = parse(text.substr(6), set);
    } else if (text.starts_with("sweep.")) {
      const std::size_t equals = text.find('=');
      if (equals == std::string::npos) fail<ConfigError>(set, ": expected sweep.SETTING=[values]");
      grid[text.substr(6, equals - 6)] = parse(text.substr(equals + 1), set);
    } else {
      others.push_back(text);
    }
  }
  if (!grid.is_object())
    fail<ConfigError>(source, ": sweep: expected an object of settings and their values");
  SweepConfig config;
  config::read_text(root.dump(), source, others, config, std::filesystem::path(path).parent_path());
  std::set<std::string> seen;
  for (const auto& [name, values] : grid.items()) {
    config.axes.push_back(axis(name, values, source));
    for (const std::string& key : config.axes.back().keys) {
      if (!seen.insert(key).second) fail<ConfigError>(source, ": sweep: '", key, "' stands twice");
    }
  }
  return config;
}

}  // namespace focus::eval
