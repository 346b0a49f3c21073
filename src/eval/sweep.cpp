#include "focus/eval/sweep.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <thread>

#include "fidelity_cache.h"
#include "fidelity_methods.h"
#include "focus/compress/memory/memory_factory.h"
#include "focus/core/error.h"
#include "focus/core/file.h"
#include "focus/core/folder_lock.h"
#include "focus/core/interrupt.h"
#include "focus/core/log.h"
#include "focus/core/progress.h"
#include "focus/core/staged_folder.h"
#include "focus/core/units.h"
#include "focus/core/version.h"
#include "focus/data/open_sequences.h"
#include "focus/data/region.h"
#include "focus/distributed/ranks.h"
#include "focus/model/placement.h"
#include "focus/report/fidelity_report.h"
#include "sweep_cells.h"

namespace focus::eval {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using Json = nlohmann::ordered_json;

constexpr const char* kCellFile = "cell.json";  // a cell that has it is complete
constexpr const char* kAdapterFile = "adapter.safetensors";
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
/// Passes over a sequence that a training step costs: full memory, forward, and backward as two.
constexpr double kTrainingPasses = 4;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// What processes that were killed left of a folder, or one at work is about to put in its place.
std::vector<fs::path> leftovers_of(const fs::path& folder) {
  const std::string prefix = folder.filename().string() + ".tmp-";
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(folder.parent_path())) {
    if (entry.path().filename().string().starts_with(prefix)) found.push_back(entry.path());
  }
  return found;
}
/// The folder's lock is held.
void remove_leftovers(const fs::path& folder) {
  std::error_code ignored;  // what stays is in nobody's way
  for (const fs::path& path : leftovers_of(folder)) fs::remove_all(path, ignored);
}

int64_t bases_of(const PlannedCell& cell) {
  data::FastaOptions reading;
  reading.allow_truncated = cell.config.allow_truncated;
  const auto fasta = data::open_sequences(cell.config.fasta, reading);
  const auto regions = data::read_regions(cell.config.regions, *fasta);
  auto count = static_cast<int64_t>(regions.empty() ? fasta->names().size() : regions.size());
  if (cell.config.records > 0) count = std::min(count, cell.config.records);
  return count * cell.config.segments * cell.config.length;
}

/// The cell without what is not trained yet: the closed form stands for the adapter, whose entries are as
/// many.
FidelityConfig untrained(const PlannedCell& cell) {
  FidelityConfig config = cell.config;
  if (cell.training.empty()) return config;
  config.adapter.clear();
  config.plan = {};
  config.memory = compress::closed_form(cell.memory);
  config.methods.clear();
  for (std::string name : fidelity_methods(cell.config)) {
    if (name == "focus") name = "fitted";
    if (std::find(config.methods.begin(), config.methods.end(), name) == config.methods.end())
      config.methods.push_back(name);
  }
  return config;
}

}  // namespace

struct Sweep::Work {
  explicit Work(int64_t logits_bytes)
      : cache(logits_bytes, [this](int64_t, const std::string& what) {
          if (progress) progress->set(done, name + ": " + what);
        }) {}
  std::optional<Progress> progress;
  int64_t done = 0;
  std::string name;  // of the cell that is measured
  FidelityCache cache;
};

Sweep::Sweep(SweepConfig config, std::string device, SweepOptions options)
    : config_(std::move(config)),
      device_(std::move(device)),
      options_(std::move(options)),
      keys_(grid_keys(config_)),
      work_(std::make_unique<Work>(config_.cached_logits)) {
  const at::NoGradGuard no_grad;
  cells_ = plan_cells(config_, options_, device_, work_->cache);
}

Sweep::~Sweep() = default;

fs::path Sweep::folder_of(const PlannedCell& cell) const { return options_.output / "cells" / cell.id; }
fs::path Sweep::failure_of(const PlannedCell& cell) const {
  return options_.output / "failed" / (cell.id + ".txt");
}
std::string Sweep::name_of(const PlannedCell& cell) const { return cell_name(keys_, cell.values); }
bool Sweep::is_done(const PlannedCell& cell) const { return fs::exists(folder_of(cell) / kCellFile); }

