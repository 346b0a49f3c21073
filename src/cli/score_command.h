// focus-infer score.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "common.h"
#include "focus/data/letters.h"
#include "focus/infer/score.h"
#include "memory_option.h"

namespace focus::cli {

struct ScoreCommand {
  CommonOptions common;
  std::string model_config, checkpoint, fasta, bed, output, logits, save_state, load_state;
  std::vector<std::string> regions;
  infer::ScoreOptions options;
  bool choose_chunk = true;  // --chunk auto
  MemoryOption memory;
  weights::Fp8 fp8 = weights::Fp8::emulate;
  data::CasePolicy case_policy = data::CasePolicy::upper;
  data::AmbiguousPolicy ambiguous = data::AmbiguousPolicy::mask;
};

/// Adds the subcommand; its options are filled into `command` by parsing.
CLI::App* add_score(CLI::App& app, ScoreCommand& command);
/// Scores what the command names; `command_line` is recorded in the output.
void run_score(const ScoreCommand& command, const std::string& command_line);

}  // namespace focus::cli
