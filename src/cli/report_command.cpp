#include <filesystem>
#include <iostream>
#include <limits>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "commands.h"
#include "focus/core/error.h"
#include "focus/core/version.h"
#include "focus/report/kvpress.h"
#include "focus/report/report_folder.h"
#include "focus/report/run_summary.h"
#include "focus/report/sweep_report.h"

namespace focus::cli {
namespace {

namespace fs = std::filesystem;

struct ReportCommand {
  CommonOptions common;
  std::vector<std::string> runs;
  std::string output, kvpress;
  bool force = false;
};

struct NamedRun {
  std::string name;
  fs::path folder;
  report::RunSummary run;
};

/// NAME=FOLDER or FOLDER, which is its name. Of a sweep's folder every cell that is done, by its settings.
std::vector<NamedRun> named_runs(const std::vector<std::string>& given) {
  std::vector<NamedRun> runs;
  for (const std::string& text : given) {
    const std::size_t equals = text.find('=');
    const bool named = equals != std::string::npos && !fs::exists(text);
    const fs::path folder = named ? text.substr(equals + 1) : text;
    const std::string name = named ? text.substr(0, equals) : folder.lexically_normal().string();
    if (!fs::is_directory(folder / "cells")) {
      runs.push_back({name, folder, report::read_run_summary(folder)});
      continue;
    }
    std::map<std::string, NamedRun> cells;  // by their settings
    for (const auto& entry : fs::directory_iterator(folder / "cells")) {
      if (!fs::exists(entry.path() / "cell.json")) continue;
      report::RunSummary run = report::read_run_summary(entry.path());
      const std::string settings = run.provenance.at("cell");
      cells[settings] = {given.size() > 1 ? concat(name, ", ", settings) : settings, entry.path(),
                         std::move(run)};
    }
    if (cells.empty()) fail<DataError>("the sweep '", folder.string(), "' has no cell that is done");
    for (auto& [settings, cell] : cells) runs.push_back(std::move(cell));
  }
  return runs;
}

/// Absolute; of a folder that is not there yet, too.
fs::path plain(const fs::path& path) { return fs::weakly_canonical(fs::absolute(path)); }

void run_report(const ReportCommand& c, const std::string& command_line) {
  apply_verbosity(c.common);
  if (c.output.empty() && c.kvpress.empty())
    fail<ConfigError>("nothing to write: name the page's folder with --output, or --kvpress");
  report::SweepResult result;
  result.title = "Runs";
  result.keys = {"run"};
  result.provenance = {{"version", version()}, {"git", git_hash()}, {"command_line", command_line}};
  result.config_json = "{}";
  std::set<std::string> names;
  const std::vector<NamedRun> runs = named_runs(c.runs);
  if (!c.kvpress.empty() && runs.size() > 1)
    fail<ConfigError>("--kvpress is for one run, ", runs.size(),
                      " are named; name one, or a cell of a sweep");
  for (const NamedRun& run : runs) {
    if (!names.insert(run.name).second)
      fail<ConfigError>("two runs are called '", run.name, "'; name them: NAME=FOLDER");
    report::SweepCell& cell = result.cells.emplace_back();
    cell.id = run.name;
    cell.values = {run.name};
    cell.run = run.run;
    cell.train_seconds = std::numeric_limits<double>::quiet_NaN();
    if (!c.output.empty()) cell.folder = plain(run.folder).lexically_relative(plain(c.output)).string();
  }
  if (!c.output.empty()) {
    report::ReportFolder folder(c.output, c.force);
    report::write_sweep_report(result, folder.temporary());
    folder.commit();
    for (const std::string& note : report::sweep_notes(result)) std::cout << note << "\n";
    std::cout << (fs::path(c.output) / "sweep.html").string() << std::endl;
  }
  if (c.kvpress.empty()) return;
  report::write_kvpress_folders(runs[0].folder, c.kvpress);
  std::cout << c.kvpress << std::endl;
}

}  // namespace

void add_report(CLI::App& app, const std::string& command_line) {
  CLI::App* sub = app.add_subcommand(
      "report",
      "Puts the methods of several finished runs into one page, or writes a run's answers in the "
      "form of kvpress.");
  const auto command = std::make_shared<ReportCommand>();
  ReportCommand& c = *command;
  sub->option_defaults()->group("Input");
  sub->add_option(
         "runs", c.runs,
         "folders of fidelity runs, or of sweeps, whose cells they are; NAME=FOLDER gives a run a name")
      ->required()
      ->type_name("RUN");
  sub->option_defaults()->group("Output");
  sub->add_option("-o,--output", c.output, "the page's folder: sweep.html, sweep.tsv, sweep.json");
  sub->add_option("--kvpress", c.kvpress,
                  "write the runs' answers to needles here, a folder per method: predictions.csv, "
                  "metrics.json, config.yaml");
  sub->add_flag("-f,--force", c.force, "replace an earlier page in --output");
  add_quiet(*sub, c.common);
  sub->callback([command, command_line] { run_report(*command, command_line); });
}

}  // namespace focus::cli
