#include "memory_option.h"

#include <algorithm>

#include "common.h"
#include "focus/compress/focus/adapter_file.h"
#include "focus/compress/memory/memory_factory.h"
#include "focus/compress/memory/named_settings.h"
#include "focus/config/differences.h"
#include "focus/core/error.h"

namespace focus::cli {
namespace {

constexpr const char* kFocus = "focus";
constexpr const char* kFull = "full";

std::string resolved(const MemoryOption& option) {
  if (!option.memory.empty()) return option.memory;
  return option.adapter.empty() ? kFull : kFocus;
}

struct FarSettings {
  compress::FarConfig far;
  void visit(config::Fields& f) { f.group("far", far, "far memory"); }
};

/// Reads --set into `config`. What it changes of the results, as part of a description.
std::string set_far(const std::vector<std::string>& settings, compress::MemoryConfig& config) {
  if (settings.empty()) return "";
  FarSettings read{config.far};
  config::read_file("", settings, read);
  const std::vector<std::string> no_result = {"place", "folder", "hot"};
  std::string out;
  for (const std::string& change :
       config::differences(config::to_json(config.far), config::to_json(read.far), no_result))
    out += ", far." + change;
  config.far = read.far;
  return out;
}

}  // namespace

void add_memory_options(CLI::App& app, MemoryOption& option) {
  app.option_defaults()->group("Memory");
  std::string names = "focus (needs --adapter)";
  for (const auto& name : compress::memory_names()) names += ", " + name;
  app.add_option("--memory", option.memory,
                 "what is kept of keys and values when a window closes: " + names +
                     "; default: full, or focus with --adapter");
  app.add_option("--adapter", option.adapter,
                 "trained Focus adapter: its file, or the run folder that holds it");
  add_count(app, "--window", option.plan.window, "bases per window; 0 = the adapter's, or 1024");
  add_count(app, "-k,--kmer", option.plan.k,
            "bases per Focus token, which also sets the rivals' byte budget; 0 = the adapter's, or 100");
  app.add_option("--set", option.settings,
                 "one setting of far memory, of memories named far_... and of adapters: far.key=value, as "
                 "focus-eval fidelity --help-config lists them; may be repeated")
      ->allow_extra_args(false)
      ->take_all();
}

void check(const MemoryOption& option) {
  const std::string memory = resolved(option);
  const auto names = compress::memory_names();
  if (memory != kFocus && std::find(names.begin(), names.end(), memory) == names.end()) {
    std::string known = kFocus;
    for (const auto& name : names) known += ", " + name;
    fail<ConfigError>("--memory ", memory, ": unknown; known: ", known);
  }
  if (memory == kFocus && option.adapter.empty())
    fail<ConfigError>("--memory focus needs --adapter; without one use --memory mixture");
  if (memory != kFocus && !option.adapter.empty())
    fail<ConfigError>("--adapter has no effect with --memory ", memory, "; drop one of them");
  if (memory == kFull && (option.plan.window || option.plan.k))
    fail<ConfigError>("--window and -k have no effect with --memory full");
  if (!option.settings.empty() && memory != kFocus && !compress::stands_on_far(memory))
    fail<ConfigError>("--set ", option.settings[0], " has no effect with --memory ", memory,
                      "; it is of an adapter and of the memories named far_...");
}

ChosenMemory choose_memory(const MemoryOption& option, const weights::LoadedModel& loaded) {
  check(option);
  const std::string memory = resolved(option);
  if (memory == kFull) return {infer::plain_stream(*loaded.model), nullptr, "full memory", ""};
  compress::MemoryConfig config;
  std::string digest;   // of the adapter
  std::string adapted;  // how the adapter changes the backbone, if it does
  std::string set;      // what --set changes of the results
  std::shared_ptr<compress::CompressedModel> compressed;
  if (memory == kFocus) {
    const auto trained =
        compress::load_adapter(compress::adapter_file(option.adapter), loaded.model, loaded.digest);
    config = option.plan.on(trained.adapter->config());
    set = set_far(option.settings, config);
    digest = trained.digest;
    adapted = trained.adapted.config.describe();
    const auto& backbone = trained.adapted.backbone;
    compressed = std::make_shared<compress::CompressedModel>(backbone, trained.adapter->with(config));
  } else {
    config = option.plan.on({});
    if (compress::stands_on_far(memory)) config.far = compress::far_by_name(memory, config.far);
    set = set_far(option.settings, config);
    config.validate();
    compressed = compress::make_memory(memory, loaded.model, config);
  }
  const std::string description = concat(memory, " W=", config.window.size, " k=", config.focus.k,
                                         adapted.empty() ? "" : ", ", adapted, set);
  return {infer::compressed_stream(compressed, description), compressed, description, digest};
}

}  // namespace focus::cli
