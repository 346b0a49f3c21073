#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <iostream>
#include <memory>
#include <numeric>

#include "commands.h"
#include "focus/core/error.h"
#include "focus/core/system_memory.h"
#include "focus/core/units.h"
#include "focus/infer/memory_plan.h"
#include "focus/model/placement.h"
#include "focus/weights/load_model.h"

namespace focus::tools {
namespace {

using at::Tensor;
using Clock = std::chrono::steady_clock;

struct BenchCommand {
  cli::CommonOptions common;
  std::string model_config, checkpoint;
  int64_t prefill = 1024, chunk = 0, decode = 16, repeats = 2;
  weights::Fp8 fp8 = weights::Fp8::emulate;
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

/// Best rate of a matrix product of the size and type that a prefill is made of, in floating-point operations
/// per second.
double gemm_rate(int64_t rows, int64_t width, const at::TensorOptions& options) {
  const Tensor a = at::randn({rows, width}, options), b = at::randn({width, width}, options);
  double best = 0;
  for (int i = 0; i < 4; ++i) {
    const double seconds = seconds_of([&] { at::linear(a, b).flatten()[0].item<double>(); });
    best = std::max(best, 2.0 * static_cast<double>(rows * width * width) / seconds);
  }
  return best;
}

/// Best rate at which all threads together read memory, in bytes per second.
double read_rate() {
  constexpr std::size_t kWords = std::size_t{1} << 26;  // 512 MiB
  std::vector<uint64_t> words(kWords, 1);
  double best = 0;
  for (int i = 0; i < 4; ++i) {
    std::atomic<uint64_t> total = 0;
    const double seconds = seconds_of([&] {
      at::parallel_for(0, static_cast<int64_t>(kWords), 1 << 16, [&](int64_t begin, int64_t end) {
        total += std::accumulate(words.begin() + begin, words.begin() + end, uint64_t{0});
      });
    });
    FOCUS_CHECK(total == kWords, "a read went wrong");
    best = std::max(best, static_cast<double>(kWords * sizeof(uint64_t)) / seconds);
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

void line(const std::string& name, const std::string& value) {
  std::cout << name << '\t' << value << std::endl;
}
std::string rounded(double value, int digits = 3) {
  std::ostringstream out;
  out.precision(digits);
  out << std::fixed << value;
  return out.str();
}

void run(const BenchCommand& c) {
  cli::apply_common_options(c.common, 0);
  if (c.prefill < 1 || c.repeats < 1) fail<ConfigError>("--prefill and --repeats must be at least 1");
  const std::string device = model::resolve_devices(c.common.device);
  const auto begin = Clock::now();
  const weights::LoadedModel loaded =
      weights::load_model(c.model_config, c.checkpoint, model::parse_dtype(c.common.dtype), device, c.fp8);
  line("open_s", rounded(seconds_since(begin)));
  model::Backbone& model = *loaded.model;
  const Work work = work_of(model);
  line("model", concat(model.shape().name, ", ", format_count(model.num_parameters()), " parameters, ",
                       loaded.precision, ", ", device, ", ", at::get_num_threads(), " threads"));
  line("weights", format_bytes(static_cast<int64_t>(work.bytes_per_token)));
  line("plan", infer::plan_memory(model, nullptr, c.prefill + c.decode, c.chunk == 0 ? c.prefill : c.chunk,
                                  infer::available_memory(model.device()))
                   .describe());
  const at::NoGradGuard guard;
  at::manual_seed(1);
  const auto options = at::TensorOptions().device(model.device());
  const auto& bases = model.vocabulary().bases;
  const Tensor letters = at::tensor(std::vector<int64_t>(bases.begin(), bases.end()));
  const Tensor prompt = letters.index({at::randint(0, 4, {1, c.prefill}, at::kLong)}).to(options.device());
  std::unique_ptr<infer::Stream> stream;
  Tensor hidden;
  std::vector<double> prefills;
  for (int64_t i = 0; i < c.repeats; ++i) {
    stream = infer::plain_stream(model)(c.prefill + c.decode);
    const int64_t chunk = c.chunk == 0 ? c.prefill : c.chunk;
    prefills.push_back(seconds_of([&] {
      for (int64_t t = 0; t < c.prefill; t += chunk)
        hidden = stream->forward(prompt.narrow(1, t, std::min(chunk, c.prefill - t)));
      hidden = hidden.narrow(1, hidden.size(1) - 1, 1);
      hidden.sum().item<double>();
    }));
    line(concat("prefill_s.", i + 1), rounded(prefills.back()));
  }
  const double gemm =
      gemm_rate(std::min<int64_t>(c.prefill, 1024), model.shape().width, options.dtype(model.dtype()));
  const double prefill = *std::min_element(prefills.begin(), prefills.end());
  const double rate = 2.0 * work.multiplications_per_token * static_cast<double>(c.prefill) / prefill;
  line("prefill_bases_per_s", rounded(static_cast<double>(c.prefill) / prefill, 1));
  line("prefill_gflop_per_s",
       concat(rounded(rate / 1e9, 1), " of ", rounded(gemm / 1e9, 1),
              " that a matrix product alone reaches: ", rounded(100 * rate / gemm, 1), " %"));
  if (c.decode > 0) {
    std::vector<double> steps;
    for (int64_t i = 0; i < c.decode; ++i) {
      Tensor next = model.unembed(hidden).argmax(-1);
      steps.push_back(seconds_of([&] {
        hidden = stream->forward(next);
        model.unembed(hidden).sum().item<double>();
      }));
    }
    std::sort(steps.begin(), steps.end());
    const double median = steps[steps.size() / 2], bandwidth = model.device().is_cpu() ? read_rate() : 0;
    line("decode_s_per_base",
         concat(rounded(median, 4), " (median of ", steps.size(), ", best ", rounded(steps.front(), 4), ")"));
    const double bytes = work.bytes_per_token / median;
    line("decode_gb_per_s",
         bandwidth > 0
             ? concat(rounded(bytes / 1e9, 2), " of ", rounded(bandwidth / 1e9, 2),
                      " that reading memory alone reaches: ", rounded(100 * bytes / bandwidth, 1), " %")
             : rounded(bytes / 1e9, 2));
  }
  const ProcessMemory memory = read_process_memory();
  line("peak_resident", concat(format_bytes(memory.peak), " (now ", format_bytes(memory.own), " own, ",
                               format_bytes(memory.files), " pages of files)"));
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
  sub->add_option("--checkpoint", c.checkpoint, "the model's weights")->required();
  sub->option_defaults()->group("Measurement");
  cli::add_count(*sub, "--prefill", c.prefill, "bases of the prompt");
  cli::add_count(*sub, "--chunk", c.chunk, "bases per forward call of the prompt; 0 = all at once");
  cli::add_count(*sub, "--decode", c.decode, "single bases after it; 0 = none");
  cli::add_count(*sub, "--repeats", c.repeats,
                 "prompts to read, each from the start; the first also reads the weights from disk or cache");
  sub->option_defaults()->group("Advanced");
  cli::add_choice(*sub, "--fp8", c.fp8, {{"emulate", weights::Fp8::emulate}, {"off", weights::Fp8::off}},
                  "FP8 input projections");
  c.common.device = "auto";
  c.common.dtype = "bf16";
  cli::add_machine_options(*sub, c.common);
  sub->callback([command] { run(*command); });
}

}  // namespace focus::tools
