#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <ctime>
#include <iostream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>

#include "cli/memory_option.h"
#include "commands.h"
#include "focus/core/error.h"
#include "focus/core/system_memory.h"
#include "focus/core/units.h"
#include "focus/infer/decode.h"
#include "focus/infer/memory_plan.h"
#include "focus/model/placement.h"
#include "focus/model/striped_hyena.h"
#include "focus/model/work.h"
#include "focus/ops/device_memory.h"
#include "focus/weights/load_model.h"

namespace focus::tools {
namespace {

using at::Tensor;
using Clock = std::chrono::steady_clock;

struct BenchCommand {
  cli::CommonOptions common;
  std::string model_config, checkpoint;
  cli::MemoryOption memory;
  int64_t prefill = 1024, chunk = 0, decode = 16, repeats = 2, batch = 1, check = 0;
  std::optional<int64_t> seed;  // of random weights
  weights::Fp8 fp8 = weights::Fp8::emulate;
  bool copy_weights = false, blocks = false, json = false;
};

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

template <class F>
double seconds_of(const F& f) {
  const auto begin = Clock::now();
  f();
  return seconds_since(begin);
}

/// A card is asked for several results before the host waits for the last one; a wait would count for what is
/// measured.
int64_t at_once(const at::TensorOptions& options) { return options.device().is_cuda() ? 20 : 1; }

/// Best rate of a matrix product of the size and type that a prefill is made of, in floating-point operations
/// per second.
double gemm_rate(int64_t rows, int64_t width, const at::TensorOptions& options) {
  const Tensor a = at::randn({rows, width}, options), b = at::randn({width, width}, options);
  const int64_t times = at_once(options);
  double best = 0;
  for (int i = 0; i < 4; ++i) {
    const double seconds = seconds_of([&] {
      Tensor product;
      for (int64_t n = 0; n < times; ++n) product = at::linear(a, b);
      product.flatten()[0].item<double>();
    });
    best = std::max(best, 2.0 * static_cast<double>(times * rows * width * width) / seconds);
  }
  return best;
}

/// The rate at which all threads together read memory, in bytes per second, one time at a time: on a machine
/// that others use it must be asked for at the moments of what it is compared with.
class MemoryReader {
 public:
  MemoryReader() {
    prefer_huge_pages(words_.get(), kWords * sizeof(uint64_t));
    std::fill_n(words_.get(), kWords, 1);
  }
  double rate() const {
    std::atomic<uint64_t> total = 0;
    const double seconds = seconds_of([&] {
      at::parallel_for(0, static_cast<int64_t>(kWords), 1 << 16, [&](int64_t begin, int64_t end) {
        total += std::accumulate(words_.get() + begin, words_.get() + end, uint64_t{0});
      });
    });
    FOCUS_CHECK(total == kWords, "a read went wrong");
    return static_cast<double>(kWords * sizeof(uint64_t)) / seconds;
  }

 private:
  static constexpr std::size_t kWords = std::size_t{1} << 26;  // 512 MiB
  std::unique_ptr<uint64_t[]> words_ = std::make_unique_for_overwrite<uint64_t[]>(kWords);
};

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2),
                   values.end());
  return values[values.size() / 2];
}

/// Best rate at which a device copies within its own memory, bytes read and written per second.
double copy_rate(const at::TensorOptions& options) {
  const Tensor from = at::ones({int64_t{1} << 28}, options.dtype(at::kFloat)), to = at::empty_like(from);
  const int64_t times = at_once(options);
  double best = 0;
  for (int i = 0; i < 4; ++i) {
    const double seconds = seconds_of([&] {
      for (int64_t n = 0; n < times; ++n) to.copy_(from);
      to[0].item<float>();
    });
    best = std::max(best, 2.0 * static_cast<double>(times) * static_cast<double>(from.nbytes()) / seconds);
  }
  return best;
}

struct Work {
  double multiplications_per_token = 0;  // of matrix products; a multiplication counts two operations
  double bytes_per_token = 0;            // weights read when one token is computed
};

