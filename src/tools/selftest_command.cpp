#include <c10/util/BFloat16.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/table.h"
#include "commands.h"
#include "focus/core/error.h"
#include "focus/core/file.h"
#include "focus/core/json_depth.h"
#include "focus/core/log.h"
#include "focus/core/progress.h"
#include "focus/core/version.h"
#include "focus/data/sequence_list.h"
#include "focus/infer/score.h"
#include "focus/model/placement.h"
#include "focus/weights/load_model.h"
#include "focus/weights/model_files.h"

namespace focus::tools {
namespace {

using Json = nlohmann::json;

constexpr double kDefaultTolerance = 1e-3;

struct SelftestCommand {
  cli::CommonOptions common;
  std::string model_config, checkpoint, sequences, expect, expectations, output = "-";
  data::SequenceFormat format = data::SequenceFormat::automatic;
  std::optional<double> loss, tolerance;
  int64_t chunk = 1024;
  weights::Fp8 fp8 = weights::Fp8::emulate;
};

/// What a released model is expected to predict of known sequences.
struct Expectation {
  std::string name;
  double loss = 0, tolerance = 0;
  std::optional<double> accuracy;  // share of bases, 0 to 1; reported, not judged
};

Json read_json(const std::filesystem::path& path) {
  std::string text;
  try {
    text = read_file(path);
  } catch (const DataError& e) {
    fail<ConfigError>("expectations: ", e.what(),
                      "; name the file with --expectations, or give --loss and --tolerance");
  }
  const Json json = Json::parse(text, DepthWatch<ConfigError>{path.string()}, /*allow_exceptions=*/false,
                                /*ignore_comments=*/true);
  if (!json.is_object())
    fail<ConfigError>("'", path.string(), "': expected a JSON object of expectations by name");
  return json;
}

/// The entry `name` of a JSON file (comments allowed): {"NAME": {"loss": ..., "tolerance": ..., "accuracy":
/// ...}, ...}. ConfigError: missing or malformed file, an unknown key, a missing or impossible number, no
/// such entry.
Expectation read_expectation(const std::filesystem::path& path, const std::string& name) {
  const Json json = read_json(path);
  if (!json.contains(name)) {
    std::string known;
    for (const auto& item : json.items()) known += (known.empty() ? "" : ", ") + item.key();
    fail<ConfigError>("'", path.string(), "' has no expectation '", name, "'; known: ", known);
  }
  const Json& entry = json[name];
  if (!entry.is_object())
    fail<ConfigError>("'", path.string(), "': ", name, ": expected an object with loss and tolerance");
  Expectation out{.name = name, .loss = 0, .tolerance = 0, .accuracy = std::nullopt};
  const auto number = [&](const std::string& key, double least, double most) {
    if (!entry.contains(key)) fail<ConfigError>("'", path.string(), "': ", name, ".", key, " is missing");
    if (!entry[key].is_number() || entry[key].get<double>() < least || entry[key].get<double>() > most)
      fail<ConfigError>("'", path.string(), "': ", name, ".", key, " is ", entry[key].dump(),
                        ", expected a number from ", least, " to ", most);
    return entry[key].get<double>();
  };
  for (const auto& item : entry.items()) {
    if (item.key() != "loss" && item.key() != "tolerance" && item.key() != "accuracy")
      fail<ConfigError>("'", path.string(), "': unknown key ", name, ".", item.key(),
                        "; known: loss, tolerance, accuracy");
  }
  out.loss = number("loss", 0, 1e6);
  out.tolerance = number("tolerance", 0, 1e6);
  if (entry.contains("accuracy")) out.accuracy = number("accuracy", 0, 1);
  return out;
}

/// By default beside the model.
std::filesystem::path expectations_file(const SelftestCommand& c) {
  if (!c.expectations.empty()) return c.expectations;
  return std::filesystem::path(c.model_config.empty() ? c.checkpoint : c.model_config).parent_path() /
         "selftest.json";
}

std::optional<Expectation> expected(const SelftestCommand& c) {
  if (!c.expect.empty()) {
    Expectation out = read_expectation(expectations_file(c), c.expect);
    if (c.tolerance) out.tolerance = *c.tolerance;
    return out;
  }
  if (!c.expectations.empty()) fail<ConfigError>("--expectations has no effect without --expect NAME");
  if (!c.loss) {
    if (c.tolerance) fail<ConfigError>("--tolerance has no effect without --expect or --loss");
    return std::nullopt;
  }
  return Expectation{.name = "--loss",
                     .loss = *c.loss,
                     .tolerance = c.tolerance.value_or(kDefaultTolerance),
                     .accuracy = std::nullopt};
}

void check_sequences(const std::vector<data::NamedSequence>& sequences) {
  for (const data::NamedSequence& item : sequences) {
    if (item.sequence.size() < 2)
      fail<DataError>("sequence '", item.name, "' has ", item.sequence.size(),
                      " base; expected 2 or more, since the first is not scored");
  }
}

struct Figures {
  double loss = 0, loss_bf16 = 0, accuracy = 0;
};

Figures figures_of(const infer::RecordScore& score) {
  const auto scored = static_cast<double>(score.scored);
  const auto rounded = static_cast<float>(-score.sum_log_likelihood_bf16 / scored);
  return {-score.sum_log_likelihood / scored, static_cast<double>(static_cast<float>(c10::BFloat16(rounded))),
          static_cast<double>(score.top1) / scored};
}

std::string row(const std::string& name, int64_t length, const Figures& f) {
  char text[96];
  std::snprintf(text, sizeof text, "%.7f\t%.7f\t%.4f", f.loss, f.loss_bf16, 100 * f.accuracy);
  return concat(name, '\t', length, '\t', text, '\n');
}

void run(const SelftestCommand& c, const std::string& command_line) {
  cli::apply_common_options(c.common, 0);
  const at::ScalarType dtype = model::parse_dtype(c.common.dtype);
  const std::string device = model::resolve_devices(c.common.device);
  const std::optional<Expectation> wanted = expected(c);
  std::vector<NamedPath> inputs = weights::model_files(c.model_config, c.checkpoint);
  inputs.push_back({"--sequences", c.sequences});
  inputs.push_back({"--expectations", expectations_file(c)});
  require_separate({{"--output", c.output}}, inputs);
  const auto sequences = data::read_sequences(c.sequences, c.format);
  check_sequences(sequences);
  int64_t total = 0;
  for (const auto& item : sequences) total += static_cast<int64_t>(item.sequence.size());

  cli::Table table(c.output);
  const weights::LoadedModel loaded = weights::load_model(c.model_config, c.checkpoint, dtype, device, c.fp8);
  table.write(concat("##focus_version=", version_line(), "\n##command=", command_line,
                     "\n##model=", loaded.model->shape().name, " fingerprint:", loaded.digest,
                     "\n##computed=", loaded.precision, "; ", device,
                     "\n#sequence\tlength\tloss_nats\tloss_nats_bf16\taccuracy_percent\n"));
  infer::ScoreOptions options;
  options.chunk = c.chunk;
  options.reference_figures = true;
  Progress progress({.label = "selftest", .unit = "bases", .total = total});
  options.on_progress = [&](int64_t bases) { progress.advance(bases); };
  const infer::Scorer scorer(*loaded.model, infer::plain_stream(*loaded.model), options);
  Figures mean;
  for (const auto& item : sequences) {
    // Bytes as they are, as the publisher's tokenizer takes them: no letter is masked and no case is changed.
    const std::vector<uint8_t> tokens(item.sequence.begin(), item.sequence.end());
    const Figures f = figures_of(scorer.score(tokens, std::vector<float>(tokens.size(), 1.0F), item.name));
    table.write(row(item.name, static_cast<int64_t>(tokens.size()), f));
    const auto share = 1.0 / static_cast<double>(sequences.size());
    mean.loss += share * f.loss;
    mean.loss_bf16 += share * f.loss_bf16;
    mean.accuracy += share * f.accuracy;
  }
  progress.finish();
  table.write(row("mean", total, mean));
  if (!wanted) {
    table.commit();
    log::warn("nothing was compared; name what to expect with --expect or --loss");
    return;
  }
  // Published figures were computed in the logits' type, bf16, and carry its rounding, which is as large as
  // their tolerance.
  const double got = dtype == at::kBFloat16 ? mean.loss_bf16 : mean.loss;
  const bool hit = std::abs(got - wanted->loss) <= wanted->tolerance;
  char text[160];
  std::snprintf(text, sizeof text, "loss %.7f, expected %.7f +- %g", got, wanted->loss, wanted->tolerance);
  std::string judged = concat(wanted->name, ": ", text);
  if (wanted->accuracy) {
    std::snprintf(text, sizeof text, "; accuracy %.3f %%, published %.3f %% (not judged)",
                  100 * mean.accuracy, 100 * *wanted->accuracy);
    judged += text;
  }
  table.write(concat("##result=", hit ? "passed" : "failed", ", ", judged, "\n"));
  table.commit();
  if (!hit)
    fail<CheckFailed>("selftest failed: ", judged,
                      "; check that sequences, checkpoint and model config belong together");
}

}  // namespace

void add_selftest(CLI::App& app, const std::string& command_line) {
  CLI::App* sub = app.add_subcommand(
      "selftest",
      "Compares what a model predicts of known sequences with its publisher's figure: mean cross-entropy of "
      "the next "
      "base over the whole vocabulary, and the share of bases that were the most probable token.");
  const auto command = std::make_shared<SelftestCommand>();
  SelftestCommand& c = *command;
  sub->option_defaults()->group("Input");
  sub->add_option("--model-config", c.model_config,
                  "the model's shape: an Evo-2 YAML file or a Hugging Face config.json; may be left out "
                  "where the checkpoint is a folder with one");
  sub->add_option("--checkpoint", c.checkpoint,
                  "the model's weights: .pt (whole or in parts), .safetensors, or a Hugging Face folder")
      ->required();
  sub->add_option("--sequences", c.sequences,
                  "CSV (first column, header skipped), FASTA, or one sequence a line; plain or gzip; - = "
                  "standard input")
      ->required();
  cli::add_choice(*sub, "--format", c.format,
                  {{"auto", data::SequenceFormat::automatic},
                   {"csv", data::SequenceFormat::csv},
                   {"fasta", data::SequenceFormat::fasta},
                   {"lines", data::SequenceFormat::lines}},
                  "of --sequences; auto goes by name and first byte");
  sub->option_defaults()->group("Comparison");
  CLI::Option* expect = sub->add_option("--expect", c.expect,
                                        "compare with this entry of the expectations, for example evo2_7b");
  sub->add_option("--expectations", c.expectations,
                  "file of expectations; default: selftest.json beside the model config");
  sub->add_option("--loss", c.loss, "compare with this loss instead")->excludes(expect);
  sub->add_option("--tolerance", c.tolerance,
                  "largest difference that passes; default: the entry's, 0.001 with --loss")
      ->check(CLI::NonNegativeNumber);
  sub->option_defaults()->group("Advanced");
  cli::add_count(*sub, "--chunk", c.chunk,
                 "bases per forward call; 0 = the whole sequence; changes memory and speed, not the result");
  cli::add_choice(*sub, "--fp8", c.fp8, {{"emulate", weights::Fp8::emulate}, {"off", weights::Fp8::off}},
                  "models with FP8 input projections: round as FP8 hardware does, or compute them like other "
                  "layers and get other numbers");
  sub->option_defaults()->group("Output");
  sub->add_option("-o,--output", c.output, "table (TSV); - = standard output")->capture_default_str();
  c.common.device = "auto";
  c.common.dtype = "bf16";
  cli::add_machine_options(*sub, c.common);
  sub->callback([command, command_line] { run(*command, command_line); });
}

}  // namespace focus::tools
