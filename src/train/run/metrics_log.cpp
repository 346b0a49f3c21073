#include "focus/train/run/metrics_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "focus/core/error.h"
#include "focus/core/file.h"
#include "run/append.h"
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
    const Json json = Json::parse(line, nullptr, false);
    if (!json.is_object() || !json.contains("step") || !json["step"].is_number_integer()) {
      if (begin == text.size()) break;
      fail<DataError>("'", path.string(), "', line ", number,
                      ": expected a JSON object with a whole-number \"step\"; move the file away to resume without it");
    }
    if (json["step"].get<int64_t>() <= last_step) kept += line;
  }
  return kept;
}

}  // namespace

MetricsLog::MetricsLog(std::filesystem::path path, std::optional<int64_t> resumed_step) : path_(std::move(path)) {
  write_file(path_, resumed_step && std::filesystem::exists(path_) ? lines_up_to(path_, *resumed_step) : "");
  fd_ = ::open(path_.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  if (fd_ < 0) fail<DataError>("cannot append to '", path_.string(), "': ", std::strerror(errno));
}

MetricsLog::~MetricsLog() { ::close(fd_); }

void MetricsLog::write(int64_t step, const MetricFields& fields) {
  Json json = {{"step", step}};
  for (const auto& [name, value] : fields) {
    FOCUS_CHECK(!json.contains(name), "metric '", name, "' is given twice");
    json[name] = record_to_json<Json>(value);
  }
  append_whole(fd_, path_, json.dump(-1, ' ', false, Json::error_handler_t::replace) + '\n');
}

void MetricsLog::sync() { sync_file(fd_, path_); }

}  // namespace focus::train