Work work_of(const model::Backbone& model) {
  Work out;
  for (const auto& item : model.named_parameters()) {
    if (item.value().dim() == 2 && item.key().ends_with(".weight"))
      out.multiplications_per_token += static_cast<double>(item.value().numel());
    out.bytes_per_token += static_cast<double>(item.value().nbytes());
  }
  return out;
}

/// What is measured: lines for people as they come, or one JSON object at the end.
class Figures {
 public:
  explicit Figures(bool json) : json_(json) {}
  void text(const std::string& name, const std::string& value) { add(name, value, value); }
  void number(const std::string& name, double value, const std::string& shown) { add(name, value, shown); }
  void finish() const {
    if (json_) std::cout << all_.dump(2) << std::endl;
  }

 private:
  void add(const std::string& name, nlohmann::ordered_json value, const std::string& shown) {
    if (!json_) std::cout << name << '\t' << shown << std::endl;
    all_[name] = std::move(value);
  }
  bool json_;
  nlohmann::ordered_json all_ = nlohmann::ordered_json::object();
};

std::string rounded(double value, int digits = 3) {
  std::ostringstream out;
  out.precision(digits);
  out << std::fixed << value;
  return out.str();
}

/// `own_memory`: on the CPU each matrix of random weights has memory of its own, so that reading them all
/// costs what a real model's cost.
weights::LoadedModel open_model(const BenchCommand& c, const std::string& device, bool own_memory) {
  const at::ScalarType dtype = model::parse_dtype(c.common.dtype);
  if (!c.seed) return weights::load_model(c.model_config, c.checkpoint, dtype, device, c.fp8, c.copy_weights);
  const weights::LoadOptions options{.dtype = dtype, .fp8 = c.fp8, .writable = own_memory};
  return weights::random_model(c.model_config, static_cast<uint64_t>(*c.seed), options, device);
}

/// Logits of a prompt read in calls of at most `chunk` bases, one base fewer after each call, and one call of
/// one base in between. [B, L, V] fp32 on the CPU.
Tensor logits_of(model::Backbone& model, const infer::StreamFactory& begin_stream, const Tensor& prompt,
                 int64_t chunk) {
  const auto stream = begin_stream(prompt.size(1));
  std::vector<Tensor> out;
  for (int64_t t = 0, next = chunk; t < prompt.size(1);) {
    const int64_t size = std::min(next, prompt.size(1) - t);
    out.push_back(model.unembed(stream->forward(prompt.narrow(1, t, size))).to(at::kCPU, at::kFloat));
    t += size;
    next = next > 1 && next < chunk - 7 ? 1 : std::max<int64_t>(next == 1 ? chunk : next - 1, 1);
  }
  return at::cat(out, 1);
}

/// Root mean square of the difference over that of the logits about their mean.
double distance(const Tensor& logits, const Tensor& reference) {
  const Tensor spread = reference - reference.mean(-1, true);
  return ((logits - reference).square().mean() / spread.square().mean()).sqrt().item<double>();
}

void check(const BenchCommand& c, const weights::LoadedModel& loaded, const cli::ChosenMemory& memory,
           const Tensor& prompt, Figures& out) {
  model::Backbone& model = *loaded.model;
  const Tensor whole = logits_of(model, memory.begin_stream, prompt, prompt.size(1));
  const double chunks = distance(
      logits_of(model, memory.begin_stream, prompt, std::max<int64_t>(prompt.size(1) / 3, 1)), whole);
  out.number("check.chunks", chunks, concat(chunks, " of the logits' spread lie chunks from the whole"));
  if (model.device().is_cpu()) return;
  const weights::LoadedModel twin = open_model(c, "cpu", false);
  const cli::ChosenMemory twin_memory = cli::choose_memory(c.memory, twin);
  const Tensor on_cpu = logits_of(*twin.model, twin_memory.begin_stream, prompt.cpu(), prompt.size(1));
  const double devices = distance(whole, on_cpu);
  out.number("check.devices", devices,
             concat(devices, " of the logits' spread lies ", model.device().str(), " from the CPU"));
}

