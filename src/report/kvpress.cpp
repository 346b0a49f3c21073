#include "focus/report/kvpress.h"

#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "focus/core/error.h"
#include "focus/core/file.h"
#include "focus/report/run_summary.h"
#include "text.h"

namespace focus::report {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

/// The rows of answers.tsv by method, each by its columns.
std::map<std::string, std::vector<std::map<std::string, std::string>>> read_answers(const fs::path& run) {
  const fs::path path = run / "answers.tsv";
  if (!fs::exists(path))
    fail<DataError>("'", run.string(), "' holds no answers.tsv: the run asked for no needles (needles.size)");
  std::map<std::string, std::vector<std::map<std::string, std::string>>> rows;
  std::istringstream text(read_file(path));
  std::vector<std::string> header;
  for (std::string line; std::getline(text, line);) {
    if (line.starts_with("##")) continue;
    std::vector<std::string> fields;
    std::istringstream parts(line);
    for (std::string field; std::getline(parts, field, '\t');) fields.push_back(field);
    if (header.empty()) {
      header = fields;
      continue;
    }
    std::map<std::string, std::string> row;
    for (std::size_t i = 0; i < header.size() && i < fields.size(); ++i) row[header[i]] = fields[i];
    for (const char* column : {"method", "looks_at_question", "segment", "depth", "key", "value", "answer"}) {
      if (!row.contains(column)) fail<DataError>("'", path.string(), "' has a row without '", column, "'");
    }
    rows[row["method"]].push_back(std::move(row));
  }
  return rows;
}

/// RFC 4180: quoted where it must be.
std::string csv(const std::string& field) {
  if (field.find_first_of(",\"\n\r") == std::string::npos) return field;
  std::string out = "\"";
  for (const char c : field) out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + '"';
}

/// Every JSON text is YAML; settings of one value stand on a line each.
std::string yaml(const Json& object) {
  std::string text;
  for (const auto& [key, value] : object.items()) text += concat(key, ": ", value.dump(), "\n");
  return text;
}

Json number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

}  // namespace

void write_kvpress_folders(const fs::path& run, const fs::path& output) {
  const RunSummary summary = read_run_summary(run);
  const auto answers = read_answers(run);
  const MethodSummary* full = summary.find("full");
  const Json config = Json::parse(read_file(run / "summary.json")).at("config");
  for (const auto& [name, rows] : answers) {
    const MethodSummary* method = summary.find(name);
    if (method == nullptr)
      fail<DataError>("'", run.string(), "': answers.tsv has the method '", name, "', summary.json has not");
    const double held = static_cast<double>(method->kept_bytes + method->far_bytes);
    const double ratio = full != nullptr && full->kept_bytes > 0
                             ? 1 - held / static_cast<double>(full->kept_bytes)
                             : std::numeric_limits<double>::quiet_NaN();
    std::string predictions =
        "segment,depth,question,answer_prefix,answer,max_new_tokens,predicted_answer,compression_ratio\n";
    for (const auto& row : rows)
      predictions +=
          concat(csv(row.at("segment")), ",", row.at("depth"), ",", row.at("key"), ",,", row.at("value"), ",",
                 row.at("value").size(), ",", row.at("answer"), ",", exact(ratio), "\n");
    const auto share = [](const SummaryValue& value) {
      return Json{{"mean", number(value.mean)}, {"low", number(value.low)}, {"high", number(value.high)}};
    };
    const Json metrics = {{"exact_match", share(method->exact_match)},
                          {"base_accuracy", share(method->base_accuracy)},
                          {"questions", rows.size()},
                          {"kv_bytes", method->kept_bytes},
                          {"open_bytes", method->open_bytes},
                          {"far_bytes", method->far_bytes},
                          {"seconds", number(method->seconds)}};
    const auto text_of = [&](const char* key) {
      const auto found = summary.provenance.find(key);
      return found == summary.provenance.end() ? std::string() : found->second;
    };
    const Json settings = {{"dataset", "genome_niah"},
                           {"data_dir", text_of("fasta")},
                           {"model", text_of("model")},
                           {"device", text_of("device")},
                           {"press_name", name},
                           {"compression_ratio", number(ratio)},
                           {"query_aware", rows[0].at("looks_at_question") == "yes"},
                           {"max_new_tokens", rows[0].at("value").size()},
                           {"max_context_length", summary.length},
                           {"seed", text_of("seed")},
                           {"focus", config}};
    const fs::path folder = output / name;
    fs::create_directories(folder);
    write_file(folder / "predictions.csv", predictions);
    write_file(folder / "metrics.json", metrics.dump(2) + "\n");
    write_file(folder / "config.yaml", yaml(settings));
  }
}

}  // namespace focus::report
