#include "focus/report/fidelity_report.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <string_view>

#include "digest.h"
#include "focus/core/error.h"
#include "focus/core/file.h"
#include "focus/core/units.h"
#include "focus/core/version.h"
#include "multiqc.h"
#include "needles.h"
#include "text.h"

namespace focus::report {

extern const std::string_view kPage;  // page.html, made a string by CMakeLists.txt

namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kMaxPageSegments = 200;

// Comment lines on top of every table: what it came from.
std::string preamble(const ReportDigest& digest) {
  const FidelityResult& result = *digest.result;
  std::string text =
      concat("##focus=", version_line(), "\n##window=", result.window, "\n##kmer=", result.kmer,
             "\n##length=", result.length, "\n##segments=", result.segments.size(), "\n");
  if (digest.random_weights) text += concat("##note=", kRandomWeights, "\n");
  if (!digest.crosses_boundary) text += concat("##note=", kOneWindow, "\n");
  for (const auto& [key, value] : result.provenance) {
    text += "##" + key + "=";
    for (const char c : value) text += c == '\n' || c == '\r' ? ' ' : c;
    text += "\n";
  }
  return text;
}

std::string summary_tsv(const ReportDigest& digest) {
  std::ostringstream out;
  out << preamble(digest)
      << "method\tscope\tmeasure\tcount\tmean\tmean_low\tmean_high\tmedian\tq25\tq75\tp99\tmax\tkept_"
         "entries\tkept_bytes\topen_"
         "bytes\tfar_bytes\trecovered\trecovered_low\trecovered_high\n";
  for (const MethodDigest& entry : digest.methods) {
    for (const Scope scope : digest.scopes) {
      const ScopeStatistics& statistics = entry.scopes[static_cast<std::size_t>(scope)];
      for (int c = 0; c < kNumColumns; ++c) {
        const auto& [s, interval] = statistics.columns[static_cast<std::size_t>(c)];
        out << entry.method->name << '\t' << kScopeNames[static_cast<std::size_t>(scope)] << '\t'
            << kColumnNames[static_cast<std::size_t>(c)] << '\t' << s.count;
        for (const double value : {s.mean, interval.low, interval.high, s.median, s.q25, s.q75, s.p99, s.max})
          out << '\t' << exact(value);
        out << '\t' << entry.method->kept_entries << '\t' << entry.method->kept_bytes << '\t'
            << entry.method->open_bytes << '\t' << entry.method->far_bytes;
        const bool is_kl = c == column(Measure::kl);
        for (const double value : {statistics.recovered.share, statistics.recovered.interval.low,
                                   statistics.recovered.interval.high})
          out << '\t' << (is_kl ? exact(value) : "NA");
        out << '\n';
      }
    }
  }
  return out.str();
}

std::string bins_tsv(const ReportDigest& digest, const char* what,
                     std::vector<metrics::Bin> ColumnTally::* bins) {
  std::ostringstream out;
  out << preamble(digest) << "method\t" << what << "_begin\t" << what << "_end\tcount";
  for (const char* name : kColumnNames) out << '\t' << name;
  out << '\n';
  for (const MethodDigest& entry : digest.methods) {
    const auto& columns = entry.method->columns;
    const std::vector<metrics::Bin>* any = nullptr;
    for (const ColumnTally& tally : columns)
      any = any == nullptr && !(tally.*bins).empty() ? &(tally.*bins) : any;
    if (any == nullptr) continue;
    for (std::size_t i = 0; i < any->size(); ++i) {
      int64_t count = 0;
      for (const ColumnTally& tally : columns)
        count = std::max(count, (tally.*bins).empty() ? 0 : (tally.*bins)[i].total.count);
      out << entry.method->name << '\t' << (*any)[i].begin << '\t' << (*any)[i].end << '\t' << count;
      for (const ColumnTally& tally : columns)
        out << '\t' << ((tally.*bins).empty() ? "NA" : exact((tally.*bins)[i].total.mean()));
      out << '\n';
    }
  }
  return out.str();
}

std::string segments_tsv(const ReportDigest& digest) {
  const FidelityResult& result = *digest.result;
  std::ostringstream out;
  out << preamble(digest) << "segment\tname\tbegin\tend\trepeat\tgroup";
  for (const MethodDigest& entry : digest.methods)
    out << "\tkl." << entry.method->name << "\tcross_entropy." << entry.method->name;
  out << '\n';
  for (std::size_t s = 0; s < result.segments.size(); ++s) {
    const Segment& segment = result.segments[s];
    out << s << '\t' << segment.name << '\t' << segment.begin << '\t' << segment.begin + result.length << '\t'
        << exact(segment.repeat) << '\t' << (segment.repeat >= kRepeatRich ? "repeat_rich" : "ordinary");
    for (const MethodDigest& entry : digest.methods)
      out << '\t' << exact(entry.segment_kl[s]) << '\t' << exact(entry.segment_cross_entropy[s]);
    out << '\n';
  }
  return out.str();
}

std::string by_class_tsv(const ReportDigest& digest) {
  std::ostringstream out;
  out << preamble(digest)
      << "method\tgrouping\tclass\tcount\tkl\tkl_low\tkl_high\tcross_entropy\tdelta_cross_"
         "entropy\trecall\trecall_low\trecall_high\n";
  for (const MethodDigest& entry : digest.methods) {
    for (std::size_t g = 0; g < kNumGroupings; ++g) {
      for (std::size_t c = 0; c < entry.by_class[g].size(); ++c) {
        const ClassStatistics& s = entry.by_class[g][c];
        if (s.count == 0) continue;
        out << entry.method->name << '\t' << kGroupingNames[g] << '\t'
            << class_names(static_cast<Grouping>(g))[c] << '\t' << s.count;
        for (const double value :
             {s.kl, s.kl_interval.low, s.kl_interval.high, s.cross_entropy, s.delta_cross_entropy,
              s.recall.share, s.recall.interval.low, s.recall.interval.high})
          out << '\t' << exact(value);
        out << '\n';
      }
    }
  }
  return out.str();
}

/// Of all questions, the depth "all", and of each depth.
std::string needles_tsv(const ReportDigest& digest) {
  const FidelityResult& result = *digest.result;
  std::ostringstream out;
  out << preamble(digest)
      << "method\tlooks_at_question\tdepth\tquestions\texact_match\texact_match_low\texact_match_high\tbase_"
         "accuracy\tbase_accuracy_low\tbase_accuracy_high\n";
  for (const MethodResult& method : result.methods) {
    const auto line = [&](const std::string& depth, const NeedleStatistics& s) {
      out << method.name << '\t' << (looks_at_question(method) ? "yes" : "no") << '\t' << depth << '\t'
          << s.count;
      for (const double value :
           {s.exact_match, s.exact_match_interval.low, s.exact_match_interval.high, s.base_accuracy,
            s.base_accuracy_interval.low, s.base_accuracy_interval.high})
        out << '\t' << exact(value);
      out << '\n';
    };
    line("all", needle_statistics(result, method));
    for (std::size_t d = 0; d < result.needle_depths.size(); ++d)
      line(exact(result.needle_depths[d]), needle_statistics(result, method, d));
  }
  return out.str();
}

std::string answers_tsv(const ReportDigest& digest) {
  const FidelityResult& result = *digest.result;
  std::ostringstream out;
  out << preamble(digest) << "method\tlooks_at_question\tsegment\tdepth\tkey\tvalue\tanswer\n";
  const std::size_t depths = result.needle_depths.size();
  for (const MethodResult& method : result.methods) {
    for (std::size_t i = 0; i < method.answers.size(); ++i) {
      const Segment& segment = result.segments[i / depths];
      out << method.name << '\t' << (looks_at_question(method) ? "yes" : "no") << '\t' << segment.name << ':'
          << segment.begin + 1 << '-' << segment.begin + result.length << '\t'
          << exact(result.needle_depths[i % depths]) << '\t' << result.questions[i].key << '\t'
          << result.questions[i].value << '\t' << method.answers[i] << '\n';
    }
  }
  return out.str();
}

double bin_begin(std::size_t bin) {
  return std::pow(10.0, metrics::Histogram::kLowest +
                            static_cast<double>(bin) / static_cast<double>(metrics::Histogram::kPerDecade));
}

std::string distribution_tsv(const ReportDigest& digest) {
  std::ostringstream out;
  out << preamble(digest) << "method\tmeasure\tfrom\tto\tcount\n";
  for (const MethodDigest& entry : digest.methods) {
    for (std::size_t c = 0; c < kNumDistances; ++c) {
      const metrics::Histogram& h = entry.method->columns[c].distribution;
      const auto line = [&](double from, double to, int64_t count) {
        if (count > 0)
          out << entry.method->name << '\t' << kColumnNames[c] << '\t' << exact(from) << '\t' << exact(to)
              << '\t' << count << '\n';
      };
      line(0, bin_begin(0), h.below());
      for (std::size_t bin = 0; bin < h.counts().size(); ++bin)
        line(bin_begin(bin), bin_begin(bin + 1), h.counts()[bin]);
    }
  }
  return out.str();
}

Json number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }
Json interval_json(const metrics::Interval& interval) {
  return Json::array({number(interval.low), number(interval.high)});
}

