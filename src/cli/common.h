// What all focus programs share: common options, and the one place where errors become exit codes.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "focus/distributed/rank_environment.h"

namespace focus::cli {

struct CommonOptions {
  std::string config;
  std::vector<std::string> overrides;  // --set path=value
  std::string device, dtype;           // empty: as configured
  std::optional<int64_t> threads, seed;
  int verbose = 0;
  bool quiet = false;
};

/// --device, --dtype, --threads, -q, -v: for programs and subcommands without a configuration file.
void add_machine_options(CLI::App& app, CommonOptions& options);
/// -t, for `what` on this machine: at most 16 for each of its processors.
void add_threads(CLI::App& app, CommonOptions& options, const std::string& what);
/// -q alone.
void add_quiet(CLI::App& app, CommonOptions& options);
/// All of these, and --config, --set, --seed.
void add_common_options(CLI::App& app, CommonOptions& options);
/// A count of bases or the like, as parse_count() reads it ("1024", "100k").
CLI::Option* add_count(CLI::App& app, const std::string& name, int64_t& target, const std::string& help);
/// As add_count(), 0 standing for no value.
CLI::Option* add_count(CLI::App& app, const std::string& name, std::optional<int64_t>& target,
                       const std::string& help);
/// A size in bytes of at least 1, as parse_bytes() reads it ("500M", "5G").
CLI::Option* add_bytes(CLI::App& app, const std::string& name, int64_t& target, const std::string& help);
/// Why a text is no count; empty when it is one.
std::string count_error(const std::string& text);
/// An option with named values; the first is the default.
template <class Enum>
void add_choice(CLI::App& app, const std::string& name, Enum& target,
                const std::vector<std::pair<std::string, Enum>>& values, const std::string& help) {
  std::vector<std::string> names;
  for (const auto& value : values) names.push_back(value.first);
  target = values.front().second;
  const auto take = [&target, values](const std::string& text) {
    for (const auto& value : values) {
      if (value.first == text) target = value.second;
    }
  };
  app.add_option_function<std::string>(name, take, help)
      ->check(CLI::IsMember(names))
      ->default_str(names.front());
}
/// -q/-v alone, for what is said before the rest can be applied.
void apply_verbosity(const CommonOptions& options);
/// -q/-v, threads, interrupt handlers. ConfigError: more threads than add_threads() takes.
void apply_common_options(const CommonOptions& options, int64_t configured_threads);

/// The command line as a shell would take it.
std::string quoted_command(int argc, char** argv);

/// Ranks of one machine share its cores and take a GPU each; only rank 0 reports progress. `threads` and
/// `device` are those of the run's configuration; what the command line says of `device` has been applied.
void apply_rank(const distributed::RankEnvironment& environment, int64_t& threads, std::string& device,
                CommonOptions& common);

/// Parses, which runs the callbacks of the subcommands, then runs `body`; maps exceptions to exit codes (see
/// core/error.h) with one message on stderr. In a build for the CPU it ends the process itself.
int run_program(CLI::App& app, int argc, char** argv, const std::function<void()>& body = [] {});

}  // namespace focus::cli
