#include "sweep_cells.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "focus/compress/focus/adapter_file.h"
#include "focus/core/error.h"
#include "focus/core/version.h"
#include "focus/data/open_sequences.h"
#include "focus/formats/digest.h"
#include "focus/model/placement.h"
#include "focus/weights/model_files.h"

namespace focus::eval {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr std::size_t kIdDigits = 16;
/// Files of a model that are hashed whole beside the fingerprint of its tensors: configuration and tokenizer.
constexpr std::uintmax_t kLargestWhole = std::uintmax_t{16} << 20;

std::string id_of(const std::string& text) {
  return formats::digest({}, {{"cell", text}}).substr(0, kIdDigits);
}

/// Whether a configuration has this setting.
bool has(const Json& config, const std::string& path) {
  const Json* at = &config;
  for (std::size_t begin = 0; begin <= path.size();) {
    const std::size_t end = std::min(path.find('.', begin), path.size());
    const std::string step = path.substr(begin, end - begin);
    if (at->is_object() && at->contains(step)) {
      at = &(*at)[step];
    } else if (at->is_array() && !step.empty() && step.find_first_not_of("0123456789") == std::string::npos &&
               step.size() < 9 && std::stoul(step) < at->size()) {
      at = &(*at)[std::stoul(step)];
    } else {
      return false;
    }
    begin = end + 1;
  }
  return true;
}

/// Settings of a memory, which an adapter brings along from its training.
bool belongs_to_adapter(const std::string& key) {
  constexpr std::array kGroups = {"window",    "focus",   "memory", "tables",
                                  "quantised", "storage", "far",    "adapter"};
  const std::string group = key.substr(0, key.find('.'));
  return std::find(kGroups.begin(), kGroups.end(), group) != kGroups.end();
}

class Planner {
 public:
  Planner(const SweepConfig& config, const SweepOptions& options, const std::string& device,
          FidelityCache& cache)
      : config_(config), options_(options), device_(device), cache_(cache) {
    if (config.train.config.empty()) return;
    FOCUS_CHECK(options.trainer != nullptr, "a sweep that trains without a trainer");
    base_training_ = Json::parse(options.trainer->plan(config.train.set, config.scale).config_json);
  }

  PlannedCell plan(const std::vector<std::pair<std::string, std::string>>& settings) {
    PlannedCell cell;
    for (const auto& [key, value] : settings) {
      const Json json = Json::parse(value);
      cell.values.push_back(json.is_string() ? json.get<std::string>() : value);
    }
    std::vector<std::string> evaluation, training = config_.train.set;
    for (const auto& [key, value] : settings) route(key, value, evaluation, training);
    config::read_text(config::to_json(config_.evaluation), "the sweep's evaluation", evaluation, cell.config);
    // Where records are drawn there may be one segment of each.
    int64_t& scaled = cell.config.records > 0 ? cell.config.records : cell.config.segments;
    scaled = std::max<int64_t>(1, std::llround(config_.scale * static_cast<double>(scaled)));
    if (!config_.train.config.empty()) {
      if (!cell.config.adapter.empty())
        fail<ConfigError>(
            "adapter: the cell's adapter is the one that it trains; remove the setting, or name it "
            "under adapters");
      cell.train_plan = options_.trainer->plan(training, config_.scale);
      cell.training = id_of(cell.train_plan.identity);
      cell.config.adapter = (options_.output / "trainings" / cell.training).string();
      cell.memory = cell.config.plan.on(cell.train_plan.memory);
    }
    cell.config.validate();
    const auto methods = fidelity_methods(cell.config);
    if (cell.training.empty()) {
      cell.memory = resolve_memory(cell.config);
    } else if (std::find(methods.begin(), methods.end(), "focus") == methods.end()) {
      fail<ConfigError>("train has no effect: methods does not name 'focus', the adapter that is trained");
    }
    cell.id = id_of(identity(cell, methods));
    return cell;
  }

 private:
  /// A setting goes to the evaluation and to the training, where both have it.
  void route(const std::string& key, const std::string& value, std::vector<std::string>& evaluation,
             std::vector<std::string>& training) const {
    const bool trains = !config_.train.config.empty();
    const auto add = [&](std::vector<std::string>& to, const std::string& name) {
      to.push_back(name + "=" + value);
    };
    if (key.starts_with("eval.")) return add(evaluation, key.substr(5));
    if (key.starts_with("train.")) {
      if (!trains) fail<ConfigError>("sweep: '", key, "' has no effect: train.config is not set");
      return add(training, key.substr(6));
    }
    const bool in_training = trains && has(base_training_, key);
    if (in_training) add(training, key);
    const bool in_evaluation = has(evaluation_, key) && !(in_training && belongs_to_adapter(key));
    // What neither has is refused by the reader, which knows the nearest name.
    if (in_evaluation || !in_training) add(evaluation, key);
  }