/// One block of each kind, and of it all but the MLP: the mixer with its projections.
void bench_blocks(const model::StripedHyena& model, int64_t batch, int64_t length, double gemm,
                  Figures& out) {
  const model::ModelConfig& config = model.config();
  const Tensor x = at::randn({batch, length, config.hidden_size},
                             at::TensorOptions().device(model.device()).dtype(model.dtype()));
  const auto time_of = [](const auto& f) {
    std::vector<double> times;
    for (int i = 0; i < 7; ++i)
      times.push_back(seconds_of([&] { f().flatten()[0].template item<double>(); }));
    std::sort(times.begin() + 2, times.end());  // the first two warm up
    return times[4];
  };
  for (const auto kind :
       {model::BlockKind::hcs, model::BlockKind::hcm, model::BlockKind::hcl, model::BlockKind::attention}) {
    const auto found = std::find(config.blocks.begin() + 1, config.blocks.end(), kind);  // the first has GELU
    if (found == config.blocks.end()) continue;
    auto& block = *model.blocks->items[static_cast<std::size_t>(found - config.blocks.begin())];
    model::ModelConfig one = config;
    one.num_layers = 1;
    one.blocks = {kind};
    one.final_norm = false;
    double flop = 0;
    for (const auto& o :
         forward_work(one, {.batch = batch,
                            .length = length,
                            .pairs = static_cast<double>(length) * static_cast<double>(length + 1) / 2})) {
      if (!o.name.starts_with("MLP")) flop += o.flop;
    }
    const double whole = time_of([&] { return block.forward(x, 0, nullptr, nullptr); });
    const double mlp = time_of([&] { return block.mlp->forward(block.post_norm->forward(x)); });
    const std::string name = concat("block.", name_of(kind));
    out.number(name + ".s", whole, rounded(whole, 5));
    const double rate = flop / std::max(whole - mlp, 1e-9);
    out.number(name + ".mixer_flop_per_s", rate,
               concat(rounded(rate / 1e9, 1), " GFLOP/s with projections, without the MLP: ",
                      rounded(100 * rate / gemm, 1), " % of a matrix product"));
  }
}

