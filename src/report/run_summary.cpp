#include "focus/report/run_summary.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "digest.h"
#include "focus/core/error.h"
#include "focus/core/file.h"
#include "focus/core/json_depth.h"

namespace focus::report {
namespace {

using Json = nlohmann::json;

double number(const Json& value) {
  return value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>();
}

MethodSummary read_method(const Json& json, const std::string& scope) {
  MethodSummary method;
  method.name = json.at("name");
  method.description = json.at("description");
  method.kept_entries = json.at("kept_entries");
  method.kept_bytes = json.at("kept_bytes");
  method.open_bytes = json.at("open_bytes");
  method.far_bytes = json.at("far_bytes");
  method.seconds = number(json.at("seconds"));
  method.recall = method.recall_low = method.recall_high = std::numeric_limits<double>::quiet_NaN();
  if (json.contains("recall")) {  // earlier versions had none
    method.recall = number(json.at("recall").at("share"));
    method.recall_low = number(json.at("recall").at("interval").at(0));
    method.recall_high = number(json.at("recall").at("interval").at(1));
  }
  method.effective_length = json.contains("effective_length") ? number(json.at("effective_length"))
                                                              : std::numeric_limits<double>::quiet_NaN();
  const auto answers = [&](const std::string& name) {
    constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
    if (!json.contains("needles")) return SummaryValue{kNan, kNan, kNan};
    const Json& needles = json.at("needles");
    const Json& interval = needles.at(name + "_interval");
    return SummaryValue{number(needles.at(name)), number(interval.at(0)), number(interval.at(1))};
  };
  method.exact_match = answers("exact_match");
  method.base_accuracy = answers("base_accuracy");
  for (const auto& [name, value] : json.at("scopes").at(scope).items()) {
    if (name == "recovered") {
      method.recovered = number(value.at("share"));
      method.recovered_low = number(value.at("interval").at(0));
      method.recovered_high = number(value.at("interval").at(1));
      continue;
    }
    method.measures[name] = {.mean = number(value.at("mean")),
                             .low = number(value.at("mean_interval").at(0)),
                             .high = number(value.at("mean_interval").at(1)),
                             .median = number(value.at("median")),
                             .q25 = number(value.at("q25")),
                             .q75 = number(value.at("q75")),
                             .p99 = number(value.at("p99")),
                             .max = number(value.at("max")),
                             .count = value.at("count")};
  }
  return method;
}

}  // namespace

const MethodSummary* RunSummary::find(const std::string& method) const {
  const auto found =
      std::find_if(methods.begin(), methods.end(), [&](const auto& m) { return m.name == method; });
  return found == methods.end() ? nullptr : &*found;
}

bool RunSummary::is_random() const {
  const MethodSummary* full = find("full");
  if (full == nullptr) return false;
  const auto entropy = full->measures.find("cross_entropy");
  return entropy != full->measures.end() && report::is_random(entropy->second.mean);
}

RunSummary read_run_summary(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "summary.json";
  if (!std::filesystem::exists(path))
    fail<DataError>("'", folder.string(), "' holds no summary.json; name the folder of a fidelity run");
  try {
    const Json json = Json::parse(read_file(path), DepthWatch<DataError>{path.string()});
    RunSummary run;
    run.window = json.at("window");
    run.kmer = json.at("kmer");
    run.length = json.at("length");
    run.crosses_boundary = json.at("crosses_boundary");
    run.main_scope = json.at("main_scope");
    run.subject = json.value("subject", std::string());
    run.copied_positions = json.value("copied_positions", int64_t{0});
    for (const Json& method : json.at("methods")) run.methods.push_back(read_method(method, run.main_scope));
    for (const Json& segment : json.at("segments")) {
      run.segments.push_back(
          concat(segment.at("name").get<std::string>(), ":", segment.at("begin").get<int64_t>()));
      for (MethodSummary& method : run.methods)
        method.segment_kl.push_back(number(segment.at("kl").at(method.name)));
    }
    run.provenance = json.at("provenance");
    return run;
  } catch (const Json::exception& error) {
    fail<DataError>("'", path.string(), "' is no summary of a fidelity run: ", error.what());
  }
}

}  // namespace focus::report
