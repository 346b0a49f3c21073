#include "focus/train/run/run_plan.h"

#include <algorithm>
#include <map>
#include <set>
#include <sstream>

#include "focus/compress/plan/plan.h"
#include "focus/core/units.h"
#include "run/leak_check.h"
#include "run/run_data.h"

namespace focus::train {
namespace {

// Fitted to the growth of the resident set with the length, embedded model in fp32, 1,100 to 16,384 bases,
// with and without recomputation; an adapter's recomputed step to 131,072, where kKeptByWindows lies below
// the logits and is a bound, not a fit.
constexpr double kKeptByMixer = 1.5, kKeptByAttention = 2.75, kKeptByWindows = 0.6;
constexpr int64_t kLogitArrays = 10;

std::string padded(const std::string& text, std::size_t width) {
  return text + std::string(text.size() < width ? width - text.size() : 1, ' ');
}

/// The parameter's module: its name without the last part.
std::string module_of(const std::string& name) {
  const std::size_t dot = name.rfind('.');
  return dot == std::string::npos ? name : name.substr(0, dot);
}

bool is_adapter(const TrainConfig& config) { return config.task == TaskKind::adapter; }

void describe_stages(const TrainConfig& config, std::ostringstream& out) {
  int64_t steps = 0, bases = 0;
  out << "stages:\n";
  for (std::size_t i = 0; i < config.stages.size(); ++i) {
    const StageConfig& stage = config.stages[i];
    out << "  " << i + 1 << ": " << format_count(stage.steps) << " steps of " << config.accumulation << " x "
        << stage.batch << " x " << format_count(stage.length) << " bases";
    if (is_adapter(config)) {
      const compress::WindowPlan plan(config.memory.window, config.memory.focus.k);
      out << ", " << plan.window_of(stage.length - 1) + 1 << " windows, " << plan.kept_entries(stage.length)
          << " entries kept at the end";
    }
    out << "\n";
    steps += stage.steps;
    bases += stage.steps * step_bases(config, stage);
  }
  if (is_adapter(config)) {
    const compress::WindowPlan plan(config.memory.window, config.memory.focus.k);
    out << "windows: " << format_count(plan.window_bases()) << " bases, one entry for "
        << config.memory.focus.k << "\n";
  }
  out << "steps: " << steps << "\nbases: " << bases << "\n";
  if (steps == 0) return;
  out << "learning rate:";
  for (const int64_t step :
       std::set<int64_t>{0, std::min(config.schedule.warmup_steps, steps - 1), steps / 2, steps - 1})
    out << " " << lr_at(config.schedule, peak_lr(config, config.stages[stage_at(config, step)]), step, steps)
        << " at step " << step + 1 << (step < steps - 1 ? "," : "\n");
}

void describe_parameters(const Task& task, std::ostringstream& out) {
  std::map<std::string, int64_t> modules;
  int64_t total = 0;
  for (const Parameter& parameter : task.model().parameters) {
    modules[module_of(parameter.name)] += parameter.tensor.numel();
    total += parameter.tensor.numel();
  }
  out << "trainable parameters: " << total << "\n";
  for (const auto& [name, count] : modules) out << "  " << padded(name, 40) << format_count(count) << "\n";
}

/// Bytes on the device, by what they are for.
struct MemoryEstimate {
  int64_t weights = 0;      // of the backbone; frozen ones stay in their mapped file on a CPU
  int64_t trainable = 0;    // parameters, gradients, two moments and, below fp32, a master copy
  int64_t activations = 0;  // one micro-batch of the longest stage
  int64_t total() const { return weights + trainable + activations; }
};

/// Activations by this rule: a block through which a gradient flows keeps kKeptByMixer times, an attention
/// block kKeptByAttention times, its temporary memory of inference (Block::workspace_bytes) for every
/// position; a recomputed one only its input, and the largest of them works once. Blocks below the first
/// trained one keep nothing. What the process itself takes (libraries, data held in memory) comes on top.
MemoryEstimate estimate_memory(const TrainConfig& config, const Task& task) {
  MemoryEstimate estimate;
  const model::Backbone& backbone = *task.model().backbone;
  for (const auto& parameter : backbone.parameters())
    estimate.weights += static_cast<int64_t>(parameter.nbytes());
  for (const Parameter& parameter : task.model().parameters) {
    const auto own = static_cast<int64_t>(parameter.tensor.nbytes());
    const bool is_short = parameter.tensor.element_size() < 4;
    const int64_t moment = parameter.tensor.numel() *
                           std::max<int64_t>(4, static_cast<int64_t>(parameter.tensor.element_size()));
    estimate.trainable += own + 2 * moment + (is_short ? moment : 0);  // gradient, moments, master
    if (is_adapter(config)) estimate.trainable += own;  // a backbone's own parameters are among its weights
  }
  // Truncated back-propagation frees what a piece kept before the next; a teacher's predictions are whole.
  int64_t positions = 0, whole_positions = 0;
  for (const StageConfig& stage : config.stages) {
    const bool cut = is_adapter(config) && stage.kind == StageKind::end_to_end &&
                     config.execution == Execution::sequential && config.bptt_windows > 0;
    const int64_t piece = cut ? config.bptt_windows * config.memory.window.size : stage.length;
    positions = std::max(positions, stage.batch * std::min(piece, stage.length));
    whole_positions = std::max(whole_positions, stage.batch * stage.length);
  }
  const auto attention = backbone.attention_blocks();
  const int64_t first = is_adapter(config) && !attention.empty() ? attention.front() : 0;
  // As Backbone::run_block and MaskedHook::repeatable() decide.
  const bool side_states = config.memory.focus.unit == compress::UnitKind::paper &&
                           config.memory.focus.stream != compress::Stream::inline_tokens;
  const bool attention_again =
      !is_adapter(config) || (config.execution == Execution::parallel && !side_states);
  int64_t kept = 0, largest = 0;
  for (int64_t i = first; i < backbone.num_blocks(); ++i) {
    const bool attends = backbone.block(i).attention() != nullptr;
    const bool again = config.recompute && (!attends || attention_again);
    // Under an adapter, scores and fits are recomputed window by window even while their block is.
    const double share = !attends                      ? kKeptByMixer
                         : again && is_adapter(config) ? kKeptByWindows
                                                       : kKeptByAttention;
    const auto whole = static_cast<int64_t>(share * static_cast<double>(backbone.block(i).workspace_bytes()));
    kept += again ? backbone.shape().width * static_cast<int64_t>(backbone.embedding_weight().element_size())
                  : whole;
    if (again) largest = std::max(largest, whole);
  }
  const int64_t logits = kLogitArrays * backbone.shape().vocab_size * 4;
  // As measured: in an adapter's step the logits are gone before a block runs again, in pretraining the peak
  // has both.
  estimate.activations =
      positions * (kept + (is_adapter(config) ? std::max(largest, logits) : largest + logits));
  if (is_adapter(config) && config.objective.needs_teacher())
    estimate.activations += (whole_positions - positions) * backbone.shape().vocab_size * 4;
  return estimate;
}

}  // namespace

std::string describe_run(const TrainConfig& given, const Task& task, int64_t num_ranks) {
  require_splittable(given, num_ranks);
  const RunData data(given);
  const TrainConfig& config = data.config;
  require_held_out(data, digest_inputs(config));
  std::ostringstream out;
  if (num_ranks > 1)
    out << "ranks: " << num_ranks << ", each " << config.accumulation / num_ranks
        << " micro-batches of a step\n";
  if (config.memory.uses(compress::MemoryKind::tables) && is_adapter(config)) {
    const auto& tables = config.memory.tables;
    out << "tables: fitted to " << tables.fit_sequences << " sequences of " << format_count(tables.fit_length)
        << " bases first\n";
  }
  describe_stages(config, out);
  describe_parameters(task, out);
  const MemoryEstimate memory = estimate_memory(config, task);
  out << "memory, estimated: " << format_bytes(memory.total()) << " (backbone "
      << format_bytes(memory.weights) << ", trainable with optimizer " << format_bytes(memory.trainable)
      << ", activations of a micro-batch " << format_bytes(memory.activations) << ")\n";
  if (config.stages.empty()) return out.str();
  out << "training data: " << format_count(data.training.num_bases())
      << " bases; first sample: " << describe_samples(StageSamples(data, 0), 0, 1) << "\n";
  return out.str();
}

}  // namespace focus::train