void Sweep::run() {
  try {
    fs::create_directories(options_.output / "cells");
    fs::create_directories(options_.output / "failed");
    // The file system's clock, by which the failures of others are told from older ones.
    write_file(options_.output / "failed" / ".started", "");
    started_ = fs::last_write_time(options_.output / "failed" / ".started");
  } catch (const fs::filesystem_error& error) {
    fail<DataError>("cannot write the folder '", options_.output.string(), "': ", error.code().message());
  }
  // Cells that share segments come one after the other, and share what the cache holds.
  std::vector<std::size_t> open(cells_.size());
  std::iota(open.begin(), open.end(), std::size_t{0});
  std::vector<std::string> groups;
  for (const PlannedCell& cell : cells_) {
    const compress::WindowPlan plan(cell.memory.window, cell.memory.focus.k);
    const int64_t chunk = cell.config.chunk > 0 ? cell.config.chunk : plan.window_bases();
    groups.push_back(FidelityCache::group_of(cell.config, chunk));
  }
  std::vector<std::string> order;
  for (const std::string& group : groups) {
    if (std::find(order.begin(), order.end(), group) == order.end()) order.push_back(group);
  }
  std::stable_sort(open.begin(), open.end(), [&](std::size_t a, std::size_t b) {
    const auto place = [&](std::size_t i) { return std::find(order.begin(), order.end(), groups[i]); };
    return place(a) < place(b);
  });
  std::erase_if(open, [&](std::size_t i) {
    if (!is_done(cells_[i])) return false;
    // A process that was killed right after a cell had taken its place left what was there before.
    const fs::path folder = folder_of(cells_[i]);
    if (leftovers_of(folder).empty()) return true;
    if (const auto lock = FolderLock::try_take(folder)) remove_leftovers(folder);
    return true;
  });
  work_->done = static_cast<int64_t>(cells_.size() - open.size());
  work_->progress.emplace(ProgressOptions{
      .label = "sweep", .unit = "cells", .total = static_cast<int64_t>(cells_.size()), .start = work_->done});
  // A worker keeps to cells that share segments, and to those that no other works at, so that full memory is
  // measured over and over again by none. When no others are left it helps with theirs.
  std::unique_ptr<FolderLock> segments;
  std::string group;
  bool helps = false;
  while (!open.empty()) {
    const std::size_t before = open.size();
    std::erase_if(open, [&](std::size_t i) {
      if (interrupt_requested())
        fail<Interrupted>("interrupted; cells that are done stay, start again to continue");
      if (groups[i] != group && !helps) {
        auto lock = FolderLock::try_take(options_.output / "locks" / segments_id(groups[i]));
        if (lock == nullptr) return false;
        segments = std::move(lock);
        group = groups[i];
      }
      work_->name = name_of(cells_[i]);
      if (attempt(cells_[i]) == Outcome::busy) return false;
      work_->progress->set(++work_->done, work_->name);
      return true;
    });
    if (open.size() < before) continue;
    // What is left is done elsewhere, or was until its process was lost.
    if (helps) std::this_thread::sleep_for(std::chrono::milliseconds(300));
    helps = true;
  }
  work_->progress->finish();
  work_->progress.reset();
}

Sweep::Outcome Sweep::attempt(const PlannedCell& cell) {
  if (is_done(cell)) return Outcome::done;
  const auto lock = FolderLock::try_take(folder_of(cell));
  if (lock == nullptr) return Outcome::busy;
  if (is_done(cell)) return Outcome::done;
  const fs::path failure = failure_of(cell);
  if (fs::exists(failure) &&
      fs::last_write_time(failure) > started_) {  // by a process at work beside this one
    if (failed_exit_code_ == 0) failed_exit_code_ = static_cast<int>(ExitCode::data);
    return Outcome::failed;
  }
  std::string what;
  int code = static_cast<int>(ExitCode::check_failed);
  try {
    double train_seconds = kNan;
    if (const fs::path folder = cell.config.adapter;
        !cell.training.empty() && !fs::exists(folder / kAdapterFile)) {
      // Another cell's process may train the same adapter.
      const auto training = FolderLock::try_take(options_.output / "locks" / cell.training);
      if (training == nullptr) return Outcome::busy;
      if (!fs::exists(folder / kAdapterFile)) {
        work_->progress->set(work_->done,
                             concat(work_->name, ": training, see ", (folder / "metrics.jsonl").string()));
        const auto start = Clock::now();
        const bool fresh = !fs::exists(folder);
        options_.trainer->train(cell.train_plan, folder);
        if (fresh) train_seconds = seconds_since(start);
      }
    }
    measure(cell, folder_of(cell), train_seconds);
    fs::remove(failure);
    return Outcome::done;
  } catch (const Interrupted&) {
    throw;
  } catch (const Error& error) {
    what = error.what();
    code = static_cast<int>(error.exit_code());
  } catch (const c10::Error& error) {
    what = error.what_without_backtrace();
  } catch (const std::bad_alloc&) {
    what = "out of memory; use a shorter length";
    code = static_cast<int>(ExitCode::resources);
  } catch (const std::exception& error) {
    what = error.what();
  }
  if (failed_exit_code_ == 0) failed_exit_code_ = code;
  write_file(failure,
             concat(what, "\n\ncell ", cell.id, ": ", name_of(cell), "\n", config::to_json(cell.config),
                    cell.training.empty() ? "" : "\ntraining\n", cell.train_plan.config_json));
  log::error(concat("cell ", name_of(cell), " failed: ", what, " (", failure.string(), ")"));
  return Outcome::failed;
}