  /// Everything that the figures depend on, as text: contents of files, not their names.
  std::string identity(const PlannedCell& cell, const std::vector<std::string>& methods) {
    FidelityConfig c = cell.config;
    std::string files;
    const auto add = [&](const std::string& what, const std::string& value) {
      files += what + " " + value + "\n";
    };
    add("version", version());
    add("git", git_hash());
    add("device", device_.substr(0, device_.find(':')));
    add("model", model_digest(c));
    add("fasta", file_digest(c.fasta));
    if (!cell.training.empty()) {
      add("training", cell.training);
    } else if (!c.adapter.empty()) {
      add("adapter", file_digest(compress::adapter_file(c.adapter)));
    }
    for (auto& [label, path] : c.adapters) {
      add("adapters." + label, file_digest(compress::adapter_file(path)));
      path.clear();
    }
    for (std::string& region : c.regions) {
      if (region.find(".bed") != std::string::npos) region = file_digest(region);
    }
    c.model_config = c.model_checkpoint = c.fasta = c.device = "";
    c.adapter = c.adapter.empty() ? "" : "yes";
    c.threads = 0;
    c.rank_timeout_seconds = FidelityConfig().rank_timeout_seconds;
    c.methods = methods;
    return files + config::to_json(c);
  }

  const std::string& file_digest(const fs::path& path) {
    std::string& digest = digests_[path.string()];
    if (digest.empty()) digest = data::source_digest(path);
    return digest;
  }

  const std::string& model_digest(const FidelityConfig& config) {
    std::string& digest = models_[{config.model_config, config.model_checkpoint}];
    if (!digest.empty()) return digest;
    digest = cache_.model(config, device_, model::parse_dtype(config.dtype)).digest;
    for (const NamedPath& file : weights::model_files(config.model_config, config.model_checkpoint)) {
      if (fs::is_regular_file(file.path) && fs::file_size(file.path) <= kLargestWhole)
        digest += " " + file_digest(file.path);
    }
    return digest;
  }

  const SweepConfig& config_;
  const SweepOptions& options_;
  const std::string& device_;
  FidelityCache& cache_;
  const Json evaluation_ = Json::parse(config::to_json(FidelityConfig()));
  Json base_training_;
  std::map<std::string, std::string> digests_;
  std::map<std::pair<std::string, std::string>, std::string> models_;
};

}  // namespace

std::vector<std::string> grid_keys(const SweepConfig& config) {
  std::vector<std::string> keys;
  for (const SweepAxis& axis : config.axes) keys.insert(keys.end(), axis.keys.begin(), axis.keys.end());
  return keys;
}

std::string segments_id(const std::string& group) { return "segments-" + id_of(group); }

std::string cell_name(const std::vector<std::string>& keys, const std::vector<std::string>& values) {
  std::string name;
  for (std::size_t i = 0; i < keys.size(); ++i) name += concat(i > 0 ? ", " : "", keys[i], " ", values[i]);
  return name.empty() ? "the only cell" : name;
}

std::vector<PlannedCell> plan_cells(const SweepConfig& config, const SweepOptions& options,
                                    const std::string& device, FidelityCache& cache) {
  std::size_t count = 1;
  for (const SweepAxis& axis : config.axes) {
    count *= axis.values.size();
    constexpr std::size_t kMostCells = 100000;
    if (count > kMostCells) fail<ConfigError>("sweep: more than ", kMostCells, " cells");
  }
  Planner planner(config, options, device, cache);
  const std::vector<std::string> keys = grid_keys(config);
  std::vector<PlannedCell> cells;
  std::map<std::string, std::string> names;
  for (std::size_t index = 0; index < count; ++index) {
    std::vector<std::pair<std::string, std::string>> settings;
    std::size_t below = count, rest = index;
    for (const SweepAxis& axis : config.axes) {
      below /= axis.values.size();
      const auto& value = axis.values[rest / below];
      rest %= below;
      for (std::size_t i = 0; i < axis.keys.size(); ++i) settings.emplace_back(axis.keys[i], value[i]);
    }
    std::string shown;
    for (const auto& [key, value] : settings) shown += concat(shown.empty() ? "" : ", ", key, " ", value);
    try {
      cells.push_back(planner.plan(settings));
    } catch (const ConfigError& error) {
      if (settings.empty()) throw;
      fail<ConfigError>("cell ", shown, ": ", error.what());
    }
    const auto [twin, fresh] = names.emplace(cells.back().id, shown);
    if (!fresh)
      fail<ConfigError>("cells ", twin->second, " and ", shown,
                        " are the same: a setting of the grid changes nothing; remove it");
  }
  return cells;
}

}  // namespace focus::eval
