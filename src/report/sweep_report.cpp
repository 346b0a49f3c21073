#include "focus/report/sweep_report.h"

#include <cmath>
#include <cstdlib>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "focus/core/error.h"
#include "focus/core/file.h"
#include "focus/core/version.h"
#include "multiqc.h"
#include "text.h"

namespace focus::report {

extern const std::string_view kSweepPage;  // sweep.html, made a string by CMakeLists.txt

namespace {

using Json = nlohmann::ordered_json;

/// A column behind the grid's settings: text, or a number that is NaN where there is none.
struct Column {
  const char* name;
  std::string (*text)(const SweepCell&, const MethodSummary&);
};

double measure(const MethodSummary& m, const char* name, double SummaryValue::* value) {
  const auto found = m.measures.find(name);
  return found == m.measures.end() ? std::numeric_limits<double>::quiet_NaN() : found->second.*value;
}

std::string mean(const MethodSummary& m, const char* name) {
  return exact(measure(m, name, &SummaryValue::mean));
}

const std::vector<Column>& columns() {
  using C = const SweepCell&;
  using M = const MethodSummary&;
  static const std::vector<Column> all = {
      {"method", [](C, M m) { return m.name; }},
      {"recovered", [](C, M m) { return exact(m.recovered); }},
      {"recovered_low", [](C, M m) { return exact(m.recovered_low); }},
      {"recovered_high", [](C, M m) { return exact(m.recovered_high); }},
      {"kl", [](C, M m) { return mean(m, "kl"); }},
      {"kl_low", [](C, M m) { return exact(measure(m, "kl", &SummaryValue::low)); }},
      {"kl_high", [](C, M m) { return exact(measure(m, "kl", &SummaryValue::high)); }},
      {"recall", [](C, M m) { return exact(m.recall); }},
      {"recall_low", [](C, M m) { return exact(m.recall_low); }},
      {"recall_high", [](C, M m) { return exact(m.recall_high); }},
      {"kept_bytes", [](C, M m) { return std::to_string(m.kept_bytes); }},
      {"scope", [](C c, M) { return c.run->main_scope; }},
      {"window", [](C c, M) { return std::to_string(c.run->window); }},
      {"kmer", [](C c, M) { return std::to_string(c.run->kmer); }},
      {"segments", [](C c, M) { return std::to_string(c.run->segments.size()); }},
      {"length", [](C c, M) { return std::to_string(c.run->length); }},
      {"kl_median", [](C, M m) { return exact(measure(m, "kl", &SummaryValue::median)); }},
      {"kl_p99", [](C, M m) { return exact(measure(m, "kl", &SummaryValue::p99)); }},
      {"l2", [](C, M m) { return mean(m, "l2"); }},
      {"l2_median", [](C, M m) { return exact(measure(m, "l2", &SummaryValue::median)); }},
      {"js", [](C, M m) { return mean(m, "js"); }},
      {"cross_entropy", [](C, M m) { return mean(m, "cross_entropy"); }},
      {"delta_cross_entropy", [](C, M m) { return mean(m, "delta_cross_entropy"); }},
      {"top1_agreement", [](C, M m) { return mean(m, "top1_agreement"); }},
      {"effective_length", [](C, M m) { return exact(m.effective_length); }},
      {"exact_match", [](C, M m) { return exact(m.exact_match.mean); }},
      {"exact_match_low", [](C, M m) { return exact(m.exact_match.low); }},
      {"exact_match_high", [](C, M m) { return exact(m.exact_match.high); }},
      {"base_accuracy", [](C, M m) { return exact(m.base_accuracy.mean); }},
      {"base_accuracy_low", [](C, M m) { return exact(m.base_accuracy.low); }},
      {"base_accuracy_high", [](C, M m) { return exact(m.base_accuracy.high); }},
      {"kept_entries", [](C, M m) { return std::to_string(m.kept_entries); }},
      {"open_bytes", [](C, M m) { return std::to_string(m.open_bytes); }},
      {"far_bytes", [](C, M m) { return std::to_string(m.far_bytes); }},
      {"weights", [](C c, M) { return std::string(c.run->is_random() ? "RANDOM" : "not random"); }},
      {"state", [](C c, M) { return std::string(c.run->crosses_boundary ? "done" : "ONE WINDOW"); }},
      {"folder", [](C c, M) { return c.folder; }},
      {"seconds", [](C, M m) { return exact(m.seconds); }},
      {"train_seconds", [](C c, M) { return exact(c.train_seconds); }},
  };
  return all;
}

/// Without what would break a line or a column.
std::string one_field(std::string text) {
  for (char& c : text) c = c == '\t' || c == '\n' || c == '\r' ? ' ' : c;
  return text;
}

std::vector<std::vector<std::string>> rows_of(const SweepResult& result) {
  std::vector<std::vector<std::string>> rows;
  for (const SweepCell& cell : result.cells) {
    std::vector<std::string> settings = {cell.id};
    settings.insert(settings.end(), cell.values.begin(), cell.values.end());
    if (!cell.run) {
      std::vector<std::string>& row = rows.emplace_back(settings);
      for (const Column& column : columns())
        row.emplace_back(std::string_view(column.name) == "state" ? cell.missing : "NA");
      continue;
    }
    for (const MethodSummary& method : cell.run->methods) {
      std::vector<std::string>& row = rows.emplace_back(settings);
      for (const Column& column : columns()) row.push_back(column.text(cell, method));
    }
  }
  return rows;
}

std::vector<std::string> header_of(const SweepResult& result) {
  std::vector<std::string> header = {"cell"};
  header.insert(header.end(), result.keys.begin(), result.keys.end());
  for (const Column& column : columns()) header.emplace_back(column.name);
  return header;
}

std::string tsv(const SweepResult& result) {
  std::ostringstream out;
  out << "##focus=" << version_line() << "\n";
  for (const std::string& note : sweep_notes(result)) out << "##note=" << one_field(note) << "\n";
  const auto line = [&](const std::vector<std::string>& fields) {
    for (std::size_t i = 0; i < fields.size(); ++i) out << (i > 0 ? "\t" : "") << one_field(fields[i]);
    out << '\n';
  };
  line(header_of(result));
  for (const auto& row : rows_of(result)) line(row);
  return out.str();
}

/// A number where the text is one, null for NA.
Json value_of(const std::string& text) {
  if (text == "NA") return nullptr;
  const Json read = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  return read.is_number() ? read : Json(text);
}

Json document(const SweepResult& result) {
  Json root;
  root["focus"] = version_line();
  root["title"] = result.title;
  for (const SweepCell& cell : result.cells) {
    if (cell.run && !root.contains("subject")) root["subject"] = cell.run->subject;
  }
  root["keys"] = result.keys;
  root["notes"] = sweep_notes(result);
  root["columns"] = header_of(result);
  root["rows"] = Json::array();
  for (const auto& row : rows_of(result)) {
    Json fields = Json::array();
    for (const std::string& field : row) fields.push_back(value_of(field));
    root["rows"].push_back(std::move(fields));
  }
  root["provenance"] = result.provenance;
  root["config"] = Json::parse(result.config_json);
  return root;
}

std::string page(const Json& document) {
  constexpr std::string_view kPlace = "{sweep}";
  const std::size_t place = kSweepPage.find(kPlace);
  std::string text(kSweepPage.substr(0, place));
  // As in the page of a fidelity run: a "<" could end the script element.
  for (const char c : document.dump(-1, ' ', false, Json::error_handler_t::replace))
    c == '<' ? text += "\\u003c" : text += c;
  return text.append(kSweepPage.substr(place + kPlace.size()));
}

std::string counted(std::size_t some, std::size_t all) { return concat(some, " of ", all, " cell(s)"); }

void write_multiqc(const SweepResult& result, const std::filesystem::path& folder) {
  std::vector<MultiqcRow> rows;
  for (const SweepCell& cell : result.cells) {
    if (!cell.run) continue;
    std::string settings;
    for (std::size_t i = 0; i < result.keys.size(); ++i)
      settings += concat(result.keys[i], " ", cell.values[i], ", ");
    for (const MethodSummary& m : cell.run->methods)
      rows.push_back({settings + m.name,
                      {100 * m.recovered, measure(m, "kl", &SummaryValue::mean), 100 * m.recall,
                       100 * measure(m, "top1_agreement", &SummaryValue::mean),
                       measure(m, "delta_cross_entropy", &SummaryValue::mean),
                       static_cast<double>(m.kept_bytes) / 1024, m.seconds}});
  }
  std::string text;
  for (const std::string& note : sweep_notes(result)) text += note + ". ";
  write_multiqc(folder, "Focus: a sweep over memories", text, multiqc_columns(), rows);
}

bool same_segments(const SweepResult& result) {
  std::set<std::string> seen;
  for (const SweepCell& cell : result.cells) {
    if (!cell.run) continue;
    const auto digest = cell.run->provenance.find("fasta_digest");
    std::string text =
        concat(cell.run->length, " ", digest == cell.run->provenance.end() ? "" : digest->second);
    for (const std::string& segment : cell.run->segments) text += " " + segment;
    seen.insert(std::move(text));
  }
  return seen.size() <= 1;
}

}  // namespace

std::vector<std::string> sweep_notes(const SweepResult& result) {
  std::vector<std::string> notes;
  std::size_t measured = 0, chance = 0, within = 0, single = 0, no_state = 0, no_noise = 0, no_copy = 0;
  for (const SweepCell& cell : result.cells) {
    if (!cell.run) {
      notes.push_back(concat("not measured: cell ", cell.id, ", ", cell.missing));
      continue;
    }
    ++measured;
    chance += cell.run->is_random() ? 1 : 0;
    within += cell.run->crosses_boundary ? 0 : 1;
    single += cell.run->segments.size() < 2 ? 1 : 0;
    no_state += cell.run->find("state_only") == nullptr ? 1 : 0;
    no_copy += cell.run->copied_positions == 0 ? 1 : 0;
    no_noise += cell.run->find("noise_floor") == nullptr ? 1 : 0;
  }
  if (chance > 0)
    notes.push_back(
        concat("RANDOM WEIGHTS in ", counted(chance, measured),
               ": full memory predicts far worse than a fair draw of four letters, so the figures "
               "say nothing about a trained model"));
  if (within > 0)
    notes.push_back(concat("ONE WINDOW in ", counted(within, measured),
                           ": no boundary is crossed and nothing is compressed; use longer segments"));
  if (result.scale != 1)
    notes.push_back(
        concat("scale ", result.scale, ": fewer segments and training steps than the protocol asks for"));
  if (single > 0)
    notes.push_back(
        concat("not measured: intervals in ", counted(single, measured), ", which have one segment"));
  if (no_state > 0)
    notes.push_back(
        concat("not measured: R in ", counted(no_state, measured), ", without the method state_only"));
  if (no_copy > 0)
    notes.push_back(concat("not measured: recall in ", counted(no_copy, measured),
                           ", where no 32 letters of a segment occur again behind a window"));
  if (result.keys == std::vector<std::string>{"run"} && !same_segments(result))
    notes.push_back("the runs measured different segments: compare methods within a run, not across runs");
  if (no_noise > 0)
    notes.push_back(concat("not measured: what rounding does in ", counted(no_noise, measured),
                           ", without the method noise_floor"));
  return notes;
}

void write_sweep_report(const SweepResult& result, const std::filesystem::path& folder) {
  const Json root = document(result);
  write_file(folder / "sweep.tsv", tsv(result));
  write_multiqc(result, folder);
  write_file(folder / "sweep.html", page(root));
  write_file(folder / "sweep.json", root.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

}  // namespace focus::report
