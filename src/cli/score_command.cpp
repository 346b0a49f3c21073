#include <cctype>
#include <cmath>
#include <cstdio>
#include <iterator>
#include <memory>
#include <optional>
#include <set>

#include "commands.h"
#include "focus/compress/focus/adapter_file.h"
#include "focus/core/error.h"
#include "focus/core/file.h"
#include "focus/core/log.h"
#include "focus/core/progress.h"
#include "focus/core/units.h"
#include "focus/core/version.h"
#include "focus/data/fasta.h"
#include "focus/data/fasta_stream.h"
#include "focus/data/input_files.h"
#include "focus/data/letters.h"
#include "focus/data/region.h"
#include "focus/infer/memory_plan.h"
#include "focus/infer/score.h"
#include "focus/model/placement.h"
#include "focus/weights/load_model.h"
#include "focus/weights/model_files.h"
#include "logits_file.h"
#include "memory_option.h"
#include "score_table.h"

namespace focus::cli {
namespace {

using data::Region;

struct ScoreCommand {
  CommonOptions common;
  std::string model_config, checkpoint, fasta, bed, logits, save_state, load_state, output = "-";
  std::vector<std::string> regions;
  bool continue_anyway = false;
  bool resume = false;
  infer::ScoreOptions options;
  bool choose_chunk = true;  // --chunk auto
  MemoryOption memory;
  weights::Fp8 fp8 = weights::Fp8::emulate;
  data::CasePolicy case_policy = data::CasePolicy::upper;
  data::AmbiguousPolicy ambiguous = data::AmbiguousPolicy::mask;
  std::optional<std::string> strand;  // --strand, if given
  bool allow_truncated = false;

  bool strand_of_bed() const { return strand == "bed"; }
};

/// What is scored in one go, and its row in the table.
struct Target {
  Region region;
  std::string label;     // of its row in the BED file
  bool reverse = false;  // its reverse complement is scored
};

/// The rows of the BED file, on the strand that --strand asks for.
std::vector<Target> bed_targets(const ScoreCommand& command, const data::SequenceFile& fasta) {
  std::vector<Target> out;
  int64_t reverse = 0;
  for (data::BedRow& row : data::read_bed_rows(command.bed, fasta)) {
    if (command.strand_of_bed() && row.strand == '?')
      fail<DataError>("'", command.bed, "': the strand (column 6) of ", data::format_region(row.region),
                      " is none of +, - and .");
    reverse += row.strand == '-' ? 1 : 0;
    out.push_back({std::move(row.region), std::move(row.name), command.strand_of_bed() && row.strand == '-'});
  }
  if (reverse > 0 && !command.strand)
    log::warn(concat(reverse, " of ", out.size(), " regions of '", command.bed,
                     "' are on the reverse strand; they are scored as the forward strand reads. --strand bed "
                     "scores the reverse complement, "
                     "--strand forward says that this is meant"));
  return out;
}

std::vector<Target> wanted_targets(const ScoreCommand& command, const data::SequenceFile& fasta) {
  std::vector<Target> out;
  for (const std::string& text : command.regions) out.push_back({data::parse_region(text, fasta), "", false});
  if (!command.bed.empty()) {
    auto bed = bed_targets(command, fasta);
    std::move(bed.begin(), bed.end(), std::back_inserter(out));
  }
  if (command.regions.empty() && command.bed.empty()) {
    for (const std::string& name : fasta.names()) out.push_back({{name, 0, fasta.length(name)}, "", false});
  }
  return out;
}

/// Tensors of one file need different names; said before the work, not after it.
void check_names(const std::vector<Target>& targets, const std::vector<std::string>& names) {
  std::set<std::string> seen;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (!seen.insert(names[i]).second)
      fail<ConfigError>("region '", data::format_region(targets[i].region),
                        "' is asked for twice, but --logits needs one name per tensor; drop one of them");
    if (names[i] == "__metadata__")
      fail<DataError>("--logits cannot hold a record named '__metadata__': safetensors reserves that name");
  }
}

std::string number(double value) {
  char text[40];
  std::snprintf(text, sizeof text, "%.9g", value);
  return std::isnan(value) ? "NA" : text;
}

/// What a row begins with, and tells it from others.
std::string key_of(const Region& region) {
  return concat(region.name, '\t', region.begin + 1, '\t', region.end, '\t', region.length(), '\t');
}

/// Columns that are there only where something is to be told.
struct MoreColumns {
  bool label = false, strand = false;

