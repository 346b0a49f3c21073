#include "html.h"

#include <cmath>

#include "figures.h"
#include "focus/core/error.h"
#include "focus/core/units.h"
#include "focus/core/version.h"
#include "focus/report/fidelity_report.h"
#include "text.h"

namespace focus::report {
namespace {

constexpr std::size_t kMaxSegmentRows = 200;

constexpr const char* kStyles = R"(
:root{--bg:#ffffff;--fg:#1a1e24;--muted:#5f6875;--line:#d5dae1;--panel:#f5f7f9;--warn-bg:#fff1e0;--warn-fg:#8a3b00;color-scheme:light dark}
@media (prefers-color-scheme:dark){:root{--bg:#14171b;--fg:#e6e9ee;--muted:#9aa5b4;--line:#363d47;--panel:#1d2127;--warn-bg:#3d2508;--warn-fg:#ffc58f}}
*{box-sizing:border-box}
body{margin:0 auto;padding:24px 20px 60px;max-width:1480px;background:var(--bg);color:var(--fg);font:15px/1.5 system-ui,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
h1{font-size:26px;margin:0 0 2px}h2{font-size:19px;margin:36px 0 8px}h3{font-size:15px;margin:0 0 6px}
p{max-width:88ch;margin:8px 0}.sub{color:var(--muted);margin:0 0 16px}
.warn{background:var(--warn-bg);color:var(--warn-fg);border-left:6px solid currentColor;padding:12px 16px;font-size:17px;font-weight:600;max-width:none}
.scroll{overflow-x:auto;border:1px solid var(--line);border-radius:6px}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:13.5px}
th,td{padding:5px 8px;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line)}
tr:last-child td{border-bottom:0}thead th{background:var(--panel);font-weight:600;vertical-align:bottom}
th:first-child,td:first-child,.text{text-align:left}.wrap{white-space:normal}
small{color:var(--muted);font-size:12px;display:block}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,560px),1fr));gap:28px 32px}
figure{margin:0;min-width:0}figcaption{color:var(--muted);font-size:13px;max-width:80ch}
figure>svg{width:100%;height:auto;display:block}
svg text{font:12.5px system-ui,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
.tick{fill:var(--muted)}.axis-label{fill:var(--fg)}.axis{stroke:var(--muted);fill:none}.grid{stroke:var(--line);stroke-width:.7}
.rule{stroke:var(--muted);stroke-width:1;stroke-dasharray:1 4;fill:none}.leader{stroke:var(--muted);stroke-width:.7;fill:none}
.halo{paint-order:stroke;stroke:var(--bg);stroke-width:3.5px;stroke-linejoin:round}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:2px 18px;margin:2px 0 6px;padding:0;font-size:13px}
.legend li{display:flex;align-items:center;gap:6px}.swatch{width:34px;height:14px;flex:none}
pre{background:var(--panel);border:1px solid var(--line);border-radius:6px;padding:12px;overflow-x:auto;font-size:12.5px}
details{margin:10px 0}summary{cursor:pointer;color:var(--muted)}
@media print{body{max-width:none}.scroll{overflow:visible}figure{break-inside:avoid}}
)";

std::string interval_text(const metrics::Interval& interval, std::string (*format)(double)) {
  return std::isnan(interval.low) ? "" : "<small>[" + format(interval.low) + ", " + format(interval.high) + "]</small>";
}

std::string one_decimal(double value) {
  const std::string text = percent(value / 100);
  return text.substr(0, text.find(' '));
}

