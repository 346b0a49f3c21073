#include <algorithm>
#include <filesystem>

#include "focus/core/error.h"
#include "focus/train/run/config.h"

namespace focus::train {

void ForgettingConfig::visit(config::Fields& f) {
  f.number("weight", weight, {0, 1e6},
           "weight of what a copy's bases fall short of margin; 0 = off. Costs one more pass");
  const auto weighted = f.when(weight > 0, "weight", "> 0");
  f.only(weighted).number("margin", margin, {0, 100},
                          "nats that copies shall lose where one attention block forgets");
  f.only(weighted).integer("window", window, {1, int64_t{1} << 32},
                           "bases of a window, beyond whose end that block forgets");
}

void StageConfig::visit(config::Fields& f, const config::Condition& adapter,
                        const config::Condition& pretrain) {
  f.only(adapter).choice("kind", kind, {{"end_to_end", StageKind::end_to_end}, {"match", StageKind::match}},
                         "minimise the objective, or match each layer's attention, without a backward pass "
                         "through the backbone");
  f.integer("length", length, {2, int64_t{1} << 32}, "bases per sequence");
  f.only(f.when(epochs == 0, "epochs", "is 0"))
      .integer("steps", steps, {1, int64_t{1} << 40}, "optimizer steps of this stage");
  f.integer(
      "epochs", epochs, {0, 1 << 20},
      "in place of steps: passes over the training data, each window once in each, in a random order; the "
      "last step is filled up from one more pass. 0 = draw windows at random");
  f.integer("batch", batch, {1, 1 << 20}, "sequences per micro-batch");
  f.number("lr", lr, {0, 1},
           "peak learning rate of this stage; the schedule runs over all stages. 0 = optimizer.lr");
  f.number("natural_weight", natural_weight, {0, 1}, "loss weight outside planted copies");
  f.group("copies", copies, "planted copies");
  f.only(adapter && f.when(kind == StageKind::match, "kind", "is 'match'"))
      .group("match", match, "what is compared");
  f.only(pretrain).group("forgetting", forgetting,
                         "make copies depend on the far memory of every attention block");
}

void ValidationConfig::visit(config::Fields& f) {
  f.integer("every", every, {0, int64_t{1} << 40}, "steps between validations; 0 = none");
  f.integer("sequences", sequences, {1, 1 << 20}, "held-out sequences, the same every time");
  f.integer("length", length, {2, int64_t{1} << 32}, "bases per held-out sequence");
  f.group("data", data, "held-out data");
  f.only(f.when(every > 0, "every", "> 0"))
      .boolean("allow_overlap", allow_overlap, "accept held-out sequences that the training data contain");
}

void TrainConfig::visit(config::Fields& f) {
  const bool is_adapter = task == TaskKind::adapter;
  const auto trains_adapter = f.when(is_adapter, "task", "is 'adapter'");
  const auto pretrain = f.when(!is_adapter, "task", "is 'pretrain'");
  // A run that fits base tables may go without stages; for any other that is an error of its own.
  const bool tables = memory.kind == compress::MemoryKind::tables, fits_only = tables && stages.empty();
  const bool all_match = !stages.empty() && std::all_of(stages.begin(), stages.end(), [](const auto& stage) {
    return stage.kind == StageKind::match;
  });
  const auto steps = f.when(!fits_only, "stages", "is not empty");
  const auto end_to_end = f.when(!fits_only && !all_match, "stages", "has one of kind 'end_to_end'");
  const auto uses_k = f.when(memory.uses(compress::MemoryKind::focus), "memory.kind", "is 'focus'");
  const auto in_turn = f.when(execution == Execution::sequential, "execution", "is 'sequential'");
  const auto skips = f.when(non_finite == NonFinite::skip, "non_finite", "is 'skip'");
  f.choice("task", task, {{"adapter", TaskKind::adapter}, {"pretrain", TaskKind::pretrain}},
           "train a FOCUS adapter on a frozen backbone, or a backbone from scratch");
  f.file("model_config", model_config,
         "the backbone's Evo-2 YAML file or config.json; empty = the config.json in the folder "
         "model_checkpoint");
  f.file("model_checkpoint", model_checkpoint,
         "checkpoint of the backbone, a file or a Hugging Face folder; pretrain: where to start from, empty "
         "= from scratch");
  f.only(pretrain).group("init", init, "initial weights");
  memory.visit(f, trains_adapter);
  f.only(trains_adapter)
      .text("adapter", adapter, "trained adapter to start from: its file, or its run's folder; empty = none");
  f.only(trains_adapter && end_to_end)
      .group("adapt", adapt, "what of the backbone is trained too; the teacher stays the original");
  f.group("data", data, "training data");
  f.list(
      "stages", stages,
      [&](StageConfig& stage, config::Fields& g) { stage.visit(g, trains_adapter, pretrain); },
      "parts of the run, in order");
  f.only(steps).integer("accumulation", accumulation, {1, 1 << 20}, "micro-batches per optimizer step");
  f.only(trains_adapter && end_to_end).group("objective", objective, "what is minimised");
  f.only(trains_adapter && steps)
      .group("random", config::Visit([&](config::Fields& g) { random.visit(g, uses_k); }),
             "k, layers and windows drawn anew for each step; validation keeps the nominal ones");
  f.only(trains_adapter && end_to_end)
      .choice("execution", execution,
              {{"parallel", Execution::parallel}, {"sequential", Execution::sequential}},
              "one pass with masks, or window after window, really dropping");
  f.only(trains_adapter && end_to_end && in_turn)
      .integer("bptt_windows", bptt_windows, {0, 1 << 20}, "windows the gradient goes back; 0 = all");
  f.only(steps).group("optimizer", optimizer, "AdamW");
  f.only(steps).group("schedule", schedule, "learning rate over the whole run");
  f.only(pretrain).texts("freeze", freeze, "parameters whose names end so are not trained");
  f.group("validation", validation, "held-out figures during training");
  f.integer("checkpoint_every", checkpoint_every, {1, int64_t{1} << 40}, "steps between checkpoints");
  f.integer("keep_last", keep_last, {1, 1 << 20}, "checkpoints kept besides the best");
  f.integer("seed", seed, {0, int64_t{1} << 62}, "seed of data, initial weights and adapter");
  f.text("dtype", dtype, "fp32 or bf16: the backbone's weights and arithmetic");
  f.choice("fp8", fp8, {{"emulate", weights::Fp8::emulate}, {"off", weights::Fp8::off}},
           "backbones with FP8 input projections: round as FP8 hardware does, or compute them like other "
           "layers and get other numbers");
  f.only(end_to_end)
      .boolean("recompute", recompute,
               "keep only each block's input and run blocks, and in them attention window by window, again "
               "for the gradient: "
               "less memory, more time");
  f.choice(
      "matmul", matmul, {{"exact", MatmulPrecision::exact}, {"bf16", MatmulPrecision::bf16}},
      "fp32 matrix products: exact, or with inputs rounded to bf16 where the hardware is faster that way");
  f.text("device", device,
         "auto, cpu, cuda:N, or several for one backbone: cuda:0,cuda:1 or cuda:0=0-15,cuda:1=16-31");
  f.integer("threads", threads, {0, 4096},
            "CPU threads; 0 = as many as may be used, shared out among the ranks of a machine");
  f.choice("result", result,
           {{"auto", ResultKind::automatic}, {"last", ResultKind::last}, {"best", ResultKind::best}},
           "parameters of the run's result: of the last step, or of the best validation; auto = best where "
           "there is validation");
  f.only(steps).choice(
      "non_finite", non_finite, {{"stop", NonFinite::stop}, {"skip", NonFinite::skip}},
      "a loss or gradient that is not finite: end the run, or leave the parameters as they are and go on");
  f.only(skips).integer("max_skips", max_skips, {1, int64_t{1} << 40},
                        "the run ends when it has to skip more steps than this");
  f.integer("rank_timeout_seconds", rank_timeout_seconds, {1, 1 << 24},
            "several ranks: how long one waits for the others");
}

namespace {

void check_pretrain(const TrainConfig& c) {
  if (std::filesystem::is_directory(c.model_config) || c.model_config.ends_with(".json"))
    fail<ConfigError>(
        "model_config: task 'pretrain' trains StripedHyena 2 models, whose shape is a YAML file, got '",
        c.model_config, "'");
  if (c.dtype != "fp32") fail<ConfigError>("dtype: pretraining runs in fp32, got '", c.dtype, "'");
}

void check_stages(const TrainConfig& c) {
  const int64_t window = c.random.largest_window(c.memory);
  for (std::size_t i = 0; i < c.stages.size(); ++i) {
    const StageConfig& stage = c.stages[i];
    if (stage.length <= window + 1) {
      fail<ConfigError>(
          "stages.", i, ".length = ", stage.length, " crosses no window boundary (window of ", window,
          " bases), so no entry would ever be read; use a longer sequence or a smaller window.size");
    }
    if (stage.kind != StageKind::match) continue;
    refuse_match(c.memory);
    if (c.memory.focus.unit == compress::UnitKind::fitted && !c.memory.focus.fitted.corrections)
      fail<ConfigError>("stages.", i, ": kind 'match' trains Focus units, ",
                        "which have no parameters with focus.fitted.corrections off");
    if (stage.match.mass == 0 && stage.match.output == 0)
      fail<ConfigError>("stages.", i, ".match: mass and output are both 0, nothing would be minimised");
  }
}

void check_adapter(const TrainConfig& c) {
  if (c.model_checkpoint.empty())
    fail<ConfigError>("model_checkpoint: task 'adapter' needs the frozen backbone's checkpoint");
  if (c.objective.ce == 0 && !c.objective.needs_teacher())
    fail<ConfigError>("objective: ce, kl and reverse_kl are all 0, nothing would be minimised");
  if (c.bptt_windows == 1)
    fail<ConfigError>("bptt_windows 1 would cut every entry from the windows that read it, ",
                      "so nothing would be trained; use 0 (all) or at least 2");
  if (c.objective.focus_positions && c.memory.focus.stream != compress::Stream::inline_tokens)
    fail<ConfigError>("objective.focus_positions needs focus.stream 'inline': ",
                      "only there Focus tokens have outputs of their own");
  c.memory.validate();
  if (c.adapt.active() && c.objective.skip_first_window)
    fail<ConfigError>(
        "objective.skip_first_window must be false with adapt: a changed backbone changes the first ",
        "window too, and only its loss holds it near the original");
  c.random.validate(c.memory);
  check_stages(c);
}

}  // namespace

void TrainConfig::validate() const {
  config::refuse_idle(*this);
  const bool fits_tables = task == TaskKind::adapter && memory.uses(compress::MemoryKind::tables);
  if (stages.empty() && !fits_tables)
    fail<ConfigError>(
        "stages: at least one is needed; only base tables (memory.kind 'tables') are fitted without any");
  if (model_config.empty() &&
      (task == TaskKind::pretrain || !std::filesystem::is_directory(model_checkpoint)))
    fail<ConfigError>("model_config: the backbone's YAML file, or its config.json, is missing");
  if (data.sources.empty())
    fail<ConfigError>("data.sources: at least one fasta, jsonl or hdf5 source is needed");
  data.validate();
  if (validation.every > 0 && validation.data.sources.empty())
    fail<ConfigError>("validation.data.sources: needed when validation.every > 0");
  if (validation.every == 0 && result == ResultKind::best)
    fail<ConfigError>("result 'best' needs validation: set validation.every and validation.data");
  if (data.copies != data::CopyConfig{} || data.natural_weight != data::SamplerConfig{}.natural_weight)
    fail<ConfigError>("data.copies and data.natural_weight have no effect: set them in each of stages");
  const auto by_passes = [](const StageConfig& stage) { return stage.epochs > 0; };
  const auto weighs = [](const data::SourceConfig& source) { return source.weight != 1.0; };
  if (!stages.empty() && std::ranges::all_of(stages, by_passes) && std::ranges::any_of(data.sources, weighs))
    fail<ConfigError>(
        "data.sources: weight has no effect where every stage has epochs, which take each window once; leave "
        "it out");
  task == TaskKind::pretrain ? check_pretrain(*this) : check_adapter(*this);
}

}  // namespace focus::train
