// --memory, --adapter, --window, -k, --set: which memory a program streams sequences through.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <vector>

#include "focus/compress/plan/config.h"
#include "focus/infer/stream.h"
#include "focus/weights/load_model.h"

namespace focus::cli {

struct MemoryOption {
  std::string memory;           // empty: focus with an adapter, else full
  std::string adapter;          // adapter file, or the run folder that holds adapter.safetensors
  compress::PlanOverride plan;  // of the adapter's memory, or of the default one
  std::vector<std::string> settings;  // of far memory, "far.key=value"
};

struct ChosenMemory {
  infer::StreamFactory begin_stream;
  std::shared_ptr<const compress::CompressedModel> compressed;  // null: full memory
  std::string description;
  std::string adapter;  // compress::LoadedAdapter::digest; empty: none
};

void add_memory_options(CLI::App& app, MemoryOption& option);
/// ConfigError: an unknown memory, settings without effect, Focus without an adapter.
void check(const MemoryOption& option);
ChosenMemory choose_memory(const MemoryOption& option, const weights::LoadedModel& loaded);

}  // namespace focus::cli