Json needles_json(const FidelityResult& result, const MethodResult& method) {
  const auto figures = [&](const NeedleStatistics& s) {
    return Json{{"questions", s.count},
                {"exact_match", number(s.exact_match)},
                {"exact_match_interval", interval_json(s.exact_match_interval)},
                {"base_accuracy", number(s.base_accuracy)},
                {"base_accuracy_interval", interval_json(s.base_accuracy_interval)}};
  };
  Json json = figures(needle_statistics(result, method));
  json["looks_at_question"] = looks_at_question(method);
  for (std::size_t d = 0; d < result.needle_depths.size(); ++d) {
    Json& at = json["by_depth"].emplace_back(figures(needle_statistics(result, method, d)));
    at["depth"] = result.needle_depths[d];
  }
  return json;
}

Json summary_of(const ReportDigest& digest) {
  const FidelityResult& result = *digest.result;
  Json root;
  root["focus"] = version_line();
  root["window"] = result.window;
  root["kmer"] = result.kmer;
  root["length"] = result.length;
  root["positions"] = result.positions;
  root["crosses_boundary"] = digest.crosses_boundary;
  root["main_scope"] = kScopeNames[static_cast<std::size_t>(digest.main_scope)];
  root["skipped_n_rich"] = result.skipped_n_rich;
  root["copied_positions"] = digest.copied_positions;
  if (!result.questions.empty()) root["needle_bases"] = result.questions[0].value.size();
  root["subject"] = result.subject;
  root["random_weights"] = digest.random_weights;
  root["methods"] = Json::array();
  for (const MethodDigest& entry : digest.methods) {
    Json method;
    method["name"] = entry.method->name;
    method["description"] = entry.method->description;
    method["kept_entries"] = entry.method->kept_entries;
    method["kept_bytes"] = entry.method->kept_bytes;
    method["open_bytes"] = entry.method->open_bytes;
    method["far_bytes"] = entry.method->far_bytes;
    method["seconds"] = number(entry.method->seconds);
    method["recall"] = {{"share", number(entry.recall.share)},
                        {"interval", interval_json(entry.recall.interval)}};
    method["kl_above_subject"] = {{"mean", number(entry.kl_above_subject)},
                                  {"interval", interval_json(entry.kl_above_subject_interval)}};
    method["effective_length"] = number(entry.effective_length);
    if (!result.needle_depths.empty()) method["needles"] = needles_json(result, *entry.method);
    for (const Scope scope : digest.scopes) {
      const ScopeStatistics& statistics = entry.scopes[static_cast<std::size_t>(scope)];
      Json scope_json;
      for (std::size_t c = 0; c < kNumColumns; ++c) {
        const auto& [s, interval] = statistics.columns[c];
        scope_json[kColumnNames[c]] = {{"count", s.count},
                                       {"mean", number(s.mean)},
                                       {"mean_interval", interval_json(interval)},
                                       {"median", number(s.median)},
                                       {"q25", number(s.q25)},
                                       {"q75", number(s.q75)},
                                       {"p99", number(s.p99)},
                                       {"max", number(s.max)}};
      }
      scope_json["recovered"] = {{"share", number(statistics.recovered.share)},
                                 {"interval", interval_json(statistics.recovered.interval)}};
      method["scopes"][kScopeNames[static_cast<std::size_t>(scope)]] = std::move(scope_json);
    }
    root["methods"].push_back(std::move(method));
  }
  root["segments"] = Json::array();
  for (std::size_t s = 0; s < result.segments.size(); ++s) {
    Json segment{{"name", result.segments[s].name},
                 {"begin", result.segments[s].begin},
                 {"repeat", number(result.segments[s].repeat)}};
    for (const MethodDigest& entry : digest.methods)
      segment["kl"][entry.method->name] = number(entry.segment_kl[s]);
    root["segments"].push_back(std::move(segment));
  }
  root["provenance"] = result.provenance;
  const Json config =
      Json::parse(result.config_json, nullptr, /*allow_exceptions=*/false, /*ignore_comments=*/true);
  root["config"] = config.is_discarded() ? Json(result.config_json) : config;
  return root;
}

