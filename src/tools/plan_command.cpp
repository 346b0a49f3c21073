#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/memory_option.h"
#include "cli/table.h"
#include "commands.h"
#include "focus/compress/attention_work.h"
#include "focus/core/error.h"
#include "focus/core/output_guard.h"
#include "focus/core/units.h"
#include "focus/infer/memory_plan.h"
#include "focus/model/placement.h"
#include "focus/model/work.h"
#include "focus/nn/parameter.h"

namespace focus::tools {
namespace {

using Json = nlohmann::ordered_json;
using model::Operation;
using model::Unit;

enum class Job { prefill, decode, train };
constexpr std::pair<const char*, Job> kJobs[] = {
    {"prefill", Job::prefill}, {"decode", Job::decode}, {"train", Job::train}};

/// Rates in operations and bytes per second; memory in bytes.
struct Card {
  const char* name;
  double gemm, mma, fp32, copy, host;
  int64_t memory;
};
// H100 and H200: an 8192^3 bf16 product and a device copy (read and written) as measured through LibTorch;
// A100, fp32 and host links as their makers state them. mma.sync reaches 62 % of what Hopper's own
// instructions do.
constexpr Card kCards[] = {{"h100", 798e12, 495e12, 67e12, 3.0e12, 50e9, 80'000'000'000},
                           {"h200", 798e12, 495e12, 67e12, 4.3e12, 50e9, 141'000'000'000},
                           {"a100", 312e12, 312e12, 19.5e12, 2.0e12, 25e9, 80'000'000'000}};

constexpr int64_t kChunk = 8192;

struct PlanCommand {
  std::string model_config, card = "h100", dtype = "bf16", output = "-";
  std::vector<std::string> lengths = {"8192"};
  Job job = Job::prefill;
  int64_t batch = 1, chunk = 0;
  double gemm_tflops = 0, mma_tflops = 0, fp32_tflops = 0, copy_tbps = 0, host_gbps = 0;
  cli::MemoryOption memory;
  bool recompute = false, teacher = false, json = false;
};

/// A model of that shape whose parameters are one number each: for sizes alone.
std::shared_ptr<model::StripedHyena> hollow_model(const model::ModelConfig& config, at::ScalarType dtype) {
  const nn::DeferAllocation no_memory;
  const auto out = std::make_shared<model::StripedHyena>(config);
  for (auto& item : out->named_parameters()) {
    at::Tensor& parameter = item.value();
    const std::vector<int64_t> ones(static_cast<std::size_t>(parameter.dim()), 1);
    const auto type = out->dtype_of_parameter(item.key(), dtype);
    parameter.set_data(at::zeros(ones, parameter.options().dtype(type)).expand(parameter.sizes()));
  }
  out->set_trainable(false);
  return out;
}

struct Timed {
  Operation work;
  double compute_seconds, copy_seconds;
  double seconds() const { return std::max(compute_seconds, copy_seconds); }
};

struct Plan {
  int64_t length = 0, chunk = 0, bases = 0;  // bases computed, over the batch
  std::vector<Timed> operations;
  infer::MemoryPlan memory;
  compress::FarTraffic far;
  double saved_bytes = 0;  // of training
  double seconds() const {
    double out = 0;
    for (const Timed& o : operations) out += o.seconds();
    return out;
  }
  /// Of attention, and of what memory computes beside it.
  double memory_flop_per_base() const {
    double out = 0;
    for (const Timed& o : operations) {
      for (const char* name : {"attention", "closing windows", "choosing k-mers"})
        out += o.work.name.ends_with(name) ? o.work.flop : 0;
    }
    return out / static_cast<double>(bases);
  }
  double fast_bytes(int64_t batch) const {
    return static_cast<double>(memory.weight_bytes) +
           static_cast<double>(batch) * static_cast<double>(memory.needed_bytes()) + saved_bytes;
  }
};

Plan plan(const PlanCommand& c, const Card& card, const model::ModelConfig& config,
          const weights::LoadedModel& hollow, const cli::ChosenMemory& memory, int64_t length) {
  const bool decodes = c.job == Job::decode, trains = c.job == Job::train;
  const model::Backbone& model = *hollow.model;
  const model::BackboneShape& shape = model.shape();
  const auto element = static_cast<int64_t>(at::elementSize(model.dtype()));
  const auto layers = static_cast<int64_t>(model.attention_blocks().size());
  Plan out{.length = length};
  const int64_t whole = decodes ? 1 : trains ? length : c.chunk;
  out.memory = infer::plan_memory(model, memory.compressed.get(), length, whole, card.memory);
  if (whole ==
      0) {  // chosen for what the card has beside the weights; where nothing fits, as on a larger card
    const auto beside = [&](int64_t chunk) {
      return infer::plan_memory(model, memory.compressed.get(), length, chunk,
                                card.memory - out.memory.weight_bytes);
    };
    out.memory = beside(0);
    if (out.memory.needed_bytes() > out.memory.available_bytes) out.memory = beside(kChunk);
  }
  out.chunk = out.memory.chunk;
  const int64_t begin = decodes ? length : 0, computed = decodes ? 1 : length;
  out.bases = c.batch * computed;

  const auto pass_of = [&](const compress::CompressedModel* compressed) {
    const compress::KeysSeen seen = compress::keys_seen(compressed, begin, begin + computed, out.chunk);
    // What is retained may be kept in fewer bytes than a key and a value in the model's type take.
    const auto use =
        compressed != nullptr ? compressed->planned_use(begin + computed) : compress::MemoryUse{};
    const double raw = static_cast<double>(2 * shape.num_kv_heads * shape.head_dim * element);
    const double entry =
        use.entries > 0 ? static_cast<double>(use.retained_bytes) / static_cast<double>(use.entries * layers)
                        : raw;
    return model::Pass{.batch = c.batch,
                       .length = computed,
                       .calls = (computed + out.chunk - 1) / out.chunk,
                       .element = element,
                       .predicted = computed,
                       .pairs = seen.pairs,
                       .key_bytes = static_cast<double>(c.batch) * seen.read * std::min(raw, entry)};
  };
  const auto add = [&](const std::vector<Operation>& operations, const std::string& prefix) {
    for (Operation o : operations) {
      o.name = prefix + o.name;
      const double rate = o.unit == Unit::gemm ? card.gemm : o.unit == Unit::mma ? card.mma : card.fp32;
      out.operations.push_back({o, o.flop / rate, o.bytes / card.copy});
    }
  };
  if (trains && c.teacher) add(forward_work(config, pass_of(nullptr)), "teacher: ");
  const model::Pass pass = pass_of(memory.compressed.get());
  out.far = compress::far_traffic(memory.compressed.get(), begin, begin + computed);
  const bool fits = c.memory.memory == "fitted" || c.memory.memory == "far_fitted";
  add(forward_work(config, pass), "");
  if (memory.compressed != nullptr && fits) {
    const compress::WindowPlan& windows = memory.compressed->plan();
    const double closed = decodes ? static_cast<double>(c.batch) / static_cast<double>(windows.window_bases())
                                  : static_cast<double>(c.batch * windows.window_of(length));
    const Operation fit = compress::fit_work(memory.compressed->config().focus.fitted, shape, layers, closed,
                                             windows.window_bases(), windows.num_kmers(0));
    add({fit}, "");
    // The gradient of a product with two operands takes two more of its size.
    if (trains)
      add({{"backward: " + fit.name, fit.unit, (c.recompute ? 3 : 2) * fit.flop,
            (c.recompute ? 3 : 2) * fit.bytes}},
          "");
  }
  if (model::Operation choice = compress::choice_work(memory.compressed.get(), begin, begin + computed);
      choice.flop > 0) {
    choice.flop *= static_cast<double>(c.batch);
    choice.bytes *= static_cast<double>(c.batch);
    add({choice}, "");
  }
  if (trains) {
    add(backward_work(config, pass, c.recompute), "");
    out.saved_bytes = static_cast<double>(out.bases) * model::saved_bytes(config, element, c.recompute);
  }
  return out;
}

std::string rounded(double value) {
  std::ostringstream out;
  out.precision(
      value == 0 || value >= 100 ? 0 : std::clamp(2 - static_cast<int>(std::floor(std::log10(value))), 0, 5));
  out << std::fixed << value;
  return out.str();
}

const char* bound(const Timed& o) {
  return o.compute_seconds >= o.copy_seconds ? name_of(o.work.unit) : "memory";
}

std::string text_of(const PlanCommand& c, const Card& card, const Plan& p) {
  std::string out =
      concat(format_count(p.length), c.job == Job::decode ? " bases before the one decoded" : " bases",
             c.batch > 1 ? concat(", batch ", c.batch) : "", ", chunks of ", format_count(p.chunk), "\n");
  std::vector<std::array<std::string, 6>> rows = {{"operation", "unit", "GFLOP", "GB", "ms", "bound by"}};
  double flop = 0, bytes = 0;
  for (const Timed& o : p.operations) {
    rows.push_back({o.work.name, name_of(o.work.unit), rounded(o.work.flop / 1e9),
                    rounded(o.work.bytes / 1e9), rounded(o.seconds() * 1e3), bound(o)});
    flop += o.work.flop, bytes += o.work.bytes;
  }
  rows.push_back({"in all", "", rounded(flop / 1e9), rounded(bytes / 1e9), rounded(p.seconds() * 1e3), ""});
  std::array<std::size_t, 6> widths{};
  for (const auto& row : rows)
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  for (const auto& row : rows) {
    std::string line = "  ";
    for (std::size_t i = 0; i < row.size(); ++i) {
      const std::string padding(widths[i] - row[i].size(), ' ');
      const bool left = i < 2 || i == 5;
      line += (i > 0 ? "  " : "") + (left ? row[i] + padding : padding + row[i]);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  }
  const infer::MemoryPlan& m = p.memory;
  out += concat(
      "  at best ", rounded(static_cast<double>(p.bases) / p.seconds()),
      " bases/s\n  attention and memory compute ", rounded(p.memory_flop_per_base() / 1e9),
      " GFLOP per base, ", rounded(100 * p.memory_flop_per_base() * static_cast<double>(p.bases) / flop),
      " % of all\n  fast memory ", format_bytes(static_cast<int64_t>(p.fast_bytes(c.batch))), ": weights ",
      format_bytes(m.weight_bytes), ", states ", format_bytes(c.batch * m.state_bytes),
      ", kept keys and values ", format_bytes(c.batch * m.kept_bytes), ", open window ",
      format_bytes(c.batch * m.open_bytes), ", workspace ", format_bytes(c.batch * m.workspace_bytes));
  if (m.far_bytes > 0)
    out +=
        concat(", far memory ", format_bytes(c.batch * m.far_bytes), m.far_beside_model ? "" : " elsewhere");
  if (p.saved_bytes > 0) out += concat(", activations ", format_bytes(static_cast<int64_t>(p.saved_bytes)));
  out += concat(p.fast_bytes(c.batch) > static_cast<double>(card.memory) ? "; DOES NOT FIT: the card has "
                                                                         : "; the card has ",
                format_bytes(card.memory), "\n  kept keys and values over the host link ",
                rounded(static_cast<double>(c.batch * m.kept_bytes) / card.host * 1e3), " ms, weights ",
                rounded(static_cast<double>(m.weight_bytes) / card.host * 1e3), " ms\n");
  if (const double moved = p.far.stored + p.far.fetched; moved > 0) {
    const double each = static_cast<double>(p.bases) / static_cast<double>(c.batch);
    out += concat("  far memory moves per base ", format_bytes(static_cast<int64_t>(p.far.stored / each)),
                  " to the store and at most ", format_bytes(static_cast<int64_t>(p.far.fetched / each)),
                  " from it: over the host link ", rounded(card.host / moved * each), " bases/s or more\n");
  }
  return out;
}

Json json_of(const PlanCommand& c, const Plan& p) {
  Json operations = Json::array();
  for (const Timed& o : p.operations)
    operations.push_back({{"name", o.work.name},
                          {"unit", name_of(o.work.unit)},
                          {"flop", o.work.flop},
                          {"bytes", o.work.bytes},
                          {"seconds", o.seconds()},
                          {"bound", bound(o)}});
  const infer::MemoryPlan& m = p.memory;
  return {{"length", p.length},
          {"chunk", p.chunk},
          {"bases", p.bases},
          {"seconds", p.seconds()},
          {"bases_per_second", static_cast<double>(p.bases) / p.seconds()},
          {"memory_flop_per_base", p.memory_flop_per_base()},
          {"far_stored_bytes", static_cast<double>(c.batch) * p.far.stored},
          {"far_fetched_bytes_at_most", static_cast<double>(c.batch) * p.far.fetched},
          {"memory",
           {{"weight_bytes", m.weight_bytes},
            {"state_bytes", c.batch * m.state_bytes},
            {"kept_bytes", c.batch * m.kept_bytes},
            {"open_bytes", c.batch * m.open_bytes},
            {"far_bytes", c.batch * m.far_bytes},
            {"workspace_bytes", c.batch * m.workspace_bytes},
            {"activation_bytes", p.saved_bytes},
            {"total_bytes", p.fast_bytes(c.batch)}}},
          {"operations", operations}};
}

void run(const PlanCommand& c) {
  cli::apply_common_options({}, 0);
  require_separate({{"--output", c.output}}, {{"--model-config", c.model_config}});
  if (c.batch < 1) fail<ConfigError>("--batch must be at least 1");
  if (c.job != Job::train && (c.recompute || c.teacher))
    fail<ConfigError>("--recompute and --teacher have no effect without --job train");
  if (c.job != Job::prefill && c.chunk != 0) fail<ConfigError>("--chunk has no effect without --job prefill");
  const auto named =
      std::find_if(std::begin(kCards), std::end(kCards), [&](const Card& k) { return k.name == c.card; });
  Card card = *named;
  const auto given = [](double& rate, double value, double unit) { rate = value > 0 ? value * unit : rate; };
  given(card.gemm, c.gemm_tflops, 1e12);
  given(card.mma, c.mma_tflops, 1e12);
  given(card.fp32, c.fp32_tflops, 1e12);
  given(card.copy, c.copy_tbps, 1e12);
  given(card.host, c.host_gbps, 1e9);

  const model::ModelConfig config = model::read_model_config(c.model_config);
  const weights::LoadedModel hollow{hollow_model(config, model::parse_dtype(c.dtype)), "", c.dtype};
  const cli::ChosenMemory memory = cli::choose_memory(c.memory, hollow);
  std::vector<Plan> plans;
  for (const std::string& text : c.lengths) {
    const int64_t length = parse_count(text);
    if (length < 1) fail<ConfigError>("--length must be at least 1");
    plans.push_back(plan(c, card, config, hollow, memory, length));
  }
  const double dense = model::dense_flop(config);
  cli::Table out(c.output);
  if (c.json) {
    Json all = {{"model", config.name},
                {"parameters", hollow.model->num_parameters()},
                {"dense_flop_per_base", dense},
                {"job", kJobs[static_cast<std::size_t>(c.job)].first},
                {"memory", memory.description},
                {"dtype", c.dtype},
                {"batch", c.batch},
                {"recompute", c.recompute},
                {"teacher", c.teacher},
                {"ceilings",
                 {{"card", card.name},
                  {"gemm_flop_per_second", card.gemm},
                  {"mma_flop_per_second", card.mma},
                  {"fp32_flop_per_second", card.fp32},
                  {"copy_bytes_per_second", card.copy},
                  {"host_bytes_per_second", card.host},
                  {"memory_bytes", card.memory}}},
                {"plans", Json::array()}};
    for (const Plan& p : plans) all["plans"].push_back(json_of(c, p));
    out.write(all.dump(2) + "\n");
  } else {
    out.write(concat(config.name, ", ", format_count(hollow.model->num_parameters()), " parameters, ",
                     c.dtype, ", ", memory.description, ", ", kJobs[static_cast<std::size_t>(c.job)].first,
                     c.recompute ? " with recomputation" : "", "; dense ", rounded(dense / 1e9),
                     " GFLOP per base\n", card.name, ": products ", rounded(card.gemm / 1e12),
                     " TFLOP/s, own tensor-core kernels ", rounded(card.mma / 1e12), ", fp32 ",
                     rounded(card.fp32 / 1e12), ", device memory ", rounded(card.copy / 1e12),
                     " TB/s, host link ", rounded(card.host / 1e9), " GB/s\n"));
    for (const Plan& p : plans) out.write("\n" + text_of(c, card, p));
  }
  out.commit();
}

}  // namespace

void add_plan(CLI::App& app) {
  CLI::App* sub = app.add_subcommand("plan",
                                     "What a job computes and moves on a card, operation by operation, the "
                                     "time that takes at best, and the fast "
                                     "memory it needs; on paper: nothing is run.");
  const auto command = std::make_shared<PlanCommand>();
  PlanCommand& c = *command;
  sub->option_defaults()->group("Input");
  sub->add_option("--model-config", c.model_config, "the model's shape: an Evo-2 YAML file")->required();
  sub->option_defaults()->group("Job");
  cli::add_choice(*sub, "--job", c.job, {std::begin(kJobs), std::end(kJobs)},
                  "read a prompt, add one base to it, or a training step of an adapter");
  sub->add_option("--length", c.lengths, "bases of the prompt or sequence, several by commas: 8192,131072,1M")
      ->delimiter(',')
      ->capture_default_str();
  cli::add_count(*sub, "--batch", c.batch, "sequences at the same time");
  cli::add_count(*sub, "--chunk", c.chunk, "prefill: bases per forward call; 0 = as focus-infer chooses");
  sub->add_option("--dtype", c.dtype, "fp32 or bf16")
      ->check(CLI::IsMember({"bf16", "fp32"}))
      ->capture_default_str();
  sub->add_flag("--recompute", c.recompute, "training: keep only each block's input");
  sub->add_flag("--teacher", c.teacher, "training: a pass with full memory, as the KL objective needs");
  cli::add_memory_options(*sub, c.memory);
  sub->option_defaults()->group("Ceilings");
  sub->add_option("--card", c.card, "h100, h200 or a100")
      ->check(CLI::IsMember({"h100", "h200", "a100"}))
      ->capture_default_str();
  const auto rate = [&](const char* name, double& value, const char* help) {
    sub->add_option(name, value, concat(help, "; default: the card's"))->check(CLI::PositiveNumber);
  };
  rate("--gemm-tflops", c.gemm_tflops, "large matrix products");
  rate("--mma-tflops", c.mma_tflops, "attention and long filters");
  rate("--fp32-tflops", c.fp32_tflops, "fp32 arithmetic");
  rate("--copy-tbps", c.copy_tbps, "device memory, bytes read and written, TB/s");
  rate("--host-gbps", c.host_gbps, "host memory to the card, GB/s");
  sub->option_defaults()->group("Output");
  sub->add_flag("--json", c.json, "machine-readable");
  sub->add_option("-o,--output", c.output, "report; - = standard output")->capture_default_str();
  sub->callback([command] { run(*command); });
}

}  // namespace focus::tools
