#include <filesystem>

#include "focus/core/error.h"
#include "focus/train/run/config.h"

namespace focus::train {

void StageConfig::visit(config::Fields& f) {
  f.choice("kind", kind, {{"end_to_end", StageKind::end_to_end}, {"match", StageKind::match}},
           "adapter: minimise the objective, or match each layer's attention, which needs no backward pass through the backbone");
  f.integer("length", length, {2, int64_t{1} << 32}, "bases per sequence");
  f.integer("steps", steps, {1, int64_t{1} << 40}, "optimizer steps of this stage");
  f.integer("batch", batch, {1, 1 << 20}, "sequences per micro-batch");
  f.number("lr", lr, {0, 1}, "peak learning rate of this stage; the schedule runs over all stages. 0 = optimizer.lr");
  f.number("natural_weight", natural_weight, {0, 1}, "loss weight outside planted copies");
  f.group("copies", copies, "planted copies");
  f.group("match", match, "kind 'match': what is compared");
}

void ValidationConfig::visit(config::Fields& f) {
  f.integer("every", every, {0, int64_t{1} << 40}, "steps between validations; 0 = none");
  f.integer("sequences", sequences, {1, 1 << 20}, "held-out sequences, the same every time");
  f.integer("length", length, {2, int64_t{1} << 32}, "bases per held-out sequence");
  f.group("data", data, "held-out data");
  f.boolean("allow_overlap", allow_overlap, "accept held-out sequences that the training data contain");
}

void TrainConfig::visit(config::Fields& f) {
  f.choice("task", task, {{"adapter", TaskKind::adapter}, {"pretrain", TaskKind::pretrain}},
           "train a FOCUS adapter on a frozen backbone, or a backbone from scratch");
  f.text("model_config", model_config,
         "the backbone's Evo-2 YAML file or config.json; empty = the config.json in the folder model_checkpoint");
  f.text("model_checkpoint", model_checkpoint,
         "checkpoint of the backbone, a file or a Hugging Face folder; pretrain: where to start from, empty = from scratch");
  f.group("init", init, "pretrain: initial weights");
  memory.visit(f);
  f.group("adapt", adapt, "adapter: what of the backbone is trained too; the teacher stays the original");
  f.group("data", data, "training data");
  f.list("stages", stages, "parts of the run, in order");
  f.integer("accumulation", accumulation, {1, 1 << 20}, "micro-batches per optimizer step");
  f.group("objective", objective, "adapter: what is minimised");
  f.group("random", random, "adapter: k, layers and windows drawn anew for each step; validation keeps the nominal ones");
  f.choice("execution", execution, {{"parallel", Execution::parallel}, {"sequential", Execution::sequential}},
           "adapter: one pass with masks, or window after window, really dropping");
  f.integer("bptt_windows", bptt_windows, {0, 1 << 20}, "sequential: windows the gradient goes back; 0 = all");
  f.group("optimizer", optimizer, "AdamW");
  f.group("schedule", schedule, "learning rate over the whole run");
  f.texts("freeze", freeze, "pretrain: parameters whose names end so are not trained");
  f.group("validation", validation, "held-out figures during training");
  f.integer("checkpoint_every", checkpoint_every, {1, int64_t{1} << 40}, "steps between checkpoints");
  f.integer("keep_last", keep_last, {1, 1 << 20}, "checkpoints kept besides the best");
  f.integer("seed", seed, {0, int64_t{1} << 62}, "seed of data, initial weights and adapter");
  f.text("dtype", dtype, "fp32 or bf16: the backbone's weights and arithmetic");
  f.choice("fp8", fp8, {{"emulate", weights::Fp8::emulate}, {"off", weights::Fp8::off}},
           "backbones with FP8 input projections: round as FP8 hardware does, or compute them like other layers and get other numbers");
  f.boolean("recompute", recompute,
            "keep only each block's input and run blocks, and in them attention window by window, again for the gradient: less memory, "
            "more time");
  f.choice("matmul", matmul, {{"exact", MatmulPrecision::exact}, {"bf16", MatmulPrecision::bf16}},
           "fp32 matrix products: exact, or with inputs rounded to bf16 where the hardware is faster that way");
  f.text("device", device, "auto, cpu, cuda:N, or several for one backbone: cuda:0,cuda:1 or cuda:0=0-15,cuda:1=16-31");
  f.integer("threads", threads, {0, 4096}, "CPU threads; 0 = all cores, shared out among the ranks of a machine");
  f.choice("result", result, {{"auto", ResultKind::automatic}, {"last", ResultKind::last}, {"best", ResultKind::best}},
           "parameters of the run's result: of the last step, or of the best validation; auto = best where there is validation");
  f.choice("non_finite", non_finite, {{"stop", NonFinite::stop}, {"skip", NonFinite::skip}},
           "a loss or gradient that is not finite: end the run, or leave the parameters as they are and go on");
  f.integer("max_skips", max_skips, {1, int64_t{1} << 40}, "non_finite skip: the run ends when it has to skip more steps than this");
  f.integer("rank_timeout_seconds", rank_timeout_seconds, {1, 1 << 24}, "several ranks: how long one waits for the others");
}

namespace {

/// Whether a group was left at its defaults.
template <class T>
bool untouched(T group) {
  T fresh;
  return config::to_json(group) == config::to_json(fresh);
}

void check_pretrain(const TrainConfig& c) {
  if (std::filesystem::is_directory(c.model_config) || c.model_config.ends_with(".json"))
    fail<ConfigError>("model_config: task 'pretrain' trains StripedHyena 2 models, whose shape is a YAML file, got '", c.model_config, "'");
  if (!untouched(c.memory)) fail<ConfigError>("settings under window and focus have no effect with task 'pretrain'; remove them");
  if (!untouched(c.objective))
    fail<ConfigError>("settings under objective have no effect with task 'pretrain': it minimises the cross-entropy");
  if (!untouched(c.adapt)) fail<ConfigError>("settings under adapt have no effect with task 'pretrain', which trains the whole backbone");
  if (!untouched(c.random)) fail<ConfigError>("settings under random have no effect with task 'pretrain'; remove them");
  for (const StageConfig& stage : c.stages) {
    if (stage.kind != StageKind::end_to_end || !untouched(stage.match))
      fail<ConfigError>("stages: kind and match have no effect with task 'pretrain'; remove them");
  }
  if (c.bptt_windows != 0) fail<ConfigError>("bptt_windows has no effect with task 'pretrain'; remove it");
  if (c.execution == Execution::sequential) fail<ConfigError>("execution 'sequential' has no effect with task 'pretrain'; remove it");
  if (c.dtype != "fp32") fail<ConfigError>("dtype: pretraining runs in fp32, got '", c.dtype, "'");
}

/// A stage-less run fits base tables and nothing else.
void check_without_stages(const TrainConfig& c) {
  const auto unread = [](bool touched, const char* what) {
    if (touched) fail<ConfigError>(what, " has no effect without stages: base tables are fitted, no step is trained");
  };
  const TrainConfig fresh;
  unread(!untouched(c.optimizer), "optimizer");
  unread(!untouched(c.schedule), "schedule");
  unread(!untouched(c.objective), "objective");
  unread(!untouched(c.random), "random");
  unread(c.accumulation != fresh.accumulation, "accumulation");
  unread(c.execution != fresh.execution, "execution");
  unread(c.recompute, "recompute");
  unread(c.adapt.active(), "adapt");
  unread(c.non_finite != fresh.non_finite, "non_finite");
}

void check_stages(const TrainConfig& c) {
  const int64_t window = c.random.largest_window(c.memory);
  bool any_end_to_end = false;
  for (std::size_t i = 0; i < c.stages.size(); ++i) {
    const StageConfig& stage = c.stages[i];
    if (stage.length <= window + 1) {
      fail<ConfigError>("stages.", i, ".length = ", stage.length, " crosses no window boundary (window of ", window,
                        " bases), so no entry would ever be read; use a longer sequence or a smaller window.size");
    }
    any_end_to_end = any_end_to_end || stage.kind == StageKind::end_to_end;
    if (stage.kind == StageKind::end_to_end && !untouched(stage.match))
      fail<ConfigError>("stages.", i, ".match has no effect with kind 'end_to_end'");
    if (stage.kind == StageKind::match) {
      refuse_match(c.memory);
      if (c.memory.focus.unit == compress::UnitKind::fitted && !c.memory.focus.fitted.corrections)
        fail<ConfigError>("stages.", i, ": kind 'match' trains Focus units, which have no parameters with focus.fitted.corrections off");
      if (stage.match.mass == 0 && stage.match.output == 0)
        fail<ConfigError>("stages.", i, ".match: mass and output are both 0, nothing would be minimised");
    }
  }
  if (any_end_to_end) return;
  const auto unread = [](const char* what) {
    fail<ConfigError>(what, " has no effect: all stages are of kind 'match', which trains Focus units by their own loss");
  };
  if (!untouched(c.objective)) unread("objective");
  if (c.execution != Execution::parallel) unread("execution 'sequential'");
  if (c.recompute) unread("recompute");
  if (c.adapt.active()) unread("adapt");
}

void check_adapter(const TrainConfig& c) {
  if (c.model_checkpoint.empty()) fail<ConfigError>("model_checkpoint: task 'adapter' needs the frozen backbone's checkpoint");
  if (!untouched(c.init))
    fail<ConfigError>("settings under init have no effect with task 'adapter': the backbone comes from model_checkpoint");
  if (!c.freeze.empty()) fail<ConfigError>("freeze has no effect with task 'adapter': the whole backbone is frozen");
  if (c.objective.ce == 0 && !c.objective.needs_teacher())
    fail<ConfigError>("objective: ce, kl and reverse_kl are all 0, nothing would be minimised");
  if (c.objective.need.weight == 0 && !untouched(c.objective.need))
    fail<ConfigError>("objective.need: source and limit have no effect with weight 0");
  if (c.bptt_windows > 0 && c.execution != Execution::sequential)
    fail<ConfigError>("bptt_windows has no effect unless execution is 'sequential'");
  if (c.bptt_windows == 1)
    fail<ConfigError>(
        "bptt_windows 1 would cut every entry from the windows that read it, so nothing would be trained; use 0 (all) or at least 2");
  if (c.objective.focus_positions && c.memory.focus.stream != compress::Stream::inline_tokens) {
    fail<ConfigError>("objective.focus_positions needs focus.stream 'inline': only there Focus tokens have outputs of their own");
  }
  if (c.objective.focus_positions && c.objective.ce == 0) fail<ConfigError>("objective.focus_positions has no effect with objective.ce 0");
  c.memory.validate();
  c.adapt.validate();
  if (c.adapt.active() && c.objective.skip_first_window) {
    fail<ConfigError>(
        "objective.skip_first_window must be false with adapt: a changed backbone changes the first window too, and only its loss holds it "
        "near the original");
  }
  c.random.validate(c.memory);
  c.stages.empty() ? check_without_stages(c) : check_stages(c);
}

}  // namespace

void TrainConfig::validate() const {
  const bool fits_tables = task == TaskKind::adapter && memory.focus.unit == compress::UnitKind::tables;
  if (stages.empty() && !fits_tables)
    fail<ConfigError>("stages: at least one is needed; only base tables (focus.unit 'tables') are fitted without any");
  if (model_config.empty() && (task == TaskKind::pretrain || !std::filesystem::is_directory(model_checkpoint)))
    fail<ConfigError>("model_config: the backbone's YAML file, or its config.json, is missing");
  if (data.sources.empty()) fail<ConfigError>("data.sources: at least one fasta, jsonl or hdf5 source is needed");
  data.validate();
  if (validation.every > 0 && validation.data.sources.empty())
    fail<ConfigError>("validation.data.sources: needed when validation.every > 0");
  if (validation.every == 0) {
    if (result == ResultKind::best) fail<ConfigError>("result 'best' needs validation: set validation.every and validation.data");
    if (validation.allow_overlap) fail<ConfigError>("validation.allow_overlap has no effect with validation.every 0; remove it");
  }
  if (non_finite == NonFinite::stop && max_skips != TrainConfig{}.max_skips)
    fail<ConfigError>("max_skips has no effect unless non_finite is 'skip'");
  if (!untouched(data.copies) || data.natural_weight != data::SamplerConfig{}.natural_weight) {
    fail<ConfigError>("data.copies and data.natural_weight have no effect: set them in each of stages");
  }
  task == TaskKind::pretrain ? check_pretrain(*this) : check_adapter(*this);
}

}  // namespace focus::train