  std::string names() const { return concat(label ? "\tbed_name" : "", strand ? "\tstrand" : "", '\n'); }
  std::string of(const Target& target) const {
    return concat(label ? concat('\t', target.label.empty() ? "." : target.label) : "",
                  strand ? target.reverse ? "\t-" : "\t+" : "", '\n');
  }
};

std::string row(const Region& region, const infer::RecordScore& score, const data::SequenceCounts& counts) {
  return concat(key_of(region), score.scored, '\t', number(score.sum_log_likelihood), '\t',
                number(score.mean_log_likelihood()), '\t', counts.n, '\t', counts.lowercase, '\t',
                score.memory.entries, '\t', score.memory.kept_bytes, '\t', score.memory.total_bytes());
}

/// Settings that change figures and are told nowhere else in the table; --chunk does not.
std::string describe(const ScoreCommand& c, const std::string& adapter) {
  std::string out = concat("norm ", c.options.norm == infer::Norm::vocab ? "vocab" : "acgt", ", case ",
                           c.case_policy == data::CasePolicy::upper ? "upper" : "keep", ", ambiguous ",
                           c.ambiguous == data::AmbiguousPolicy::mask    ? "mask"
                           : c.ambiguous == data::AmbiguousPolicy::error ? "error"
                                                                         : "keep",
                           ", fp8 ", c.fp8 == weights::Fp8::emulate ? "emulate" : "off");
  if (!adapter.empty()) out += concat(", adapter ", adapter.substr(0, 16));
  return out;
}

const char* const kColumns =
    "#name\tstart\tend\tlength\tscored\tsum_log_likelihood_nats\tmean_log_likelihood_nats\tn_"
    "bases\tlowercase_bases\tkept_entries\t"
    "kept_bytes\tstream_bytes";

void check(const ScoreCommand& c) {
  if (c.fasta == "-" && (!c.regions.empty() || !c.bed.empty()))
    fail<ConfigError>(
        "--region and --bed need a FASTA file on disk; standard input is read once, record by record");
  if (c.options.norm == infer::Norm::acgt && c.case_policy == data::CasePolicy::keep)
    fail<ConfigError>(
        "--case keep contradicts --norm acgt: a lowercase base has no probability among A, C, G and T; use "
        "--case upper or --norm vocab");
  if (c.options.norm == infer::Norm::acgt && c.ambiguous == data::AmbiguousPolicy::keep)
    fail<ConfigError>(
        "--ambiguous keep contradicts --norm acgt: N has no probability among A, C, G and T; use --ambiguous "
        "mask or --norm vocab");
  if (c.strand && c.bed.empty()) fail<ConfigError>("--strand has no effect without --bed");
  check(c.memory);
  if ((!c.save_state.empty() || !c.load_state.empty()) &&
      (c.fasta == "-" || c.regions.size() + (c.bed.empty() ? 0 : 2) > 1))
    fail<ConfigError>(
        "--save-state and --load-state are for one sequence: a FASTA file with one record, or one --region");
  if (c.continue_anyway && c.load_state.empty())
    fail<ConfigError>("--continue-anyway has no effect without --load-state");
  if (c.logits == "-") fail<ConfigError>("--logits needs a file name");
  if (c.resume && !(c.logits.empty() && c.save_state.empty() && c.load_state.empty()))
    fail<ConfigError>(
        "--resume keeps rows of a table and scores the other records only: it cannot be used with --logits, "
        "--save-state or ",
        "--load-state");
}

infer::StreamPlace place_at(const data::SequenceFile& fasta, const std::string& record, int64_t next) {
  constexpr int64_t kBefore = 256;
  std::string before = fasta.fetch(record, std::max<int64_t>(0, next - kBefore), next);
  for (char& letter : before) letter = static_cast<char>(std::toupper(static_cast<unsigned char>(letter)));
  return {record, next, before};
}

std::vector<NamedPath> inputs_of(const ScoreCommand& c) {
  std::vector<NamedPath> inputs = weights::model_files(c.model_config, c.checkpoint);
  for (const NamedPath& file : data::fasta_files("--fasta", c.fasta)) inputs.push_back(file);
  inputs.push_back({"--bed", c.bed});
  inputs.push_back({"--load-state", c.load_state});
  if (!c.memory.adapter.empty()) inputs.push_back({"--adapter", compress::adapter_file(c.memory.adapter)});
  return inputs;
}

void run(const ScoreCommand& c, const std::string& command_line) {
  apply_common_options(c.common, 0);
  check(c);
  require_separate({{"--output", c.output}, {"--logits", c.logits}, {"--save-state", c.save_state}},
                   inputs_of(c));
  const at::ScalarType dtype = model::parse_dtype(c.common.dtype);
  const std::string device = model::resolve_devices(c.common.device);

  // Input and outputs first: that takes a moment, loading the model and scoring may take long.
  std::unique_ptr<data::SequenceFile> fasta;
  std::optional<data::FastaStream> stream;
  std::vector<Target> targets;
  std::vector<std::string> names;
  int64_t total = 0;
  MoreColumns more;
  more.strand = c.strand_of_bed();
  if (c.fasta == "-") {
    stream.emplace(c.fasta, c.allow_truncated);
  } else {
    data::FastaOptions reading;
    reading.allow_truncated = c.allow_truncated;
    fasta = data::open_fasta(c.fasta, reading);
    targets = wanted_targets(c, *fasta);
    for (const Target& target : targets) {
      const Region& region = target.region;
      total += region.length();
      names.push_back(region.length() == fasta->length(region.name) ? region.name
                                                                    : data::format_region(region));
      if (target.reverse) names.back() += "(-)";
      more.label = more.label || !target.label.empty();
    }
    if (!c.logits.empty()) check_names(targets, names);
  }
  if ((!c.save_state.empty() || !c.load_state.empty()) && targets.size() != 1)
    fail<ConfigError>("--save-state and --load-state are for one sequence, '", c.fasta, "' has ",
                      targets.size(), "; name one with --region");
  if (!c.save_state.empty()) const AtomicFile can_be_written(c.save_state);
  ScoreTable table(c.output, c.resume);
  if (!c.logits.empty()) const AtomicFile can_be_written(c.logits);
  const weights::LoadedModel loaded = weights::load_model(c.model_config, c.checkpoint, dtype, device, c.fp8);
  const ChosenMemory memory = choose_memory(c.memory, loaded);
  const std::map<std::string, std::string> about = {
      {"focus_version", version_line()},
      {"command", command_line},
      {"model", concat(loaded.model->shape().name, " fingerprint:", loaded.digest, "; ", loaded.precision,
                       "; ", device)},
      {"memory", memory.description}};
  std::vector<std::string> head;
  for (const char* key : {"focus_version", "command", "model", "memory"})
    head.push_back(concat("##", key, "=", about.at(key), "\n"));
  head.push_back(concat("##options=", describe(c, memory.adapter), "\n"));
  head.push_back(kColumns + more.names());
  table.begin(head);

  infer::ScoreOptions options = c.options;
  std::optional<LogitsFile> logits;
  if (!c.logits.empty()) {
    std::optional<std::vector<LogitsFile::Record>> records;
    if (fasta) {
      records.emplace();
      for (std::size_t i = 0; i < targets.size(); ++i)
        records->push_back({names[i], targets[i].region.length()});
    }
    logits.emplace(c.logits, about, loaded.model->shape().vocab_size, records);
    options.on_logits = [&](const at::Tensor& rows) { logits->write(rows); };
  }
  Progress progress({.label = "score", .unit = "bases", .total = total});
  options.on_progress = [&](int64_t bases) { progress.advance(bases); };
  const auto plan = [&](int64_t length) {
    const auto made = infer::plan_memory(*loaded.model, memory.compressed.get(), length,
                                         c.choose_chunk       ? 0
                                         : options.chunk == 0 ? length
                                                              : options.chunk,
                                         infer::available_memory(loaded.model->device()),
                                         infer::largest_chunk(*loaded.model));
    log::info(made.describe());
    if (made.needed_bytes() > made.available_bytes)
      log::warn(
          "the plan needs more memory than is free; expect smaller chunks or an end before the sequence's");
    return made;
  };
  // The longest sequence decides; a stream's lengths are not known before.
  int64_t longest = stream ? int64_t{1} << 20 : 0;
  for (const Target& target : targets) longest = std::max(longest, target.region.length());
  const auto planned = plan(longest);
  if (c.choose_chunk) options.chunk = planned.chunk;
  const infer::Scorer scorer(*loaded.model, memory.begin_stream, options);
  const infer::StreamOrigin origin{loaded.model->shape().name, loaded.digest, loaded.precision,
                                   memory.adapter};
  data::AmbiguityNote ambiguity;
  const auto score_one = [&](const Target& target, std::string sequence) {
    const Region& region = target.region;
    if (logits) logits->begin({region.name, region.length()});
    auto letters = data::clean(sequence, c.case_policy, c.ambiguous, region.name, region.begin);
    if (target.reverse) {
      sequence = data::reverse_complement(sequence);
      letters = data::clean(sequence, c.case_policy, c.ambiguous, region.name, region.begin);
    }
    auto state = memory.begin_stream(static_cast<int64_t>(letters.size()));
    at::Tensor last_hidden;
    if (!c.load_state.empty()) {
      std::optional<infer::StreamPlace> begin;
      if (!c.continue_anyway) begin = place_at(*fasta, region.name, region.begin);
      last_hidden = infer::load_stream(*state, origin, begin, loaded.model->device(), c.load_state);
    }
    const auto score = scorer.score(letters, data::loss_weights(sequence, 1.0F, c.ambiguous), region.name,
                                    state, last_hidden);
    if (!c.save_state.empty())
      infer::save_stream(*state, last_hidden, origin, place_at(*fasta, region.name, region.end),
                         c.save_state);
    const data::SequenceCounts counts = data::count_letters(sequence);
    ambiguity.add(region.name, counts);
    table.write(row(region, score, counts) + more.of(target));
  };
  if (fasta) {
    for (const Target& target : targets) {
      const Region& region = target.region;
      if (table.has(key_of(region), more.of(target))) {
        progress.advance(region.length());
      } else {
        score_one(target, fasta->fetch(region.name, region.begin, region.end));
      }
    }
  } else {
    for (data::FastaRecord record; stream->next(record);) {
      Target target;
      target.region = {record.name, 0, static_cast<int64_t>(record.sequence.size())};
      if (!table.has(key_of(target.region), more.of(target))) score_one(target, record.sequence);
    }
  }
  progress.finish();
  ambiguity.warn();
  if (logits) logits->commit();
  table.commit();
}

}  // namespace

