#include <filesystem>
#include <memory>

#include "commands.h"
#include "focus/core/error.h"
#include "focus/core/interrupt.h"
#include "focus/core/log.h"
#include "focus/core/progress.h"
#include "focus/core/units.h"
#include "focus/core/version.h"
#include "focus/data/open_sequences.h"
#include "focus/data/pack.h"
#include "focus/train/run/run_folder.h"

namespace focus::cli {
namespace {

struct PackCommand {
  CommonOptions common;
  std::vector<std::string> fasta, jsonl, regions, exclude;
  std::string output;
  bool force = false, allow_truncated = false;
};

void run(const CLI::App& app, const PackCommand& c, const std::string& command_line) {
  for (const CLI::Option* option : app.get_options()) {
    if (option->count() > 0)
      fail<ConfigError>(option->get_name(),
                        " before 'pack' has no effect: it belongs to training; see focus-train pack --help");
  }
  apply_common_options(c.common, 1);
  if (c.fasta.empty() && c.jsonl.empty())
    fail<ConfigError>("nothing to pack: name a file with --fasta or --jsonl");
  if (c.output.empty()) fail<ConfigError>("--output is missing: name the file to write");
  std::error_code ignored;
  if (!c.force && std::filesystem::is_regular_file(c.output, ignored))
    fail<ConfigError>("'", c.output, "' exists; pass --force to replace it, or another --output");

  std::vector<data::PackSource> sources;
  const auto add = [&](const std::string& given, bool jsonl) {
    for (const auto& file :
         data::sequence_files(given, jsonl ? data::SequenceKind::jsonl : data::SequenceKind::fasta))
      sources.push_back({file.string(), jsonl, {}, data::line_prefix(given, file)});
  };
  for (const std::string& path : c.fasta) add(path, false);
  for (const std::string& path : c.jsonl) add(path, true);
  for (data::PackSource& source : sources) {
    const train::InputDigest digest = train::digest_input(source.path);
    source.about = {{"bytes", std::to_string(digest.bytes)}, {"sha256", digest.sha256}};
  }
  std::unique_ptr<Progress> progress;
  data::PackOptions options{.regions = c.regions,
                            .exclude = c.exclude,
                            .allow_truncated = c.allow_truncated,
                            .about = {},
                            .progress = {}};
  options.about = {{"focus_version", version_line()}, {"command", command_line}};
  options.progress = [&](int64_t done, int64_t all) {
    if (interrupt_requested())
      fail<Interrupted>("interrupted while packing; nothing was written to '", c.output, "'");
    if (all == 0) return;
    if (!progress)
      progress = std::make_unique<Progress>(ProgressOptions{.label = "pack", .unit = "bases", .total = all});
    progress->set(done);
  };
  const data::PackResult result = data::pack(sources, options, c.output);
  if (progress) progress->finish();
  log::info(concat("wrote '", c.output, "': ", format_count(result.bases), " bases in ",
                   format_count(result.stretches), " stretch(es) of ", format_count(result.records),
                   " record(s), ", format_bytes(static_cast<int64_t>(std::filesystem::file_size(c.output)))));
}

}  // namespace

void add_pack(CLI::App& app, const std::string& command_line) {
  CLI::App* sub = app.add_subcommand(
      "pack", "Packs FASTA or JSONL into one HDF5 file to train from (data.sources.N.hdf5).");
  const auto command = std::make_shared<PackCommand>();
  PackCommand& c = *command;
  sub->option_defaults()->group("Input");
  const auto repeated = [&](const std::string& name, std::vector<std::string>& target,
                            const std::string& help) {
    sub->add_option(name, target, help + "; may be repeated")->allow_extra_args(false)->take_all();
  };
  repeated("--fasta", c.fasta, "FASTA file: plain, gzip or BGZF, or a folder of them");
  repeated("--jsonl", c.jsonl,
           "JSONL file with \"text\" lines, plain or gzip, or a folder of them, instead of --fasta");
  repeated("-r,--region", c.regions,
           "pack only this: name, name:start-end (1-based, both ends included) or a .bed file (0-based, "
           "half-open)");
  repeated("--exclude", c.exclude, "leave this out: a region or a .bed file");
  sub->add_flag("--allow-truncated", c.allow_truncated, kAllowTruncatedHelp);
  sub->option_defaults()->group("Output");
  sub->add_option("-o,--output", c.output, "the file to write");
  sub->add_flag("-f,--force", c.force, "replace an earlier output");
  add_quiet(*sub, c.common);
  sub->callback([&app, command, command_line] { run(app, *command, command_line); });
}

}  // namespace focus::cli
