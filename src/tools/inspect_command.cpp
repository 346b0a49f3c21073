#include "inspect_command.h"

#include <algorithm>
#include <filesystem>
#include <optional>

#include "cli/table.h"
#include "config_fit.h"
#include "focus/core/error.h"
#include "focus/core/units.h"
#include "focus/formats/digest.h"
#include "focus/weights/model_shape.h"
#include "inspect_report.h"

namespace focus::tools {

CLI::App* add_inspect(CLI::App& app, InspectCommand& c) {
  CLI::App* sub = app.add_subcommand("inspect", "What a model file holds: format, tensors, and which model it seems to be.");
  sub->add_option("file", c.file, "a .pt (whole or in parts), a safetensors file, or a folder of shards")->required();
  sub->option_defaults()->group("Output");
  sub->add_flag("--digest", c.digest, "also hash every byte (SHA-256 of names, dtypes, shapes, values)");
  sub->add_flag("--json", c.json, "machine-readable, with every tensor in a row of its own");
  sub->add_option("--filter", c.filter, "list only tensors whose name matches: * and ? as in a shell, 'blocks.3.*'");
  sub->add_flag("--all", c.all, "a row for every tensor; by default layers of one layout share a row");
  sub->option_defaults()->group("Advanced");
  sub->add_option("--configs", c.configs, "folder of model configurations to compare with; default: those that come with focus");
  sub->option_defaults()->group("Output");
  sub->add_option("-o,--output", c.output, "report; - = standard output")->capture_default_str();
  return sub;
}

void run_inspect(const InspectCommand& c) {
  cli::apply_common_options({}, 0);
  const auto file = formats::TensorFile::open(c.file);
  Inspection found{.path = c.file,
                   .file = *file,
                   .shape = weights::guess_shape(*file),
                   .rows = tensor_rows(*file, c.filter, !c.all && !c.json),
                   .other_rows = opaque_rows(*file, c.filter, !c.all && !c.json),
                   .fingerprint = formats::fingerprint(*file)};
  if (!c.filter.empty() && found.rows.empty() && found.other_rows.empty())
    fail<ConfigError>("--filter '", c.filter, "' matches none of the ", file->tensors().size(), " tensors of '", c.file, "'");
  if (c.digest) found.digest = formats::digest(*file);
  if (found.shape.kind == weights::ModelKind::evo2) {
    found.configs_folder = c.configs.empty() ? shipped_configs() : std::filesystem::path(c.configs);
    if (!found.configs_folder.empty()) found.configs = fit_configs(*file, found.configs_folder);
  }
  cli::Table out(c.output);
  out.write(c.json ? json_report(found) : text_report(found));
  out.commit();
}

}  // namespace focus::tools
