#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "focus/core/error.h"
#include "focus/core/file.h"
#include "focus/core/units.h"
#include "focus/core/version.h"
#include "focus/report/calibration.h"
#include "text.h"

namespace focus::report {
namespace {

using Json = nlohmann::ordered_json;
using Row = std::vector<std::string>;

std::string interval(const metrics::Interval& i, std::string (*text)(double)) {
  return std::isnan(i.low) ? "\u2013" : concat(text(i.low), " .. ", text(i.high));
}

std::string rank_text(const KeyRank& rank) {
  const auto tenths = [](double value) { return std::round(10 * value) / 10; };
  return concat(tenths(rank.participation), " (", tenths(rank.for_90), ", ", tenths(rank.for_99), ")");
}

std::vector<Row> block_rows(const CalibrationResult& result) {
  std::vector<Row> rows{{"block", "KL of forgetting", "95% interval", "letters explain", "residual, nats",
                         "rank (90 %, 99 %) of keys", "rotated", "chosen"}};
  for (const BlockCalibration& block : result.blocks) {
    std::string chosen;
    for (const BlockMemory& memory : block.memories) chosen = memory.chosen ? memory.name : chosen;
    rows.push_back({std::to_string(block.block), rounded(block.forgetting.kl),
                    interval(block.forgetting.kl_interval, rounded), percent(block.explained),
                    rounded(block.residual), rank_text(block.before), rank_text(block.after), chosen});
  }
  return rows;
}

std::vector<Row> memory_rows(const CalibrationResult& result) {
  std::vector<Row> rows{{"block", "memory", "KL", "R", "95% interval", "kept", "open", "far", ""}};
  for (const BlockCalibration& block : result.blocks) {
    for (const BlockMemory& memory : block.memories) {
      const MemoryFigures& f = memory.figures;
      rows.push_back({std::to_string(block.block), memory.name, rounded(f.kl), percent(f.recovered.share),
                      interval(f.recovered.interval, percent), format_bytes(memory.kept_bytes),
                      format_bytes(memory.open_bytes), format_bytes(memory.far_bytes),
                      !memory.refused.empty() ? "refused: " + memory.refused
                      : memory.chosen         ? "chosen"
                                              : ""});
    }
  }
  return rows;
}

std::vector<Row> plan_rows(const CalibrationResult& result) {
  std::vector<Row> rows{{"the plan", "segments", "KL", "KL of forgetting all", "R", "95% interval"}};
  const auto add = [&](const char* what, const PlanFigures& f) {
    rows.push_back({what, std::to_string(f.segments), rounded(f.plan.kl), rounded(f.state_only.kl),
                    percent(f.plan.recovered.share), interval(f.plan.recovered.interval, percent)});
  };
  rows.push_back({"if losses added up", "", "", "", percent(result.predicted), ""});
  add("on the segments that chose", result.choosing);
  add("on others", result.judging);
  return rows;
}

std::string bytes_text(const CalibrationResult& result) {
  return concat("The plan holds ", format_bytes(result.kept_bytes), " kept, ",
                format_bytes(result.open_bytes), " of the open window and ", format_bytes(result.far_bytes),
                " of far memory after ", format_count(result.at_length), " bases.");
}

std::string aligned(const std::vector<Row>& rows) {
  std::vector<std::size_t> widths(rows[0].size(), 0);
  for (const Row& row : rows) {
    for (std::size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], width_of(row[c]));
  }
  std::string out;
  for (const Row& row : rows) {
    std::string line;
    for (std::size_t c = 0; c < row.size(); ++c)
      line += row[c] + std::string(widths[c] - width_of(row[c]) + 2, ' ');
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  }
  return out;
}

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '&')
      out += "&amp;";
    else
      out += c;
  }
  return out;
}