void add_score(CLI::App& app, const std::string& command_line) {
  CLI::App* sub = app.add_subcommand(
      "score",
      "Log-likelihood of records or regions: each base given the earlier ones, from the second base on.");
  const auto command = std::make_shared<ScoreCommand>();
  ScoreCommand& c = *command;
  sub->option_defaults()->group("Input");
  sub->add_option("--model-config", c.model_config,
                  "the model's shape: an Evo-2 YAML file or a Hugging Face config.json; may be left out "
                  "where the checkpoint is a folder with one");
  sub->add_option("--checkpoint", c.checkpoint,
                  "the model's weights: .pt (whole or in parts), .safetensors, or a Hugging Face folder")
      ->required();
  sub->add_option(
         "--fasta", c.fasta,
         "sequences: FASTA, plain, BGZF or gzip, or a folder of such files; - = standard input, read as a "
         "stream")
      ->required();
  sub->add_option("-r,--region", c.regions,
                  "only this region: name or name:start-end, 1-based, both ends included; may be repeated")
      ->allow_extra_args(false)
      ->take_all();
  sub->add_option("-R,--bed", c.bed,
                  "only the regions of this BED file (0-based, half-open); their names (column 4) are shown "
                  "in the table");
  sub->add_option(
         "--strand", c.strand,
         "with --bed: forward = score all regions as the forward strand reads; bed = score the reverse "
         "complement of regions whose strand (column 6) is -")
      ->check(CLI::IsMember({"forward", "bed"}))
      ->default_str("forward");
  sub->add_flag("--allow-truncated", c.allow_truncated, kAllowTruncatedHelp);
  sub->option_defaults()->group("Machine");
  const auto take_chunk = [&c](const std::string& text) {
    c.choose_chunk = text == "auto";
    if (!c.choose_chunk) c.options.chunk = parse_count(text);
  };
  sub->add_option_function<std::string>(
         "--chunk", take_chunk,
         "bases per forward call: auto = as many as are fast and fit, 0 = the "
         "whole sequence; changes memory and speed, not the result. Halved when "
         "memory runs out")
      ->check(CLI::Validator(
          [](const std::string& text) { return text == "auto" ? std::string() : count_error(text); },
          "auto|COUNT"))
      ->default_str("auto");
  add_memory_options(*sub, c.memory);
  sub->option_defaults()->group("Scoring");
  add_choice(*sub, "--norm", c.options.norm, {{"vocab", infer::Norm::vocab}, {"acgt", infer::Norm::acgt}},
             "probabilities over the whole vocabulary, or over A, C, G and T");
  add_choice(*sub, "--case", c.case_policy,
             {{"upper", data::CasePolicy::upper}, {"keep", data::CasePolicy::keep}},
             "lowercase letters are read as uppercase, or kept as they are");
  add_choice(*sub, "--ambiguous", c.ambiguous,
             {{"mask", data::AmbiguousPolicy::mask},
              {"error", data::AmbiguousPolicy::error},
              {"keep", data::AmbiguousPolicy::keep}},
             "letters other than A, C, G, T are read but not scored, refused, or scored");
  sub->option_defaults()->group("Output");
  sub->add_option("-o,--output", c.output,
                  "table (TSV); - = standard output. Rows appear in FILE.part as they are done, which "
                  "becomes FILE at the end")
      ->capture_default_str();
  sub->add_flag("--resume", c.resume,
                "keep the rows that an earlier run left in --output, and score the other records; starts "
                "afresh when there are none");
  sub->add_option("--logits", c.logits,
                  "also write all logits: a safetensors file with one float32 tensor [length, vocabulary] "
                  "per record or region");
  sub->option_defaults()->group("Advanced");
  sub->add_option("--save-state", c.save_state,
                  "write what the stream carries after the sequence, to go on from later (safetensors)");
  sub->add_option("--load-state", c.load_state,
                  "go on from a saved stream: the sequence is the continuation of the one it has read");
  sub->add_flag("--continue-anyway", c.continue_anyway,
                "--load-state: also where the sequence is another record, or does not begin where the saved "
                "stream has ended");
  add_choice(*sub, "--fp8", c.fp8, {{"emulate", weights::Fp8::emulate}, {"off", weights::Fp8::off}},
             "models with FP8 input projections: round as FP8 hardware does, or compute them like other "
             "layers and get other numbers");
  c.common.device = "auto";
  c.common.dtype = "fp32";
  add_machine_options(*sub, c.common);
  sub->callback([command, command_line] { run(*command, command_line); });
}

}  // namespace focus::cli