void Sweep::measure(const PlannedCell& cell, const fs::path& folder, double train_seconds) {
  remove_leftovers(folder);
  StagedFolder staged(folder);
  const auto start = Clock::now();
  std::optional<report::ValuesFile> values;
  if (cell.config.positions) values.emplace(staged.temporary() / report::kValuesFile);
  report::FidelityResult result =
      run_fidelity(cell.config, device_, model::parse_dtype(cell.config.dtype), *distributed::one_rank(),
                   &work_->cache, report::writer(values));
  result.provenance["command_line"] = options_.command_line;
  result.provenance["cell"] = name_of(cell);
  if (values) values->finish(result);
  report::write_fidelity_report(result, staged.temporary());
  Json json;
  json["id"] = cell.id;
  for (std::size_t i = 0; i < keys_.size(); ++i) json["settings"][keys_[i]] = cell.values[i];
  json["training"] = cell.training;
  json["bases"] = static_cast<int64_t>(result.segments.size() * result.methods.size()) * result.length;
  json["seconds"] = seconds_since(start);
  json["train_seconds"] = std::isnan(train_seconds) ? Json(nullptr) : Json(train_seconds);
  write_file(staged.temporary() / kCellFile, json.dump(2) + "\n");
  staged.commit();
}

report::SweepResult Sweep::result() const {
  report::SweepResult out;
  out.keys = keys_;
  out.scale = config_.scale;
  out.config_json = config::to_json(config_);
  out.provenance["version"] = version();
  out.provenance["git"] = git_hash();
  out.provenance["command_line"] = options_.command_line;
  for (const PlannedCell& cell : cells_) {
    report::SweepCell& row = out.cells.emplace_back();
    row.id = cell.id;
    row.values = cell.values;
    row.folder = "cells/" + cell.id;
    row.train_seconds = kNan;
    if (is_done(cell)) {
      row.run = report::read_run_summary(folder_of(cell));
      const Json json = Json::parse(read_file((folder_of(cell) / kCellFile).string()));
      if (json.at("train_seconds").is_number()) row.train_seconds = json.at("train_seconds");
    } else if (fs::exists(failure_of(cell))) {
      const std::string text = read_file(failure_of(cell).string());
      row.missing = "failed: " + text.substr(0, text.find('\n'));
    } else {
      row.missing = "not done";
    }
  }
  return out;
}

std::string Sweep::describe() {
  const at::NoGradGuard no_grad;
  std::string text;
  double bases_done = 0, seconds_done = 0, passes_left = 0, training_left = 0;
  std::size_t num_done = 0;
  std::map<std::string, double> trainings;  // bases of those to do
  const PlannedCell* first = nullptr;
  for (const PlannedCell& cell : cells_) {
    const bool done = is_done(cell);
    text += concat("cell ", cell.id, "  ", name_of(cell), "  ", done ? "done" : "to do");
    const FidelityConfig config = untrained(cell);
    const auto& loaded = work_->cache.model(config, device_, model::parse_dtype(config.dtype));
    for (const Method& method : make_methods(config, cell.memory, loaded.model, loaded.digest)) {
      if (!method.planned) continue;
      const compress::MemoryUse use = method.planned(config.length);
      text += concat("\n  ", method.name, ": ", format_bytes(use.retained_bytes), " kept, ",
                     format_bytes(use.open_bytes), " of the open window",
                     use.far_bytes > 0 ? ", " + format_bytes(use.far_bytes) + " far" : "");
    }
    text += "\n";
    if (done) {
      ++num_done;
      const Json json = Json::parse(read_file((folder_of(cell) / kCellFile).string()));
      bases_done += json.at("bases").get<double>();
      seconds_done += json.at("seconds").get<double>();
      continue;
    }
    if (first == nullptr) first = &cell;
    passes_left +=
        static_cast<double>(bases_of(cell)) * static_cast<double>(fidelity_methods(cell.config).size());
    if (!cell.training.empty() && !fs::exists(fs::path(cell.config.adapter) / kAdapterFile))
      trainings[cell.training] = static_cast<double>(cell.train_plan.bases);
  }
  for (const auto& [id, bases] : trainings) training_left += bases;
  text += concat(cells_.size(), " cell(s): ", num_done, " done, ", cells_.size() - num_done, " to measure, ",
                 trainings.size(), " training(s) before\n");
  if (first == nullptr) return text;
  std::string from = "the finished cells";
  if (bases_done == 0) {
    FidelityConfig probe = untrained(*first);
    probe.segments = 1;
    probe.planted = {};
    probe.needles = {};
    probe.length = std::min(probe.length, 2 * first->memory.window.size + 1);
    probe.methods = {"fitted"};
    probe.adapter.clear();
    probe.adapters.clear();
    probe.memory = compress::closed_form(first->memory);
    probe.plan = {};
    const auto result = run_fidelity(probe, device_, model::parse_dtype(probe.dtype),
                                     *distributed::one_rank(), &work_->cache);
    bases_done = static_cast<double>(result.segments.size() * result.methods.size()) *
                 static_cast<double>(probe.length);
    for (const auto& method : result.methods) seconds_done += method.seconds;
    from = concat("a probe of ", format_count(probe.length), " bases");
  }
  const double rate = bases_done / seconds_done;
  text += concat("about ", format_duration(passes_left / rate), " of evaluation and ",
                 format_duration(kTrainingPasses * training_left / rate),
                 " of training in one process, from ", from, "; a training step is taken as ",
                 kTrainingPasses, " passes, and full attention to long segments costs more than this says\n");
  return text;
}

}  // namespace focus::eval
