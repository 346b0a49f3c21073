#include "focus/report/fidelity_report.h"

#include <gtest/gtest.h>
#include <hdf5.h>
#include <stdlib.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <regex>
#include <sstream>

#include "focus/core/error.h"
#include "focus/core/file.h"
#include "focus/report/fidelity_table.h"
#include "focus/report/run_summary.h"
#include "recorded_run.h"
#include "support/temporary_folder.h"

namespace focus::report {
namespace {

namespace fs = std::filesystem;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Kind {
  const char* name;
  double loss;  // KL behind a boundary
  int64_t kept_entries, kept_bytes;
};
const std::vector<Kind> kKinds = {{"full", 0, 6144, 503316480},
                                  {"focus", 0.004, 61, 4997120},
                                  {"focus+retrieval", 0.0006, 61, 5242880},
                                  {"sliding", 0.03, 61, 4997120},
                                  {"mean_pool", 0.06, 61, 4997120},
                                  {"strided", 0.05, 61, 4997120},
                                  {"attention_match", 0.008, 61, 4997120},
                                  {"kv_quant", 0.0001, 6144, 125829120},
                                  {"sinks+window", 0.027, 61, 4997120},
                                  {"random", 0.052, 61, 4997120},
                                  {"state_only", 0.08, 0, 0},
                                  {"noise_floor", 2e-6, 6144, 503316480}};

// Values of the size and shape that real runs have: zero in the first window, a jump behind each boundary
// that decays, heavy tails.
RecordedRun synthetic(int64_t segments, int64_t length, int64_t window) {
  RecordedRun result;
  result.window = window;
  result.kmer = 100;
  result.length = length;
  result.positions = length - 1;
  result.skipped_n_rich = 3;
  result.provenance = {{"version", "focus 0.1.0"},
                       {"device", "cpu"},
                       {"command", "focus-eval fidelity --config <x> & more"},
                       {"seed", "42"}};
  result.config_json = "{\"window\": {\"size\": 1024}, // note\n \"k\": 100}";
  std::mt19937 generator(1);
  std::normal_distribution<double> normal;
  for (int64_t s = 0; s < segments; ++s)
    result.segments.push_back({{s % 2 == 0 ? "chr20" : "chrX<1>", 100000 * s,
                                s % 4 == 3 ? 0.15 + 0.01 * static_cast<double>(s) : 0.002},
                               {}});
  for (const Kind& kind : kKinds) {
    RecordedMethod& method = result.methods.emplace_back();
    method.name = kind.name;
    method.description = std::string("policy ") + kind.name + ", k 100, \"quoted\"";
    method.kept_entries = kind.kept_entries;
    method.kept_bytes = kind.kept_bytes;
    method.open_bytes = 83886080;
    method.far_bytes = 12345678;
    method.seconds = 12.5;
    for (auto& values : method.values) values.resize(static_cast<std::size_t>(segments * (length - 1)));
    std::mt19937 truth(7);
    for (int64_t s = 0; s < segments; ++s) {
      const double segment_factor = std::exp(0.5 * normal(generator)) *
                                    (result.segments[static_cast<std::size_t>(s)].repeat >= 0.1 ? 3 : 1);
      for (int64_t p = 0; p < length - 1; ++p) {
        const auto at = static_cast<std::size_t>(s * (length - 1) + p);
        const bool noise = std::strcmp(kind.name, "noise_floor") == 0;
        const double offset = static_cast<double>(p % window);
        double kl = kind.loss * segment_factor * (0.3 + 1.7 * std::exp(-offset / 150)) *
                    std::exp(1.4 * normal(generator) - 1);
        if (p < window && !noise) kl = 0;
        const double ce = 1.25 + 0.15 * std::exp(-static_cast<double>(p) / 400) +
                          0.2 * std::normal_distribution<double>()(truth);
        const double values[] = {kl,     std::sqrt(kl), 0.7 * std::sqrt(kl), 0.5 * std::sqrt(kl),
                                 kl / 4, ce + 0.8 * kl, kl * 0.98,           kl > 0.1 ? 0.0 : 1.0};
        for (std::size_t m = 0; m < kNumMeasures; ++m) method.values[m][at] = static_cast<float>(values[m]);
        if (p % 97 == 5) method.values[static_cast<std::size_t>(Measure::cross_entropy)][at] = kNan;
      }
    }
  }
  return result;
}

class Folder {
 public:
  Folder() {
    // FOCUS_KEEP_REPORT=<folder> keeps the written report for a look at it.
    if (const char* kept = std::getenv("FOCUS_KEEP_REPORT")) {
      path_ = kept;
      kept_ = true;
      return;
    }
    std::string pattern = (fs::temp_directory_path() / "focus-report-XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~Folder() {
    if (!kept_) fs::remove_all(path_);
  }
  fs::path operator/(const std::string& name) const { return path_ / name; }

 private:
  fs::path path_;
  bool kept_ = false;
};

// Rows of a table by the joined first columns; every cell by its column name.
std::map<std::string, std::map<std::string, std::string>> read_tsv(const fs::path& path,
                                                                   std::size_t key_columns) {
  std::map<std::string, std::map<std::string, std::string>> rows;
  std::vector<std::string> header;
  std::istringstream text(read_file(path));
  std::string line;
  while (std::getline(text, line)) {
    if (line.rfind("##", 0) == 0) continue;
    std::vector<std::string> cells;
    std::istringstream columns(line);
    for (std::string cell; std::getline(columns, cell, '\t');) cells.push_back(cell);
    if (header.empty()) {
      header = cells;
      continue;
    }
    EXPECT_EQ(cells.size(), header.size()) << line;
    std::string key;
    for (std::size_t c = 0; c < key_columns; ++c) key += (c > 0 ? " " : "") + cells[c];
    for (std::size_t c = 0; c < cells.size(); ++c) rows[key][header[c]] = cells[c];
  }
  return rows;
}

std::vector<float> read_dataset(hid_t file, const std::string& name, std::vector<hsize_t>* dims) {
  const hid_t dataset = H5Dopen2(file, name.c_str(), H5P_DEFAULT);
  EXPECT_GE(dataset, 0) << name;
  const hid_t space = H5Dget_space(dataset);
  dims->resize(static_cast<std::size_t>(H5Sget_simple_extent_ndims(space)));
  H5Sget_simple_extent_dims(space, dims->data(), nullptr);
  hsize_t count = 1;
  for (const hsize_t dim : *dims) count *= dim;
  std::vector<float> values(count);
  EXPECT_GE(H5Dread(dataset, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), 0);
  H5Sclose(space);
  H5Dclose(dataset);
  return values;
}

int64_t read_attribute(hid_t file, const std::string& object, const std::string& name) {
  int64_t value = -1;
  const hid_t attribute = H5Aopen_by_name(file, object.c_str(), name.c_str(), H5P_DEFAULT, H5P_DEFAULT);
  EXPECT_GE(H5Aread(attribute, H5T_NATIVE_INT64, &value), 0) << object << " " << name;
  H5Aclose(attribute);
  return value;
}

int count_of(const std::string& text, const std::string& part) {
  int count = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size()))
    ++count;
  return count;
}

std::string html_of(const FidelityResult& result) {
  const testing::TemporaryFolder folder;
  write_fidelity_report(result, folder / "report");
  return read_file(folder / "report/report.html");
}

// What stands between two texts. The first must occur.
std::string between(const std::string& text, const std::string& first, const std::string& last) {
  const std::size_t begin = text.find(first);
  EXPECT_NE(begin, std::string::npos) << first;
  return begin == std::string::npos
             ? ""
             : text.substr(begin + first.size(), text.find(last, begin) - begin - first.size());
}

nlohmann::json digest_of(const std::string& html) {
  return nlohmann::json::parse(between(html, "id=\"digest\">", "</script>"));
}

// The page's body once Chromium has run its script; empty where no Chromium can show a page.
std::string drawn(const std::string& html) {
  const testing::TemporaryFolder folder;
  write_file(folder / "page.html", html);
  const std::string place = (folder / "").string();
  const std::string command =
      "browser=$(command -v chromium chromium-browser google-chrome | head -n 1); [ -z \"$browser\" ] || "
      "timeout 60 \"$browser\" --headless --no-sandbox --disable-gpu --user-data-dir='" +
      place + "profile' --dump-dom 'file://" + place + "page.html' 2>/dev/null";
  FILE* pipe = popen(command.c_str(), "r");
  std::string dom;
  char buffer[65536];
  for (std::size_t size = 0; (size = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;)
    dom.append(buffer, size);
  pclose(pipe);
  return dom.find("<h1>") == std::string::npos ? "" : between(dom, "<main>", "</main>");
}

// What a script writes where a number is missing.
const std::regex kNoNumber("[^a-z](NaN|Infinity|undefined|null)[^a-z]");
const std::vector<std::string> kFigures = {
    "KL divergence by position", "KL divergence behind a boundary",
    "Loss against memory",       "Distribution over positions",
    "Cross entropy by position", "Cross entropy less that of the full cache",
    "Distance from full memory", "Loss against fast memory"};

TEST(Report, WritesTablesThatHoldTheStatistics) {
  const Folder folder;
  const RecordedRun result = synthetic(12, 6144, 1024);
  write_fidelity_report(result, folder / "deep/report");
  const auto rows = read_tsv(folder / "deep/report/summary.tsv", 3);
  EXPECT_EQ(rows.size(), kKinds.size() * 4 * 9);
  const auto& focus = result.methods[1];
  double all = 0, late = 0, rich = 0, state_only = 0, largest = 0;
  int64_t rich_count = 0;
  for (std::size_t s = 0; s < 12; ++s) {
    for (std::size_t p = 0; p < 6143; ++p) {
      const double value = focus.values[0][s * 6143 + p];
      all += value;
      largest = std::max(largest, value);
      if (p < 1024) continue;
      late += value;
      state_only += result.methods[10].values[0][s * 6143 + p];
      if (result.segments[s].repeat >= kRepeatRich) rich += value, ++rich_count;
    }
  }
  const auto& row = rows.at("focus after_boundary kl");
  const auto number = [](const std::string& text) { return std::stod(text); };
  EXPECT_NEAR(number(rows.at("focus all kl").at("mean")), all / (12 * 6143), 1e-9);
  EXPECT_NEAR(number(row.at("mean")), late / (12 * 5119), 1e-9);
  EXPECT_EQ(row.at("count"), std::to_string(12 * 5119));
  EXPECT_NEAR(number(row.at("max")), largest, 1e-8);
  EXPECT_LT(number(row.at("mean_low")), number(row.at("mean")));
  EXPECT_GT(number(row.at("mean_high")), number(row.at("mean")));
  EXPECT_LT(number(row.at("q25")), number(row.at("median")));
  EXPECT_NEAR(number(row.at("recovered")), 1 - late / state_only, 1e-8);
  EXPECT_LT(number(row.at("recovered_low")), 1 - late / state_only);
  EXPECT_EQ(row.at("kept_entries"), "61");
  EXPECT_EQ(row.at("kept_bytes"), "4997120");
  EXPECT_EQ(row.at("far_bytes"), "12345678");
  EXPECT_NEAR(number(rows.at("focus repeat_rich kl").at("mean")), rich / static_cast<double>(rich_count),
              1e-9);
  EXPECT_NEAR(number(rows.at("focus after_boundary delta_cross_entropy").at("mean")),
              0.8 * number(row.at("mean")), 1e-4);
  EXPECT_EQ(rows.at("full after_boundary delta_cross_entropy").at("mean"), "0");
  EXPECT_EQ(number(rows.at("state_only after_boundary kl").at("recovered")), 0);

  const auto offsets = read_tsv(folder / "deep/report/by_offset.tsv", 3);
  EXPECT_GT(number(offsets.at("sliding 0 1").at("kl")), number(offsets.at("sliding 4 5").at("kl")) * 0.3);
  EXPECT_EQ(offsets.at("sliding 0 1").at("count"), "60");
  const auto places = read_tsv(folder / "deep/report/by_position.tsv", 2);
  EXPECT_EQ(places.at("focus 0").at("kl"), "0");
  EXPECT_GT(number(places.at("focus 1024").at("kl")), 0);
  const auto segments = read_tsv(folder / "deep/report/segments.tsv", 1);
  EXPECT_EQ(segments.size(), 12U);
  EXPECT_EQ(segments.at("3").at("group"), "repeat_rich");
  EXPECT_EQ(segments.at("3").at("end"), "306144");
}

TEST(Report, WritesEveryValueToHdf5) {
  const Folder folder;
  const RecordedRun result = synthetic(5, 700, 256);
  {
    std::optional<ValuesFile> values(folder / "values.h5");
    const FidelityResult measured = result.result(writer(values));
    EXPECT_FALSE(fs::exists(folder / "values.h5"));
    values->finish(measured);
  }
  const hid_t file = H5Fopen((folder / "values.h5").c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  ASSERT_GE(file, 0);
  for (const RecordedMethod& method : result.methods) {
    for (std::size_t m = 0; m < kNumMeasures; ++m) {
      std::vector<hsize_t> dims;
      const std::vector<float> values =
          read_dataset(file, "/methods/" + method.name + "/" + kMeasureNames[m], &dims);
      EXPECT_EQ(dims, (std::vector<hsize_t>{5, 699}));
      ASSERT_EQ(values.size(), method.values[m].size());
      EXPECT_EQ(std::memcmp(values.data(), method.values[m].data(), values.size() * sizeof(float)), 0);
    }
    EXPECT_EQ(read_attribute(file, "/methods/" + method.name, "kept_bytes"), method.kept_bytes);
  }
  EXPECT_EQ(read_attribute(file, "/", "window"), 256);
  std::vector<hsize_t> dims;
  EXPECT_FLOAT_EQ(read_dataset(file, "/segments/repeat", &dims)[3], 0.18F);
  EXPECT_EQ(read_dataset(file, "/segments/begin", &dims)[4], 400000.0F);
  H5Fclose(file);
}

TEST(Report, WritesJsonWithConfigurationAndProvenance) {
  const Folder folder;
  write_fidelity_report(synthetic(4, 700, 256), folder / "report");
  const nlohmann::json json = nlohmann::json::parse(read_file(folder / "report/summary.json"));
  EXPECT_EQ(json["config"]["window"]["size"], 1024);
  EXPECT_EQ(json["provenance"]["seed"], "42");
  EXPECT_EQ(json["main_scope"], "after_boundary");
  EXPECT_EQ(json["methods"].size(), kKinds.size());
  EXPECT_EQ(json["methods"][0]["name"], "full");
  EXPECT_TRUE(json["methods"][1]["scopes"]["after_boundary"]["kl"]["mean"].is_number());
  EXPECT_EQ(json["segments"].size(), 4U);
  for (const auto& entry : fs::directory_iterator(folder / "report"))
    EXPECT_EQ(entry.path().string().find(".tmp"), std::string::npos);
}

TEST(Report, PageIsOneSelfContainedFile) {
  const RecordedRun result = synthetic(12, 6144, 1024);
  const std::string html = html_of(result);
  for (const char* part : {"http://", "https://", "<link", "@import", "url(", " src="})
    EXPECT_EQ(html.find(part), std::string::npos) << part;
  EXPECT_NE(html.find("default-src 'none'"), std::string::npos);
  EXPECT_NE(html.find("<noscript>"), std::string::npos);
  for (const std::string& title : kFigures) EXPECT_NE(html.find(title), std::string::npos) << title;
  EXPECT_LT(html.size(), 1000000U);
  const nlohmann::json digest = digest_of(html);
  EXPECT_EQ(digest["methods"].size(), kKinds.size());
  EXPECT_EQ(digest["config"], result.config_json);
  EXPECT_EQ(digest["num_repeat_rich"], 3);
  EXPECT_NEAR(digest["segments"][3]["cross_entropy_full"], 1.25, 0.05);
  // The first bin of the second window, where focus departs from the full cache.
  const nlohmann::json& bins = digest["methods"][1]["by_position"];
  EXPECT_EQ(bins["kl"][0][2], 0);
  for (const nlohmann::json& bin : bins["kl"]) {
    if (bin[0] == 1024) {
      EXPECT_GT(bin[2], 0);
    }
  }
  EXPECT_EQ(bins["delta_cross_entropy"].size(), bins["kl"].size());
  EXPECT_EQ(digest["methods"][1]["by_offset"]["kl"].back()[1], 1024);
}

TEST(Report, PageKeepsLabelsThatLookLikeMarkup) {
  RecordedRun result = synthetic(2, 300, 100);
  const std::string label = "</script><b>&<!--<script>\"'";
  result.methods[1].name = result.segments[0].name = result.provenance["note"] = label;
  result.methods[1].description = "not UTF-8: \xff";
  const std::string html = html_of(result);
  EXPECT_EQ(count_of(html, "</script>"), 2);
  EXPECT_EQ(count_of(html, "<!--"), 0);
  const nlohmann::json digest = digest_of(html);
  EXPECT_EQ(digest["methods"][1]["name"], label);
  EXPECT_EQ(digest["segments"][0]["name"], label);
  EXPECT_EQ(digest["provenance"]["note"], label);
  const std::string page = drawn(html);
  if (page.empty()) GTEST_SKIP() << "no Chromium that shows a page";
  EXPECT_EQ(page.find("<b>&amp;"), std::string::npos);
  EXPECT_NE(page.find("&lt;/script&gt;&lt;b&gt;&amp;&lt;!--"), std::string::npos);
  EXPECT_EQ(count_of(page, "<figure>"), 8);
}

TEST(Report, PageShowsFiguresAndTables) {
  const RecordedRun result = synthetic(12, 6144, 1024);
  const std::string page = drawn(html_of(result));
  if (page.empty()) GTEST_SKIP() << "no Chromium that shows a page";
  EXPECT_FALSE(std::regex_search(page, kNoNumber));
  for (const std::string& title : kFigures)
    EXPECT_NE(page.find("<h3>" + title + "</h3>"), std::string::npos) << title;
  EXPECT_EQ(count_of(page, "<figure>"), 8);
  EXPECT_EQ(count_of(page, "<table>"), 8);
  EXPECT_NE(page.find("chrX&lt;1&gt;:100,001-106,144"), std::string::npos);
  EXPECT_NE(page.find("&lt;x&gt; &amp; more"), std::string::npos);
  EXPECT_NE(page.find("Repeat-rich"), std::string::npos);
  EXPECT_NE(page.find("480.0 MiB"), std::string::npos);
  EXPECT_EQ(page.find("class=\"warn\""), std::string::npos);
}

// The figure whose heading is `title`, up to the next one.
std::string figure_of(const std::string& html, const std::string& title) {
  return between(html, "<h3>" + title + "</h3>", "</figure>");
}

// The least power of ten that is a tick of the y axis.
int lowest_power(const std::string& figure) {
  const std::vector<std::string> digits = {"\u2070", "\u00B9", "\u00B2", "\u00B3", "\u2074",
                                           "\u2075", "\u2076", "\u2077", "\u2078", "\u2079"};
  for (int power = 9; power >= 0; --power) {
    if (figure.find(">10\u207B" + digits[static_cast<std::size_t>(power)] + "</text>") != std::string::npos)
      return -power;
  }
  return 1;
}

TEST(Report, MethodsChooseTheLowerEndOfTheCurves) {
  const std::vector<std::string> titles(kFigures.begin(), kFigures.begin() + 2);
  RecordedRun result = synthetic(4, 3072, 1024);
  auto& noise = result.methods.back().values[static_cast<std::size_t>(Measure::kl)];
  for (float& value : noise) value = 2e-9F;
  std::string html = drawn(html_of(result));
  if (html.empty()) GTEST_SKIP() << "no Chromium that shows a page";
  for (const std::string& title : titles) {
    const std::string figure = figure_of(html, title);
    EXPECT_NE(figure.find("Not drawn: the noise floor, 2.00e-9 on average"), std::string::npos) << title;
    EXPECT_EQ(figure.find("var(--muted)"), std::string::npos) << title;
    EXPECT_NE(figure.find("kv_quant"), std::string::npos) << title;
    // kv_quant, the closest method, is near 1e-4.
    EXPECT_GE(lowest_power(figure), -6) << title;
    EXPECT_LE(lowest_power(figure), -4) << title;
  }
  EXPECT_NE(figure_of(html, "Loss against memory").find("noise floor"), std::string::npos);

  // Within the methods' range it is drawn.
  for (float& value : noise) value = 2e-3F;
  html = drawn(html_of(result));
  for (const std::string& title : titles) {
    EXPECT_EQ(figure_of(html, title).find("Not drawn"), std::string::npos) << title;
    EXPECT_NE(figure_of(html, title).find("var(--muted)"), std::string::npos) << title;
  }

  // Without a method that differs from the full cache, the noise floor is all there is to see.
  for (float& value : noise) value = 2e-9F;
  for (RecordedMethod& method : result.methods) {
    auto& kl = method.values[static_cast<std::size_t>(Measure::kl)];
    if (method.name != "noise_floor") std::fill(kl.begin(), kl.end(), 0.0F);
  }
  const std::string figure = figure_of(drawn(html_of(result)), titles.front());
  EXPECT_EQ(figure.find("Not drawn"), std::string::npos);
  EXPECT_NE(figure.find("var(--muted)"), std::string::npos);
}

TEST(Report, SaysLoudlyThatNoBoundaryWasCrossed) {
  const RecordedRun result = synthetic(3, 1024, 1024);
  const std::string html = html_of(result);
  EXPECT_NE(html.find("No boundary was crossed"), std::string::npos);
  EXPECT_EQ(digest_of(html)["crosses_boundary"], false);
  if (const std::string page = drawn(html); !page.empty()) {
    EXPECT_NE(page.find("role=\"alert\">No boundary was"), std::string::npos);
  }
  EXPECT_EQ(fidelity_table(result).rfind("NO BOUNDARY WAS CROSSED", 0), 0U);
  const Folder folder;
  write_fidelity_report(result, folder / "report");
  EXPECT_EQ(nlohmann::json::parse(read_file(folder / "report/summary.json"))["crosses_boundary"], false);
}

TEST(Report, TableIsAligned) {
  const std::string table = fidelity_table(synthetic(6, 4096, 1024));
  std::istringstream text(table);
  std::string line;
  std::getline(text, line);
  EXPECT_NE(line.find("6 segment(s) of 4,096 bases, window 1,024, k 100"), std::string::npos);
  std::size_t width = 0;
  int lines = 0;
  while (std::getline(text, line)) {
    std::size_t columns = 0;
    for (const char c : line) columns += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
    if (width == 0) width = columns;
    EXPECT_EQ(columns, width) << line;
    ++lines;
  }
  EXPECT_EQ(lines, static_cast<int>(kKinds.size()) + 1);
  std::cout << table;
}

TEST(Report, WorksWithFewMethodsMissingMeasuresAndOneSegment) {
  RecordedRun result = synthetic(1, 300, 100);
  result.methods.erase(result.methods.begin() + 2, result.methods.end());
  for (auto& values : result.methods[0].values) values.clear();
  result.methods[1].values[static_cast<std::size_t>(Measure::js)].clear();
  result.config_json.clear();
  result.provenance.clear();
  const Folder folder;
  write_fidelity_report(result, folder / "report");
  const auto rows = read_tsv(folder / "report/summary.tsv", 3);
  EXPECT_EQ(rows.at("focus after_boundary js").at("mean"), "NA");
  EXPECT_EQ(rows.at("focus after_boundary delta_cross_entropy").at("mean"), "NA");
  EXPECT_EQ(rows.at("focus after_boundary kl").at("mean_low"), "NA");
  EXPECT_EQ(rows.at("focus after_boundary kl").at("recovered"), "NA");
  EXPECT_EQ(rows.count("focus ordinary kl"), 0U);
  if (const std::string page = drawn(read_file(folder / "report/report.html")); !page.empty()) {
    EXPECT_FALSE(std::regex_search(page, kNoNumber));
    EXPECT_EQ(count_of(page, "<figure>"), 7);  // no difference from a full cache without values
  }
}

/// Two segments of 600 bases, window 100. Each base lies 200 behind its last copy, but for the last 100
/// positions, which lie 500 behind; sliding forgets all, focus a quarter of what is near and everything far.
RecordedRun with_copies() {
  RecordedRun result;
  result.window = 100;
  result.kmer = 10;
  result.length = 601;
  result.positions = 600;
  result.subject = "focus";
  for (int s = 0; s < 2; ++s) {
    RecordedSegment& segment = result.segments.emplace_back();
    segment.name = "chr" + std::to_string(s);
    segment.positions.copied.assign(600, true);
    for (auto& classes : segment.positions.classes) classes.assign(600, 0);
    auto& distances = segment.positions.classes[static_cast<std::size_t>(Grouping::last_copy)];
    for (std::size_t p = 0; p < 600; ++p)
      distances[p] = static_cast<uint8_t>(distance_class(p < 500 ? 200 : 500));
    for (std::size_t p = 0; p < 600; p += 3)
      segment.positions.classes[static_cast<std::size_t>(Grouping::repeat)][p] = 1;
  }
  const auto method = [&](const std::string& name, float near, float far) {
    RecordedMethod& m = result.methods.emplace_back();
    m.name = name;
    for (auto& values : m.values) values.assign(1200, 0.0F);
    for (std::size_t i = 0; i < 1200; ++i) {
      const float loss = (i % 600 < 500 ? near : far) + (i < 600 ? 0.001F : 0.0F);
      m.values[static_cast<std::size_t>(Measure::kl)][i] = name == "full" ? 0.0F : loss;
      m.values[static_cast<std::size_t>(Measure::cross_entropy)][i] = name == "full" ? 1.0F : 1.0F + loss;
    }
  };
  method("full", 0, 0);
  method("state_only", 0.4F, 0.4F);
  method("focus", 0.04F, 0.4F);
  method("sliding", 0.4F, 0.5F);
  return result;
}

TEST(Report, TellsTheClassesOfPositionsApart) {
  const Folder folder;
  write_fidelity_report(with_copies(), folder / "report");
  const auto rows = read_tsv(folder / "report/by_class.tsv", 3);
  const auto at = [&](const std::string& key, const char* column) {
    return std::stod(rows.at(key).at(column));
  };
  EXPECT_EQ(at("focus last_copy 128-255", "count"), 800);  // behind the first window
  EXPECT_NEAR(at("focus last_copy 128-255", "kl"), 0.0405, 1e-6);
  EXPECT_NEAR(at("focus last_copy 128-255", "recall"), 1 - 0.0405 / 0.4005, 1e-4);
  EXPECT_NEAR(at("focus last_copy 256-511", "recall"), 0, 1e-4);
  EXPECT_LE(at("focus last_copy 128-255", "recall_low"), at("focus last_copy 128-255", "recall"));
  EXPECT_EQ(at("focus repeat lower case", "count"), 332);  // positions 102, 105, ... of both segments
  EXPECT_EQ(rows.count("focus last_copy nowhere"), 0U);
  const auto json = nlohmann::json::parse(read_file(folder / "report/summary.json"));
  EXPECT_EQ(json["methods"][2]["effective_length"], 255);
  EXPECT_EQ(json["methods"][3]["effective_length"], 0);
  EXPECT_NEAR(json["methods"][3]["kl_above_subject"]["mean"], (0.36 * 400 + 0.1 * 100) / 500, 1e-6);
  EXPECT_GT(json["methods"][3]["kl_above_subject"]["interval"][0], 0);
  EXPECT_EQ(json["random_weights"], false);
  if (const std::string page = drawn(read_file(folder / "report/report.html")); !page.empty()) {
    EXPECT_FALSE(std::regex_search(page, kNoNumber));
    EXPECT_NE(page.find("<b>focus</b> is better"), std::string::npos);
    EXPECT_NE(figure_of(page, "Recall by distance").find("focus 255"), std::string::npos);
    EXPECT_NE(page.find("class=\"marked\""), std::string::npos);
  }
}

TEST(Report, TellsHowManyNeedlesAreGivenBack) {
  RecordedRun result = with_copies();
  result.needle_depths = {0.1, 0.9};
  result.questions = {{"AC", "ACGT"}, {"CC", "CCCC"}, {"GG", "GGGG"}, {"TG", "TTTT"}};  // two segments
  for (RecordedMethod& method : result.methods) method.answers = {"ACGT", "CAAA", "GGGG", "ATTA"};
  RecordedMethod& full = result.methods[0];
  full.answers = {"ACGT", "CCCC", "GGGG", "TTTT"};
  full.far_bytes = 1;
  const Folder folder;
  write_fidelity_report(result, folder / "report");
  const auto rows = read_tsv(folder / "report/needles.tsv", 3);
  const auto at = [&](const std::string& key, const char* column) {
    return std::stod(rows.at(key).at(column));
  };
  EXPECT_EQ(rows.size(), 4 * 3U);
  EXPECT_EQ(at("full yes all", "exact_match"), 1);
  EXPECT_EQ(at("focus no all", "questions"), 4);
  EXPECT_EQ(at("focus no all", "exact_match"), 0.5);
  EXPECT_NEAR(at("focus no all", "base_accuracy"), 11.0 / 16, 1e-8);
  EXPECT_EQ(at("focus no 0.1", "exact_match"), 1);
  EXPECT_EQ(at("focus no 0.9", "exact_match"), 0);
  EXPECT_EQ(at("focus no 0.9", "base_accuracy"), 3.0 / 8);
  EXPECT_EQ(at("focus no 0.9", "base_accuracy_low"), 0.25);
  EXPECT_EQ(at("focus no 0.9", "base_accuracy_high"), 0.5);
  EXPECT_EQ(read_tsv(folder / "report/answers.tsv", 7).count("focus no chr1:1-601 0.9 TG TTTT ATTA"), 1U);
  const RunSummary run = read_run_summary(folder / "report");
  EXPECT_EQ(run.find("focus")->exact_match.mean, 0.5);
  EXPECT_NEAR(run.find("focus")->base_accuracy.mean, 11.0 / 16, 1e-8);
  if (const std::string page = drawn(read_file(folder / "report/report.html")); !page.empty()) {
    EXPECT_FALSE(std::regex_search(page, kNoNumber));
    EXPECT_NE(page.find("gives back <b>50.0 %</b> exactly (full memory 100.00 %)"), std::string::npos);
    EXPECT_FALSE(figure_of(page, "Needles by depth").empty());
  }
  const Folder other;
  write_fidelity_report(with_copies(), other / "report");
  EXPECT_FALSE(fs::exists(other / "report/needles.tsv"));
  EXPECT_TRUE(std::isnan(read_run_summary(other / "report").find("focus")->exact_match.mean));
}

TEST(Report, DistanceClassesArePowersOfTwo) {
  EXPECT_EQ(distance_class(0), 0);
  EXPECT_EQ(distance_class(1), 1);
  EXPECT_EQ(distance_class(63), 1);
  const auto& names = class_names(Grouping::last_copy);
  for (const int64_t distance : {64, 127, 128, 1 << 20, (1 << 21) - 1}) {
    const int at = distance_class(distance);
    EXPECT_LE(distance_from(at), distance);
    EXPECT_GT(distance_from(at + 1), distance);
    EXPECT_EQ(names[static_cast<std::size_t>(at)].find(std::to_string(distance_from(at)) + "-"), 0U);
  }
}

TEST(Report, CountsTheDistributionOfDistances) {
  const Folder folder;
  const RecordedRun result = with_copies();
  write_fidelity_report(result, folder / "report");
  std::istringstream lines(read_file(folder / "report/distribution.tsv"));
  int64_t positions = 0, below = 0;
  for (std::string line; std::getline(lines, line);) {
    std::istringstream fields(line);
    std::string method, measure;
    double from = 0, to = 0;
    int64_t count = 0;
    if (!(fields >> method >> measure >> from >> to >> count) || method != "focus" || measure != "kl")
      continue;
    EXPECT_TRUE((from <= 0.0400001 && 0.0399999 <= to) || (from <= 0.401 && 0.4 <= to * 1.0000001)) << line;
    positions += count;
    below += from == 0 ? count : 0;
  }
  EXPECT_EQ(positions, 1000);
  EXPECT_EQ(below, 0);
}

TEST(Report, MultiqcShowsTheMainTable) {
  const Folder folder;
  write_fidelity_report(with_copies(), folder / "report");
  const auto json = nlohmann::json::parse(read_file(folder / "report/focus_mqc.json"));
  EXPECT_EQ(json["plot_type"], "table");
  ASSERT_TRUE(json["data"].contains("focus"));
  for (const auto& [id, value] : json["data"]["focus"].items())
    EXPECT_TRUE(json["headers"].contains(id)) << id;
  EXPECT_NEAR(json["data"]["focus"]["kl"], (0.0405 * 400 + 0.4005 * 100) / 500, 1e-6);
}

TEST(Report, EveryOutputSaysThatWeightsAreRandom) {
  RecordedRun result = with_copies();
  for (RecordedMethod& method : result.methods) {
    for (float& value : method.values[static_cast<std::size_t>(Measure::cross_entropy)]) value += 5;
  }
  EXPECT_EQ(fidelity_table(result).rfind("RANDOM WEIGHTS", 0), 0U);
  const Folder folder;
  write_fidelity_report(result, folder / "report");
  for (const auto& entry : fs::directory_iterator(folder / "report")) {
    const std::string name = entry.path().filename().string();
    const std::string text = read_file(entry.path());
    const bool says = text.find("RANDOM WEIGHTS") != std::string::npos ||
                      text.find("\"random_weights\": true") != std::string::npos ||
                      text.find("\"random_weights\":true") != std::string::npos;
    EXPECT_TRUE(says) << name;
  }
}

TEST(Report, RefusesInconsistentResultsAndUnwritableFolders) {
  RecordedRun result = synthetic(2, 300, 100);
  result.methods[1].values[2].pop_back();
  EXPECT_THROW(fidelity_table(result), InternalError);
  result = synthetic(2, 300, 100);
  result.methods[1].name = "full";
  EXPECT_THROW(fidelity_table(result), InternalError);
  result = synthetic(2, 300, 100);
  const Folder folder;
  std::ofstream(folder / "file") << "x";
  EXPECT_THROW(write_fidelity_report(result, folder / "file"), DataError);
  EXPECT_THROW(write_fidelity_report(result, "/proc/nowhere"), DataError);
}

}  // namespace
}  // namespace focus::report