std::string html_table(const std::vector<Row>& rows) {
  std::string out = "<table>\n";
  for (std::size_t r = 0; r < rows.size(); ++r) {
    const char* cell = r == 0 ? "th" : "td";
    out += "<tr>";
    for (const std::string& text : rows[r]) out += concat("<", cell, ">", escaped(text), "</", cell, ">");
    out += "</tr>\n";
  }
  return out + "</table>\n";
}

std::string page(const CalibrationResult& result) {
  std::string origin;
  for (const auto& [key, value] : result.provenance) origin += concat(key, ": ", value, "\n");
  return concat(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>focus: "
      "calibration</title>\n"
      "<style>body{font:15px system-ui,sans-serif;margin:2em auto;max-width:75em;padding:0 1em}"
      "table{border-collapse:collapse;margin:1em 0}th,td{padding:.25em .7em;border-bottom:1px solid #8886;"
      "text-align:left}pre{background:#8881;padding:1em;overflow:auto}</style>\n</head>\n<body>\n"
      "<h1>Calibration</h1>\n<p>",
      escaped(bytes_text(result)), "</p>\n", html_table(plan_rows(result)),
      "<h2>Attention blocks</h2>\n<p>Each forgets alone; all others keep everything.</p>\n",
      html_table(block_rows(result)), "<h2>Memories in one block alone</h2>\n",
      html_table(memory_rows(result)), "<h2>The plan as settings</h2>\n<pre>", escaped(result.memory_json),
      "</pre>\n<h2>Origin</h2>\n<pre>", escaped(origin), "</pre>\n<h2>Configuration</h2>\n<pre>",
      escaped(result.config_json), "</pre>\n</body>\n</html>\n");
}

std::string preamble(const CalibrationResult& result) {
  std::string text =
      concat("##focus=", version_line(), "\n##window=", result.window, "\n##kmer=", result.kmer,
             "\n##length=", result.length, "\n##at_length=", result.at_length, "\n");
  for (const auto& [key, value] : result.provenance) {
    text += "##" + key + "=";
    for (const char c : value) text += c == '\n' || c == '\r' ? ' ' : c;
    text += "\n";
  }
  return text;
}

std::string tsv_of(const std::vector<Row>& rows) {
  std::string out;
  for (const Row& row : rows) {
    for (std::size_t c = 0; c < row.size(); ++c) out += (c > 0 ? "\t" : "") + row[c];
    out += "\n";
  }
  return out;
}

Row figure_cells(const MemoryFigures& f) {
  return {exact(f.kl),
          exact(f.kl_interval.low),
          exact(f.kl_interval.high),
          exact(f.recovered.share),
          exact(f.recovered.interval.low),
          exact(f.recovered.interval.high)};
}

std::string summary_tsv(const CalibrationResult& result) {
  std::vector<Row> rows{{"block", "memory", "kl", "kl_low", "kl_high", "recovered", "recovered_low",
                         "recovered_high", "kept_bytes", "open_bytes", "far_bytes", "chosen", "refused"}};
  const auto add = [&](const std::string& block, const std::string& name, const MemoryFigures& figures,
                       const Row& rest) {
    Row row{block, name};
    const Row cells = figure_cells(figures);
    row.insert(row.end(), cells.begin(), cells.end());
    row.insert(row.end(), rest.begin(), rest.end());
    rows.push_back(std::move(row));
  };
  for (const BlockCalibration& block : result.blocks) {
    for (const BlockMemory& m : block.memories)
      add(std::to_string(block.block), m.name, m.figures,
          {std::to_string(m.kept_bytes), std::to_string(m.open_bytes), std::to_string(m.far_bytes),
           m.chosen ? "1" : "0", m.refused});
  }
  const Row plan_bytes{std::to_string(result.kept_bytes), std::to_string(result.open_bytes),
                       std::to_string(result.far_bytes), "1", ""};
  add("all", "plan.choosing", result.choosing.plan, plan_bytes);
  add("all", "plan.judging", result.judging.plan, plan_bytes);
  return preamble(result) + tsv_of(rows);
}