std::string text_of(const Json& json, int indent) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

// Begin, end and mean of each bin.
Json bins_json(const std::vector<metrics::Bin>& bins) {
  Json list = Json::array();
  for (const metrics::Bin& bin : bins) list.push_back({bin.begin, bin.end, number(bin.total.mean())});
  return list;
}

// Of each class that has positions: name, count, KL and its interval, cross entropy above full memory's,
// recall and its interval.
Json classes_json(const MethodDigest& entry) {
  Json groups = Json::object();
  for (std::size_t g = 0; g < kNumGroupings; ++g) {
    Json& list = groups[kGroupingNames[g]] = Json::array();
    for (std::size_t c = 0; c < entry.by_class[g].size(); ++c) {
      const ClassStatistics& s = entry.by_class[g][c];
      if (s.count > 0)
        list.push_back({class_names(static_cast<Grouping>(g))[c], s.count, number(s.kl),
                        interval_json(s.kl_interval), number(s.delta_cross_entropy), number(s.recall.share),
                        interval_json(s.recall.interval)});
    }
  }
  return groups;
}

// page.html with all that its script shows: the summary, the curves, and the configuration as it was written.
std::string page(const ReportDigest& digest, Json summary) {
  const FidelityResult& result = *digest.result;
  summary["num_segments"] = result.segments.size();
  summary["num_repeat_rich"] = digest.repeat_rich_segments;
  summary["repeat_rich"] = kRepeatRich;
  summary["config"] = result.config_json;
  summary["effective_recall"] = kEffectiveRecall;
  summary["histogram"] = {{"lowest", metrics::Histogram::kLowest},
                          {"per_decade", metrics::Histogram::kPerDecade}};
  for (std::size_t m = 0; m < digest.methods.size(); ++m) {
    for (const int c : {column(Measure::kl), column(Measure::cross_entropy), kDeltaCrossEntropy}) {
      const auto at = static_cast<std::size_t>(c);
      const ColumnTally& tally = digest.methods[m].method->columns[at];
      summary["methods"][m]["by_position"][kColumnNames[at]] = bins_json(tally.by_position);
      summary["methods"][m]["by_offset"][kColumnNames[at]] = bins_json(tally.by_offset);
    }
    for (std::size_t c = 0; c < kNumDistances; ++c) {
      const metrics::Histogram& h = digest.methods[m].method->columns[c].distribution;
      summary["methods"][m]["distribution"][kColumnNames[c]] = {{"below", h.below()}, {"counts", h.counts()}};
    }
    summary["methods"][m]["by_class"] = classes_json(digest.methods[m]);
  }
  Json& segments = summary["segments"];
  if (segments.size() > kMaxPageSegments) segments.erase(segments.begin() + kMaxPageSegments, segments.end());
  for (std::size_t s = 0; digest.full >= 0 && s < segments.size(); ++s)
    segments[s]["cross_entropy_full"] =
        number(digest.methods[static_cast<std::size_t>(digest.full)].segment_cross_entropy[s]);
  constexpr std::string_view kPlace = "{digest}";
  const std::size_t place = kPage.find(kPlace);
  std::string text(kPage.substr(0, place));
  // In HTML a "<" could end the script element; in JSON it stands in strings only, where it may be written as
  // an escape.
  for (const char c : text_of(summary, -1)) c == '<' ? text += "\\u003c" : text += c;
  return text.append(kPage.substr(place + kPlace.size()));
}

