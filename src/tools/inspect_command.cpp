#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/table.h"
#include "commands.h"
#include "config_fit.h"
#include "focus/core/error.h"
#include "focus/core/units.h"
#include "focus/formats/digest.h"
#include "focus/weights/model_files.h"
#include "focus/weights/model_shape.h"
#include "focus/weights/wrapped_names.h"
#include "tensor_table.h"

namespace focus::tools {
namespace {

using Json = nlohmann::ordered_json;
using weights::ModelKind;
using weights::ModelShape;

constexpr std::size_t kShownMismatches = 3;
constexpr char kTraining[] = "training";  // an adapter's metadata

struct InspectCommand {
  std::string file, filter, configs, output = "-";
  bool digest = false, json = false, all = false;
};

struct Inspection {
  std::filesystem::path path;
  const formats::TensorFile& file;
  std::string prefix;  // of all names in the file; taken off in what follows
  std::string names;   // what there is to say of it, a line
  ModelShape shape;
  std::vector<TensorRow> rows, other_rows;  // tensors; entries that are none
  std::string fingerprint;
  std::optional<std::string> digest = {};
  std::filesystem::path configs_folder = {};  // empty: none was looked for, or none found
  std::vector<ConfigFit> configs = {};
};

/// Lines of cells, each column as wide as its widest cell; all but the first column right-aligned where
/// `right` says so.
std::string aligned(const std::vector<std::vector<std::string>>& lines, const std::vector<bool>& right) {
  std::vector<std::size_t> widths(right.size(), 0);
  for (const auto& line : lines) {
    for (std::size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], line[i].size());
  }
  std::string out;
  for (const auto& line : lines) {
    std::string text;
    for (std::size_t i = 0; i < line.size(); ++i) {
      const std::string padding(widths[i] - line[i].size(), ' ');
      text += (i > 0 ? "  " : "") + (right[i] ? padding + line[i] : line[i] + padding);
    }
    text.erase(text.find_last_not_of(' ') + 1);
    out += text + "\n";
  }
  return out;
}

std::string count_of(std::size_t count, const char* noun) {
  return concat(format_count(static_cast<int64_t>(count)), ' ', noun, count == 1 ? "" : "s");
}

int64_t bytes_on_disk(const formats::TensorFile& file) {
  int64_t total = 0;
  for (const formats::FilePart& part : file.files()) total += part.num_bytes;
  return total;
}

std::string layer_lines(const ModelShape& shape) {
  std::string out;
  for (const char* kind : {"hcs", "hcm", "hcl", "attention", "?"}) {
    std::vector<int64_t> layers;
    for (std::size_t i = 0; i < shape.blocks.size(); ++i) {
      if (shape.blocks[i] == kind) layers.push_back(static_cast<int64_t>(i));
    }
    if (!layers.empty())
      out += concat(out.empty() ? "" : "; ", *kind == '?' ? "of no known kind" : kind, ' ', ranges(layers));
  }
  return out;
}

/// How an adapter was made; null where its file does not say.
Json training_of(const formats::TensorFile& file) {
  const auto found = file.metadata().find(kTraining);
  if (found == file.metadata().end()) return nullptr;
  Json training = Json::parse(found->second, nullptr, /*allow_exceptions=*/false);
  return training.is_object() ? training : Json();
}

/// What any tool may have written is shown as it is, where it is there.
std::string shown(const Json& parent, const char* key) {
  const auto found = parent.find(key);
  if (!parent.is_object() || found == parent.end() || found->is_null()) return "?";
  return visible(found->is_string() ? found->get<std::string>() : found->dump());
}

std::string training_lines(const Json& training) {
  if (training.is_null()) return "trained      not recorded\n";
  const auto list = [&](const char* key) {
    return training.contains(key) && training[key].is_array() ? training[key] : Json::array();
  };
  std::string out =
      concat("trained      ", shown(training, "steps"), " steps, ", shown(training, "bases"),
             " bases; begun ", shown(training, "begun"), " by focus ", shown(training, "version"), " (",
             shown(training, "git_hash"), "); run ", shown(training, "run"), "\n");
  const Json config = training.value("config", Json::object());
  if (config.is_object() && config.contains("adapter") && config["adapter"] != "")
    out += concat("started from ", shown(config, "adapter"), "\n");
  for (const Json& input : list("inputs"))
    out += concat("read         ", shown(input, "path"), " (", shown(input, "bytes"),
                  " bytes, sha256:", shown(input, "sha256").substr(0, 16), "...)\n");
  const Json validation = training.value("validation", Json());
  out += "validation   ";
  if (!validation.is_object()) return out + "none\n";
  std::string figures;
  for (const auto& [name, value] : validation.items())
    figures += concat(figures.empty() ? "" : ", ", visible(name), ' ', value.dump());
  return out + concat("at step ", shown(training, "steps"), ": ", figures, "\n");
}

std::string model_lines(const Inspection& found) {
  const ModelShape& s = found.shape;
  if (s.kind == ModelKind::unknown)
    return "model        unknown: neither Evo-2's nor Llama's tensor names, and no FOCUS adapter\n";
  if (s.kind == ModelKind::focus_adapter)
    return "model        FOCUS adapter; its settings are in the metadata\n" +
           training_lines(training_of(found.file));
  std::string out =
      concat("model        ",
             s.kind == ModelKind::evo2 ? "StripedHyena 2 (Evo-2 family)" : "Transformer in Llama's names",
             ": ", s.num_layers, " layers, hidden size ", s.hidden_size, ", MLP ", s.inner_mlp_size,
             ", vocabulary ", s.vocab_size);
  if (s.num_heads > 0) out += concat(", ", s.num_heads, " heads of ", s.head_dim);
  if (s.num_key_value_heads != s.num_heads)
    out += concat(" (", s.num_key_value_heads, " for keys and values)");
  if (s.rotary_base > 0) out += concat(", rotary base ", static_cast<int64_t>(std::llround(s.rotary_base)));
  out += "\n";
  if (s.kind != ModelKind::evo2) return out;
  out += concat("layers       ", layer_lines(s), "\nfilters      input ", s.input_taps, " taps; hcs ",
                s.hcs_groups, " groups of ", s.hcs_taps, " taps; hcm ", s.hcm_groups, " groups of ",
                s.hcm_taps, " taps; hcl ", s.state_size, " modes\n");
  return out;
}

std::string config_lines(const Inspection& found) {
  if (found.shape.kind != ModelKind::evo2) return "";
  if (found.configs_folder.empty())
    return "configs      none found beside the program; name their folder with --configs\n";
  std::vector<const ConfigFit*> fits;
  for (const ConfigFit& fit : found.configs) {
    if (fit.fits()) fits.push_back(&fit);
  }
  std::string out;
  const std::vector<std::string> keys = differing_settings(found.configs);
  for (const ConfigFit* fit : fits) {
    out += concat("fits         ", fit->path.filename().string());
    for (const auto& [key, value] : fit->settings) {
      if (std::find(keys.begin(), keys.end(), key) != keys.end()) out += concat("  ", key, ' ', value);
    }
    out += "\n";
  }
  if (fits.size() > 1)
    out += keys.empty()
               ? "             (equal in every setting; the names stand for different weights)\n"
               : "             (the tensors do not tell these apart: choose by where the file comes from)\n";
  if (fits.empty()) {
    const ConfigFit& near = found.configs.front();
    out += concat("fits         none of the ", found.configs.size(), " configurations in '",
                  found.configs_folder.string(), "'\n");
    for (std::size_t i = 0; near.error.empty() && i < std::min(near.mismatches.size(), kShownMismatches); ++i)
      out += concat(i == 0 ? "nearest      " + near.path.filename().string() + ": " : "             ",
                    visible(near.mismatches[i]), "\n");
    if (near.mismatches.size() > kShownMismatches)
      out += concat("             and ", near.mismatches.size() - kShownMismatches, " more differences\n");
  }
  for (const ConfigFit& fit : found.configs) {
    if (!fit.error.empty()) out += concat("unreadable   ", fit.error, "\n");
  }
  return out;
}

std::string text_report(const Inspection& found) {
  const formats::TensorFile& file = found.file;
  std::string out =
      concat("file         ", found.path.string(), "\nformat       ", file.format(), ", ",
             format_bytes(bytes_on_disk(file)),
             file.files().size() > 1 ? concat(" in ", file.files().size(), " files") : "", "\n");
  int64_t elements = 0, num_bytes = 0;
  std::vector<std::vector<std::string>> dtypes;
  for (const auto& [dtype, total] : totals(file)) {
    elements += total.elements;
    num_bytes += total.num_bytes;
    dtypes.push_back({"  " + dtype, count_of(static_cast<std::size_t>(total.count), "tensor"),
                      format_count(total.elements) + " numbers", format_bytes(total.num_bytes)});
  }
  out += concat("entries      ", count_of(file.tensors().size(), "tensor"), ", ", format_count(elements),
                " numbers, ", format_bytes(num_bytes), "; ", file.opaque_entries().size(),
                " that are no tensors\n");
  out += aligned(dtypes, {false, true, true, true});
  out += concat("parameters   ", format_count(found.shape.num_parameters), "\nfingerprint  ",
                found.fingerprint, "\n");
  if (found.digest) out += concat("digest       sha256:", *found.digest, "\n");
  for (const auto& [key, value] : file.metadata()) {
    if (key != kTraining) out += concat("metadata     ", visible(key), ": ", visible(value), "\n");
  }
  out += found.names;
  out += model_lines(found) + config_lines(found) + "\n";

  std::vector<std::vector<std::string>> lines = {{"tensor", "dtype", "shape", "count", "bytes"}};
  for (const TensorRow& row : found.rows)
    lines.push_back({visible(row.name), row.dtype, formats::shape_text(row.shape), concat(row.count),
                     format_count(row.num_bytes)});
  for (const TensorRow& row : found.other_rows)
    lines.push_back({visible(row.name), row.dtype, "", concat(row.count), format_count(row.num_bytes)});
  return out + aligned(lines, {false, false, false, true, true});
}

std::string json_report(const Inspection& found) {
  const formats::TensorFile& file = found.file;
  const ModelShape& s = found.shape;
  Json dtypes = Json::object(), tensors = Json::array(), others = Json::array(), configs = Json::array(),
       files = Json::array();
  for (const formats::FilePart& part : file.files())
    files.push_back({{"path", part.path.string()}, {"bytes", part.num_bytes}});
  int64_t elements = 0, num_bytes = 0;
  for (const auto& [dtype, total] : totals(file)) {
    dtypes[dtype] = {{"tensors", total.count}, {"elements", total.elements}, {"bytes", total.num_bytes}};
    elements += total.elements;
    num_bytes += total.num_bytes;
  }
  for (const TensorRow& row : found.rows)
    tensors.push_back(
        {{"name", row.name}, {"dtype", row.dtype}, {"shape", row.shape}, {"bytes", row.num_bytes}});
  for (const TensorRow& row : found.other_rows)
    others.push_back({{"name", row.name}, {"kind", row.dtype}, {"bytes", row.num_bytes}});
  for (const ConfigFit& fit : found.configs) {
    Json entry = {{"file", fit.path.filename().string()}, {"fits", fit.fits()}};
    if (!fit.error.empty()) entry["error"] = fit.error;
    entry["mismatches"] = fit.mismatches;
    entry["not_in_tensors"] = Json::object();
    for (const auto& [key, value] : fit.settings) entry["not_in_tensors"][key] = value;
    configs.push_back(entry);
  }
  Json model = {{"kind", name_of(s.kind)}};
  const auto add = [&](std::initializer_list<std::pair<const char*, int64_t>> sizes) {
    for (const auto& [key, value] : sizes) model[key] = value > 0 ? Json(value) : Json(nullptr);
  };
  if (s.kind == ModelKind::evo2 || s.kind == ModelKind::llama) {
    add({{"vocab_size", s.vocab_size}, {"hidden_size", s.hidden_size}, {"num_layers", s.num_layers}});
    add({{"inner_mlp_size", s.inner_mlp_size}, {"num_heads", s.num_heads}});
    add({{"num_key_value_heads", s.num_key_value_heads}, {"head_dim", s.head_dim}});
    add({{"rotary_base", std::llround(s.rotary_base)}});
    model["own_unembedding"] = s.own_unembedding;
  }
  if (s.kind == ModelKind::evo2) {
    model["blocks"] = s.blocks;
    add({{"input_taps", s.input_taps}, {"hcs_groups", s.hcs_groups}, {"hcs_taps", s.hcs_taps}});
    add({{"hcm_groups", s.hcm_groups}, {"hcm_taps", s.hcm_taps}, {"state_size", s.state_size}});
  }
  Json out = {{"file", found.path.string()},
              {"format", file.format()},
              {"files", files},
              {"file_bytes", bytes_on_disk(file)},
              {"num_tensors", file.tensors().size()},
              {"num_other_entries", file.opaque_entries().size()},
              {"elements", elements},
              {"parameters", s.num_parameters},
              {"tensor_bytes", num_bytes},
              {"dtypes", dtypes},
              {"fingerprint", found.fingerprint},
              {"digest", found.digest ? Json("sha256:" + *found.digest) : Json(nullptr)},
              {"name_prefix", found.prefix},
              {"metadata", file.metadata()},
              {"training", training_of(file)},
              {"model", model},
              {"configs", configs},
              {"tensors", tensors},
              {"other_entries", others}};
  // A name in a .pt need not be UTF-8.
  return out.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

void run(const InspectCommand& c) {
  cli::apply_common_options({}, 0);
  std::vector<NamedPath> inputs = weights::model_files("", c.file);
  if (!c.configs.empty()) {
    std::error_code ignored;
    for (const auto& entry : std::filesystem::directory_iterator(c.configs, ignored))
      inputs.push_back({"--configs", entry.path()});
  }
  require_separate({{"--output", c.output}}, inputs);
  auto file = formats::TensorFile::open(c.file);
  std::string prefix = weights::name_prefix(*file);
  std::string names;
  if (!prefix.empty()) {
    const std::size_t others = weights::names_without_prefix(*file, prefix).size();
    names =
        concat("names        ", others == 0 ? "all" : "the model's", " begin with '", visible(prefix), "', ",
               others == 0 ? std::string("which is taken off here and when the model is loaded")
                           : concat(others, " others do not; take the model out with convert --strip-prefix"),
               "\n");
    if (others == 0) file = weights::without_prefix(file, prefix);
    if (others > 0) prefix.clear();
  }
  Inspection found{.path = c.file,
                   .file = *file,
                   .prefix = prefix,
                   .names = names,
                   .shape = weights::guess_shape(*file),
                   .rows = tensor_rows(*file, c.filter, !c.all && !c.json),
                   .other_rows = opaque_rows(*file, c.filter, !c.all && !c.json),
                   .fingerprint = formats::fingerprint(*file)};
  if (!c.filter.empty() && found.rows.empty() && found.other_rows.empty())
    fail<ConfigError>("--filter '", c.filter, "' matches none of the ", file->tensors().size(),
                      " tensors of '", c.file, "'");
  if (c.digest) found.digest = formats::digest(*file);
  if (found.shape.kind == weights::ModelKind::evo2) {
    found.configs_folder = c.configs.empty() ? shipped_configs() : std::filesystem::path(c.configs);
    if (!found.configs_folder.empty()) found.configs = fit_configs(*file, found.configs_folder);
  }
  cli::Table out(c.output);
  out.write(c.json ? json_report(found) : text_report(found));
  out.commit();
}

}  // namespace

void add_inspect(CLI::App& app) {
  CLI::App* sub = app.add_subcommand(
      "inspect", "What a model file holds: format, tensors, and which model it seems to be.");
  const auto command = std::make_shared<InspectCommand>();
  InspectCommand& c = *command;
  sub->add_option("file", c.file, "a .pt (whole or in parts), a safetensors file, or a folder of shards")
      ->required();
  sub->option_defaults()->group("Output");
  sub->add_flag("--digest", c.digest, "also hash every byte (SHA-256 of names, dtypes, shapes, values)");
  sub->add_flag("--json", c.json, "machine-readable, with every tensor in a row of its own");
  sub->add_option("--filter", c.filter,
                  "list only tensors whose name matches: * and ? as in a shell, 'blocks.3.*'");
  sub->add_flag("--all", c.all, "a row for every tensor; by default layers of one layout share a row");
  sub->option_defaults()->group("Advanced");
  sub->add_option("--configs", c.configs,
                  "folder of model configurations to compare with; default: those that come with focus");
  sub->option_defaults()->group("Output");
  sub->add_option("-o,--output", c.output, "report; - = standard output")->capture_default_str();
  sub->callback([command] { run(*command); });
}

}  // namespace focus::tools