std::string method_table(const ReportDigest& digest, Scope scope) {
  std::string out = "<div class=\"scroll\"><table>\n<thead><tr><th>method</th><th>kept entries<small>per layer</small></th>";
  out += "<th>kept bytes<small>all layers</small></th><th>KL mean<small>[95% interval]</small></th><th>KL median</th>";
  out += "<th>recovered R<small>[95% interval]</small></th><th>L1</th><th>L2</th><th>Hellinger</th><th>JS</th>";
  out +=
      "<th>top-1<small>agreement</small></th><th>cross<small>entropy</small></th><th>less full<small>[95% "
      "interval]</small></th></tr></thead>\n<tbody>\n";
  for (std::size_t m = 0; m < digest.methods.size(); ++m) {
    const MethodResult& method = *digest.methods[m].method;
    const ScopeStatistics& statistics = digest.methods[m].scopes[static_cast<std::size_t>(scope)];
    const auto of = [&](Measure measure) -> const ColumnStatistics& {
      return statistics.columns[static_cast<std::size_t>(column(measure))];
    };
    const auto cell = [&](const std::string& text) { out += "<td>" + text + "</td>"; };
    const bool is_full = static_cast<int>(m) == digest.full;
    out += "<tr><td title=\"" + escape_html(method.description) + "\"><b>" + escape_html(method.name) + "</b></td>";
    cell(format_count(method.kept_entries));
    cell(format_bytes(method.kept_bytes));
    cell(rounded(of(Measure::kl).summary.mean) + (is_full ? "" : interval_text(of(Measure::kl).interval, rounded)));
    cell(rounded(of(Measure::kl).summary.median));
    cell(is_full ? "\u2013"
                 : percent(statistics.recovered.share) +
                       interval_text({100 * statistics.recovered.interval.low, 100 * statistics.recovered.interval.high}, one_decimal));
    for (const Measure measure : {Measure::l1, Measure::l2, Measure::hellinger, Measure::js}) cell(rounded(of(measure).summary.mean));
    cell(percent(of(Measure::top1_agreement).summary.mean));
    cell(rounded(of(Measure::cross_entropy).summary.mean));
    const ColumnStatistics& delta = statistics.columns[kDeltaCrossEntropy];
    cell(is_full ? "\u2013" : rounded_difference(delta.summary.mean) + interval_text(delta.interval, rounded));
    out += "</tr>\n";
  }
  return out + "</tbody></table></div>\n";
}

std::string segments_table(const ReportDigest& digest) {
  const FidelityResult& result = *digest.result;
  const std::size_t rows = std::min(result.segments.size(), kMaxSegmentRows);
  std::string out =
      concat("<details", rows <= 20 ? " open" : "", "><summary>", result.segments.size(), " segment(s)",
             rows < result.segments.size() ? concat(", the first ", rows, " shown; all are in segments.tsv") : "",
             "</summary>\n<div class=\"scroll\"><table>\n<thead><tr><th>segment<small>1-based</small></th><th>repeat share</th>");
  for (const MethodDigest& entry : digest.methods) {
    if (entry.method->name != "full") out += "<th>KL " + escape_html(entry.method->name) + "</th>";
  }
  if (digest.full >= 0) out += "<th>cross entropy full</th>";
  out += "</tr></thead>\n<tbody>\n";
  for (std::size_t s = 0; s < rows; ++s) {
    const Segment& segment = result.segments[s];
    out += concat("<tr><td>", escape_html(segment.name), ":", format_count(segment.begin + 1), "-",
                  format_count(segment.begin + result.length), "</td><td>", percent(segment.repeat), "</td>");
    for (const MethodDigest& entry : digest.methods) {
      if (entry.method->name != "full") out += "<td>" + rounded(entry.segment_kl[s]) + "</td>";
    }
    if (digest.full >= 0) out += "<td>" + rounded(digest.methods[static_cast<std::size_t>(digest.full)].segment_cross_entropy[s]) + "</td>";
    out += "</tr>\n";
  }
  return out + "</tbody></table></div></details>\n";
}

std::string plain_words(const ReportDigest& digest) {
  const FidelityResult& result = *digest.result;
  std::string out = concat(
      "<p>Each of ", format_count(static_cast<int64_t>(result.segments.size())), " segment(s) of ", format_count(result.length),
      " bases was run through the model with its full key-value cache, and again with each method below, which after every window of ",
      format_count(result.window),
      " bases keeps only what the table says. At every position the two predictions of the next base are compared.");
  if (result.kmer > 0) out += concat(" Methods that summarise do so for every ", format_count(result.kmer), " bases.");
  out += "</p>\n";
  if (result.skipped_n_rich > 0)
    out += concat("<p>", format_count(result.skipped_n_rich), " candidate segment(s) were skipped because they hold too many N.</p>\n");
  out +=
      "<p>KL, L1, L2, Hellinger and JS measure how far the method's prediction is from the full cache's: 0 is equal; KL and JS are in "
      "nats, over all tokens of the vocabulary. "
      "Cross entropy is that of the true next base; <i>less full</i> is the method's less the full cache's, so above zero is worse. ";
  if (digest.state_only >= 0)
    out +=
        "<i>Recovered</i> is the share of the loss of <b>state_only</b>, which keeps no entry at all, that a method avoids: 100 % is as "
        "good as the full cache, 0 % no better than keeping nothing. ";
  if (digest.noise_floor >= 0)
    out += "<b>noise_floor</b> is the full cache again, computed in other chunk sizes: differences as small as its own are rounding. ";
  return out + "Intervals are 95% bootstrap intervals over segments.</p>\n";
}

}  // namespace