void write_multiqc(const std::filesystem::path& folder, const ReportDigest& digest) {
  const FidelityResult& result = *digest.result;
  std::vector<MultiqcRow> rows;
  for (std::size_t m = 0; m < digest.methods.size(); ++m) {
    const ScopeStatistics& s = digest.main(m);
    const MethodResult& method = *digest.methods[m].method;
    rows.push_back(
        {method.name,
         {100 * s.recovered.share, s.columns[column(Measure::kl)].summary.mean,
          100 * digest.methods[m].recall.share, 100 * s.columns[column(Measure::top1_agreement)].summary.mean,
          s.columns[kDeltaCrossEntropy].summary.mean, static_cast<double>(method.kept_bytes) / 1024,
          method.seconds}});
  }
  std::string text = concat(result.segments.size(), " segment(s) of ", result.length, " bases, window ",
                            result.window, ", k ", result.kmer, ".");
  if (digest.random_weights) text += concat(" ", kRandomWeights, ".");
  if (!digest.crosses_boundary) text += concat(" ", kOneWindow, ".");
  write_multiqc(folder, "Focus: fidelity of compressed memory", text, multiqc_columns(), rows);
}

}  // namespace

void write_fidelity_report(const FidelityResult& result, const std::filesystem::path& folder) {
  const ReportDigest digest = digest_result(result);
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) fail<DataError>("cannot create the report folder '", folder.string(), "': ", error.message());
  write_file(folder / "summary.tsv", summary_tsv(digest));
  write_file(folder / "by_position.tsv", bins_tsv(digest, "position", &ColumnTally::by_position));
  write_file(folder / "by_offset.tsv", bins_tsv(digest, "offset", &ColumnTally::by_offset));
  write_file(folder / "segments.tsv", segments_tsv(digest));
  write_file(folder / "by_class.tsv", by_class_tsv(digest));
  write_file(folder / "distribution.tsv", distribution_tsv(digest));
  if (!result.questions.empty()) {
    write_file(folder / "needles.tsv", needles_tsv(digest));
    write_file(folder / "answers.tsv", answers_tsv(digest));
  }
  write_multiqc(folder, digest);
  const Json summary = summary_of(digest);
  write_file(folder / "report.html", page(digest, summary));
  write_file(folder / "summary.json", text_of(summary, 2) + "\n");
}

}  // namespace focus::report