void run(const BenchCommand& c) {
  cli::apply_common_options(c.common, 0);
  if (c.prefill < 1 || c.repeats < 1 || c.batch < 1)
    fail<ConfigError>("--prefill, --repeats and --batch must be at least 1");
  if (c.seed.has_value() == !c.checkpoint.empty()) fail<ConfigError>("give --checkpoint or --random-weights");
  cli::check(c.memory);
  const std::string device = model::resolve_devices(c.common.device);
  if (c.copy_weights && device != "cpu")
    fail<ConfigError>("--copy-weights is for the CPU; on ", device, " weights are a copy anyway");
  Figures out(c.json);
  const auto begin = Clock::now();
  const weights::LoadedModel loaded = open_model(c, device, device == "cpu");
  const double opening = seconds_since(begin);
  out.number("open_s", opening, rounded(opening));
  model::Backbone& model = *loaded.model;
  const bool on_cpu = model.device().is_cpu(), on_card = model.device().is_cuda();
  const cli::ChosenMemory memory = cli::choose_memory(c.memory, loaded);
  const Work work = work_of(model);
  out.text("model", concat(model.shape().name, ", ", format_count(model.num_parameters()), " parameters, ",
                           loaded.precision, ", ", device, ", ", at::get_num_threads(), " threads"));
  out.text("memory", memory.description);
  out.number("weights", work.bytes_per_token, format_bytes(static_cast<int64_t>(work.bytes_per_token)));
  const int64_t chunk = c.chunk == 0 ? c.prefill : c.chunk;
  out.text("plan", infer::plan_memory(model, memory.compressed.get(), c.prefill + c.decode, chunk,
                                      infer::available_memory(model.device()))
                       .describe());
  const at::NoGradGuard guard;
  const auto options = at::TensorOptions().device(model.device());
  const auto& bases = model.vocabulary().bases;
  const Tensor letters = at::tensor(std::vector<int64_t>(bases.begin(), bases.end()));
  const auto generator = at::make_generator<at::CPUGeneratorImpl>(uint64_t{1});
  const Tensor prompt =
      letters.index({at::randint(0, 4, {c.batch, c.prefill}, generator, at::kLong)}).to(options.device());
  if (c.check > 0) check(c, loaded, memory, prompt.narrow(1, 0, std::min(c.check, c.prefill)), out);

  std::unique_ptr<infer::Stream> stream;
  Tensor hidden;
  std::vector<double> prefills;
  for (int64_t i = 0; i < c.repeats; ++i) {
    stream = memory.begin_stream(c.prefill + c.decode);
    const std::clock_t before = std::clock();
    prefills.push_back(seconds_of([&] {
      for (int64_t t = 0; t < c.prefill; t += chunk)
        hidden = stream->forward(prompt.narrow(1, t, std::min(chunk, c.prefill - t)));
      hidden = hidden.narrow(1, hidden.size(1) - 1, 1).clone();
      hidden.sum().item<double>();
    }));
    const double processor = static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC;
    out.number(concat("prefill_s.", i + 1), prefills.back(), rounded(prefills.back()));
    if (on_cpu)
      out.number(concat("prefill_processor_s.", i + 1), processor,
                 concat(rounded(processor), " (of all threads)"));
  }
  const int64_t width = on_card ? 8192 : model.shape().width;
  const double gemm =
      gemm_rate(on_card ? width : std::min<int64_t>(c.prefill, 1024), width, options.dtype(model.dtype()));
  out.number("gemm_flop_per_s", gemm, concat(rounded(gemm / 1e9, 1), " GFLOP/s"));
  const double prefill = *std::min_element(prefills.begin(), prefills.end());
  const double read = static_cast<double>(c.batch * c.prefill);
  const double rate = 2.0 * work.multiplications_per_token * read / prefill;
  out.number("prefill_bases_per_s", read / prefill, rounded(read / prefill, 1));
  out.number("prefill_flop_per_s", rate,
             concat(rounded(rate / 1e9, 1), " GFLOP/s, ", rounded(100 * rate / gemm, 1),
                    " % of a matrix product alone (multiplications with weights only)"));
  if (c.decode > 0) {
    double bandwidth = 0;
    // The likeliest letter each time. The host looks at it base by base on the CPU, so that each is timed; a
    // card must not wait for that, so that it is looked at once, and a few bases warm up first.
    infer::Decoder decoder(model, std::move(stream), hidden,
                           {.choice = {.temperature = 0},
                            .allowed = {bases.begin(), bases.end()},
                            .block = on_cpu ? 1 : c.decode});
    double seconds = 0;
    if (on_cpu) {
      constexpr int64_t kReads = 5;
      const MemoryReader reader;
      std::vector<double> steps, rates;
      std::clock_t processor = 0;
      for (int64_t i = 0; i < c.decode; ++i) {
        if (i * kReads / c.decode >= std::ssize(rates)) rates.push_back(reader.rate());
        const std::clock_t before = std::clock();
        steps.push_back(seconds_of([&] { decoder.next(1); }));
        processor += std::clock() - before;
      }
      seconds = median(steps);
      bandwidth = median(rates);
      out.number("decode_s_per_base", seconds,
                 concat(rounded(seconds, 4), " (median of ", steps.size(), ", best ",
                        rounded(*std::min_element(steps.begin(), steps.end()), 4), ")"));
      const double of_processors =
          static_cast<double>(processor) / CLOCKS_PER_SEC / static_cast<double>(c.decode);
      out.number("decode_processor_s_per_base", of_processors,
                 concat(rounded(of_processors, 5), " (of all threads, mean)"));
    } else {
      bandwidth = copy_rate(options);
      const int64_t warm = std::min<int64_t>(3, c.decode - 1);
      decoder.next(warm);
      seconds = seconds_of([&] { decoder.next(c.decode - warm); }) / static_cast<double>(c.decode - warm);
      out.number("decode_s_per_base", seconds,
                 concat(rounded(seconds, 5), " (mean of ", c.decode - warm, ")"));
      const infer::Decoder::Steps& steps = decoder.steps();
      out.text("decode_steps", concat(steps.plain, " launched by the host, ", steps.recorded, " recorded, ",
                                      steps.replayed, " replayed"));
    }
    out.number("decode_bases_per_s", static_cast<double>(c.batch) / seconds,
               rounded(static_cast<double>(c.batch) / seconds, 2));
    out.number("bandwidth_bytes_per_s", bandwidth, concat(rounded(bandwidth / 1e9, 2), " GB/s"));
    // Weights, and what attention reads of the past.
    const infer::StreamMemory held = decoder.stream().memory();
    const double bytes = (work.bytes_per_token + static_cast<double>(held.total_bytes())) / seconds;
    out.number(
        "decode_bytes_per_s", bytes,
        concat(rounded(bytes / 1e9, 2), " GB/s of weights and memory, ", rounded(100 * bytes / bandwidth, 1),
               " % of ", on_card ? "a copy on the device" : "all threads reading memory alone"));
    out.number("stream_bytes", static_cast<double>(held.total_bytes()), format_bytes(held.total_bytes()));
  }
  if (c.blocks) {
    const auto* striped_hyena = dynamic_cast<const model::StripedHyena*>(&model);
    if (striped_hyena == nullptr) fail<ConfigError>("--blocks needs a StripedHyena");
    bench_blocks(*striped_hyena, c.batch, c.prefill, gemm, out);
  }
  if (!on_cpu) {
    const int64_t peak = ops::peak_device_bytes(model.device());
    out.number("peak_device", static_cast<double>(peak), format_bytes(peak));
  }
  const ProcessMemory resident = read_process_memory();
  out.number("peak_resident", static_cast<double>(resident.peak),
             concat(format_bytes(resident.peak), " (now ", format_bytes(resident.own), " own, ",
                    format_bytes(resident.files), " pages of files)"));
  out.finish();
}

}  // namespace

