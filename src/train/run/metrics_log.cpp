#include "focus/train/run/metrics_log.h"

#include <nlohmann/json.hpp>

#include "focus/core/error.h"
#include "focus/core/file.h"
#include "focus/core/json_depth.h"
#include "run/record_file.h"
#include "run/record_json.h"

namespace focus::train {
namespace {

using Json = nlohmann::ordered_json;

std::string lines_up_to(const std::filesystem::path& path, int64_t last_step) {
  const std::string text = read_file(path);
  std::string kept;
  int64_t number = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t newline = text.find('\n', begin);
    if (newline == std::string::npos) break;  // torn: the process died while writing it
    const std::string line = text.substr(begin, newline + 1 - begin);
    begin = newline + 1;
    ++number;
    const Json json = Json::parse(line, DepthWatch<DataError>{path.string()}, false);
    if (!json.is_object() || !json.contains("step") || !json["step"].is_number_integer()) {
      if (begin == text.size()) break;
      fail<DataError>(
          "'", path.string(), "', line ", number,
          ": expected a JSON object with a whole-number \"step\"; move the file away to resume without it");
    }
    if (json["step"].get<int64_t>() <= last_step) kept += line;
  }
  return kept;
}

}  // namespace

MetricsLog::MetricsLog(const std::filesystem::path& path, std::optional<int64_t> resumed_step) {
  const bool goes_on = resumed_step && std::filesystem::exists(path);
  file_ = std::make_unique<RecordFile>(path, goes_on ? lines_up_to(path, *resumed_step) : "");
}

MetricsLog::~MetricsLog() = default;

void MetricsLog::write(int64_t step, const MetricFields& fields) {
  Json json = {{"step", step}};
  for (const auto& [name, value] : fields) {
    FOCUS_CHECK(!json.contains(name), "metric '", name, "' is given twice");
    json[name] = record_to_json<Json>(value);
  }
  file_->append(json.dump(-1, ' ', false, Json::error_handler_t::replace) + '\n');
}

void MetricsLog::sync() { file_->sync(); }

}  // namespace focus::train