std::string blocks_tsv(const CalibrationResult& result) {
  std::vector<Row> rows{{"block", "forgetting_kl", "forgetting_kl_low", "forgetting_kl_high", "explained",
                         "residual", "participation", "for_90", "for_99", "rotated_participation",
                         "rotated_for_90", "rotated_for_99"}};
  for (const BlockCalibration& b : result.blocks) {
    Row row{std::to_string(b.block)};
    for (const double value : {b.forgetting.kl, b.forgetting.kl_interval.low, b.forgetting.kl_interval.high,
                               b.explained, b.residual, b.before.participation, b.before.for_90,
                               b.before.for_99, b.after.participation, b.after.for_90, b.after.for_99})
      row.push_back(exact(value));
    rows.push_back(std::move(row));
  }
  return preamble(result) + tsv_of(rows);
}

Json number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }
Json interval_json(const metrics::Interval& i) { return Json::array({number(i.low), number(i.high)}); }
Json figures_json(const MemoryFigures& f) {
  return {{"kl", number(f.kl)},
          {"kl_interval", interval_json(f.kl_interval)},
          {"recovered", number(f.recovered.share)},
          {"recovered_interval", interval_json(f.recovered.interval)}};
}
Json rank_json(const KeyRank& rank) {
  return {{"participation", number(rank.participation)},
          {"for_90", number(rank.for_90)},
          {"for_99", number(rank.for_99)}};
}
Json plan_json(const PlanFigures& f) {
  return {
      {"segments", f.segments}, {"plan", figures_json(f.plan)}, {"state_only", figures_json(f.state_only)}};
}

Json summary_of(const CalibrationResult& result) {
  Json root{{"focus", version_line()},       {"window", result.window},       {"kmer", result.kmer},
            {"length", result.length},       {"at_length", result.at_length}, {"min_r", result.min_r},
            {"max_bytes", result.max_bytes}, {"blocks", Json::array()}};
  for (const BlockCalibration& b : result.blocks) {
    Json block{{"block", b.block},
               {"explained", number(b.explained)},
               {"residual", number(b.residual)},
               {"key_rank", rank_json(b.before)},
               {"rotated_key_rank", rank_json(b.after)},
               {"forgetting", figures_json(b.forgetting)},
               {"memories", Json::array()}};
    for (const BlockMemory& m : b.memories)
      block["memories"].push_back({{"name", m.name},
                                   {"description", m.description},
                                   {"figures", figures_json(m.figures)},
                                   {"kept_bytes", m.kept_bytes},
                                   {"open_bytes", m.open_bytes},
                                   {"far_bytes", m.far_bytes},
                                   {"chosen", m.chosen},
                                   {"refused", m.refused}});
    root["blocks"].push_back(std::move(block));
  }
  root["plan"] = {{"predicted", number(result.predicted)},    {"choosing", plan_json(result.choosing)},
                  {"judging", plan_json(result.judging)},     {"kept_bytes", result.kept_bytes},
                  {"open_bytes", result.open_bytes},          {"far_bytes", result.far_bytes},
                  {"memory", Json::parse(result.memory_json)}};
  root["provenance"] = result.provenance;
  root["config"] = Json::parse(result.config_json);
  return root;
}

}  // namespace

std::string calibration_table(const CalibrationResult& result) {
  return concat(result.choosing.segments, " segment(s) of ", format_count(result.length), " bases, window ",
                format_count(result.window), ", k ", format_count(result.kmer), "\n\n",
                aligned(block_rows(result)), "\n", aligned(memory_rows(result)), "\n",
                aligned(plan_rows(result)), bytes_text(result), "\n");
}

void write_calibration_report(const CalibrationResult& result, const std::filesystem::path& folder) {
  write_file(folder / "summary.tsv", summary_tsv(result));
  write_file(folder / "blocks.tsv", blocks_tsv(result));
  write_file(folder / "report.html", page(result));
  write_file(folder / "memory.json", result.memory_json + "\n");
  write_file(folder / "summary.json",
             summary_of(result).dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

}  // namespace focus::report