void add_bench(CLI::App& app) {
  CLI::App* sub = app.add_subcommand("bench",
                                     "Time to open a model, to read a prompt and to add one base, the memory "
                                     "it takes, and the share of what this machine can do.");
  const auto command = std::make_shared<BenchCommand>();
  BenchCommand& c = *command;
  sub->option_defaults()->group("Input");
  sub->add_option("--model-config", c.model_config, "the model's shape: an Evo-2 YAML file")->required();
  CLI::Option* checkpoint = sub->add_option("--checkpoint", c.checkpoint, "the model's weights");
  sub->add_option("--random-weights", c.seed,
                  "random weights of this seed in place of a checkpoint, as focus-model random writes them")
      ->check(CLI::NonNegativeNumber)
      ->excludes(checkpoint);
  sub->add_flag(
         "--copy-weights", c.copy_weights,
         "on the CPU, weights in memory of their own, in huge pages where the system has them, in place "
         "of the mapped file; random weights always are")
      ->excludes("--random-weights");
  cli::add_memory_options(*sub, c.memory);
  sub->option_defaults()->group("Measurement");
  cli::add_count(*sub, "--prefill", c.prefill, "bases of the prompt");
  cli::add_count(*sub, "--chunk", c.chunk, "bases per forward call of the prompt; 0 = all at once");
  cli::add_count(*sub, "--decode", c.decode,
                 "bases that the model adds to it, the likeliest letter each time; 0 = none");
  cli::add_count(*sub, "--repeats", c.repeats,
                 "prompts to read, each from the start; the first also reads the weights from disk or cache");
  cli::add_count(*sub, "--batch", c.batch, "sequences at the same time");
  cli::add_count(
      *sub, "--check", c.check,
      "first compare the logits of so many bases: in chunks and whole, on the device and on the CPU");
  sub->add_flag("--blocks", c.blocks, "also time one block of each kind at the prompt's length");
  sub->add_flag("--json", c.json, "machine-readable, all at the end");
  sub->option_defaults()->group("Advanced");
  cli::add_choice(*sub, "--fp8", c.fp8, {{"emulate", weights::Fp8::emulate}, {"off", weights::Fp8::off}},
                  "FP8 input projections");
  c.common.device = "auto";
  c.common.dtype = "bf16";
  cli::add_machine_options(*sub, c.common);
  sub->callback([command] { run(*command); });
}

}  // namespace focus::tools