std::string render_html(const ReportDigest& digest) {
  const FidelityResult& result = *digest.result;
  std::string out =
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" "
      "content=\"width=device-width,initial-scale=1\">\n<title>Fidelity of compressed memory</title>\n<style>";
  out += kStyles + figure_styles() + "</style>\n</head>\n<body>\n<h1>Fidelity of compressed memory</h1>\n";
  out += concat("<p class=\"sub\">", result.methods.size(), " methods, ", result.segments.size(), " segment(s) of ",
                format_count(result.length), " bases, window ", format_count(result.window), ", k ", format_count(result.kmer), " \u00B7 ",
                escape_html(version_line()), "</p>\n");
  if (!digest.crosses_boundary)
    out += concat(
        "<p class=\"warn\" role=\"alert\">No boundary was crossed: segments of ", format_count(result.length),
        " bases fit into one window of ", format_count(result.window),
        " bases, so no method dropped anything. These numbers say nothing about compression. Use segments longer than the window.</p>\n");
  out += "<h2>What was compared</h2>\n" + plain_words(digest);
  if (digest.crosses_boundary) {
    out +=
        concat("<h2>Behind the first boundary</h2>\n<p>Positions ", format_count(result.window), " to ", format_count(result.positions - 1),
               ": everything that is predicted after something was dropped. Means over positions unless named otherwise.</p>\n");
    out += method_table(digest, Scope::after_boundary);
    out += "<details><summary>The same over all positions, the first window included</summary>\n" + method_table(digest, Scope::all) +
           "</details>\n";
  } else {
    out += "<h2>All positions</h2>\n" + method_table(digest, Scope::all);
  }
  out += "<h2>Plots</h2>\n" + render_figures(digest);
  if (digest.scopes.size() > 2 || (!digest.crosses_boundary && digest.scopes.size() > 1)) {
    out += concat("<h2>Repeat-rich and ordinary sequence</h2>\n<p>A segment is repeat-rich when at least ", percent(kRepeatRich),
                  " of its positions follow 32 bases that occurred before, a window or more away: there a model with a long memory knows "
                  "more than one without. ",
                  digest.repeat_rich_segments, " of ", result.segments.size(), " segment(s) are.</p>\n<h3>Repeat-rich</h3>\n");
    out +=
        method_table(digest, Scope::repeat_rich) + "<h3 style=\"margin-top:18px\">Ordinary</h3>\n" + method_table(digest, Scope::ordinary);
  }
  out +=
      "<h2>Methods</h2>\n<div class=\"scroll\"><table>\n<thead><tr><th>method</th><th class=\"text\">what it is</th><th>kept "
      "entries</th><th>kept bytes</th><th>open window</th><th>time</th></tr></thead>\n<tbody>\n";
  for (const MethodResult& method : result.methods) {
    out += "<tr><td><b>" + escape_html(method.name) + "</b></td><td class=\"text wrap\">" + escape_html(method.description) + "</td><td>" +
           format_count(method.kept_entries) + "</td><td>" + format_bytes(method.kept_bytes) + "</td><td>" +
           format_bytes(method.open_bytes) + "</td><td>" + format_duration(method.seconds) + "</td></tr>\n";
  }
  out += "</tbody></table></div>\n<h2>Segments</h2>\n" + segments_table(digest);
  out += "<h2>Provenance</h2>\n<div class=\"scroll\"><table><tbody>\n";
  for (const auto& [key, value] : result.provenance)
    out += "<tr><td>" + escape_html(key) + "</td><td class=\"text wrap\">" + escape_html(value) + "</td></tr>\n";
  out += "</tbody></table></div>\n<details><summary>Resolved configuration</summary><pre>" + escape_html(result.config_json) +
         "</pre></details>\n</body>\n</html>\n";
  return out;
}

}  // namespace focus::report
