#include "focus/train/trainer.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>

#include "focus/core/error.h"
#include "focus/core/interrupt.h"
#include "focus/core/log.h"
#include "focus/core/progress.h"
#include "focus/core/units.h"
#include "focus/model/placement.h"
#include "focus/train/run_folder.h"

namespace focus::train {
namespace {

using at::Tensor;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// The files a model path stands for: itself, or what a Hugging Face folder holds of a model.
std::vector<std::string> model_files(const std::string& path) {
  if (path.empty()) return {};
  if (!std::filesystem::is_directory(path)) return {path};
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(path)) {
    const auto kind = entry.path().extension();
    if (entry.is_regular_file() && (kind == ".json" || kind == ".txt" || kind == ".safetensors")) files.push_back(entry.path().string());
  }
  std::sort(files.begin(), files.end());
  return files;
}

class Loop {
 public:
  Loop(const TrainConfig& config, Task& task, const TrainerOptions& options)
      : config_(config),
        task_(task),
        options_(options),
        device_(pick_device(config.device)),
        optimizer_(task.parameters(), config.optimizer) {
    for (const StageConfig& stage : config.stages) {
      total_steps_ += stage.steps;
      total_bases_ += stage.steps * stage.batch * stage.length * config.accumulation;
    }
    RunFolderOptions folder;
    folder.output = options.output;
    folder.resume = options.resume;
    folder.force = options.force;
    TrainConfig printable = config;
    folder.config_json = config::to_json(printable);
    folder.may_change = {"checkpoint_every", "keep_last", "device", "threads", "validation.every"};
    folder.command_line = options.command_line;
    folder.inputs = inputs();
    draw_once();
    folder_ = prepare_run_folder(folder);
    store_ = std::make_unique<CheckpointStore>(folder_.checkpoints, config.keep_last);
    if (folder_.resume_step) restore(*folder_.resume_step);
    metrics_ = std::make_unique<MetricsLog>(folder_.metrics, folder_.resume_step);
  }

  TrainResult run() {
    const auto start = std::chrono::steady_clock::now();
    Progress progress({.label = "train",
                       .unit = "steps",
                       .total = total_steps_,
                       .start = step_,
                       .is_terminal = {},
                       .write_terminal = {},
                       .write_line = {},
                       .now_seconds = {}});
    TrainResult result;
    while (step_ < total_steps_) {
      result.last_loss = one_step(progress);
      if (config_.validation.every > 0 && (step_ % config_.validation.every == 0 || step_ == total_steps_)) validate();
      const bool stop = interrupt_requested() && step_ < total_steps_;
      if (step_ % config_.checkpoint_every == 0 || step_ == total_steps_ || stop) save();
      if (stop) {
        progress.finish();
        fail<Interrupted>("interrupted after step ", step_, " of ", total_steps_, "; checkpoint written, continue with --resume");
      }
    }
    progress.finish();
    task_.write_result(folder_.root);
    result.steps = step_;
    result.seconds = seconds_since(start);
    return result;
  }

 private:
  std::vector<InputDigest> inputs() const {
    std::vector<InputDigest> out;
    std::vector<std::string> paths;
    for (const std::string& path : {config_.model_config, config_.model_checkpoint}) {
      const auto files = model_files(path);
      paths.insert(paths.end(), files.begin(), files.end());
    }
    for (const auto* sampler : {&config_.data, &config_.validation.data}) {
      for (const auto& source : sampler->sources) {
        if (!source.fasta.empty()) paths.push_back(source.fasta);
        if (!source.jsonl.empty()) paths.push_back(source.jsonl);
        if (!source.hdf5.empty()) paths.push_back(source.hdf5);
      }
    }
    for (const auto& path : paths) {
      bool known = false;
      for (const auto& digest : out) known = known || digest.path == path;
      if (!known) out.push_back(digest_input(path));
    }
    return out;
  }

  /// Data too short for the longest stage is reported before there is a run folder, not when that stage begins.
  void draw_once() const {
    int64_t longest = 0;
    for (const StageConfig& stage : config_.stages) longest = std::max(longest, stage.length);
    data::SequenceSampler(config_.data, static_cast<uint64_t>(config_.seed)).sample(0, longest);
    if (config_.validation.every > 0)
      data::SequenceSampler(config_.validation.data, static_cast<uint64_t>(config_.seed)).sample(0, config_.validation.length);
  }

  const StageConfig& stage_of(int64_t step, std::size_t& index) const {
    for (index = 0; index < config_.stages.size(); ++index) {
      if (step < config_.stages[index].steps) return config_.stages[index];
      step -= config_.stages[index].steps;
    }
    FOCUS_CHECK(false, "step outside all stages");
    return config_.stages.back();
  }

  std::vector<Batch> fetch(const StageConfig& stage) {
    std::vector<Batch> batches;
    for (int64_t micro = 0; micro < config_.accumulation; ++micro) {
      std::vector<data::Sample> samples;
      for (int64_t b = 0; b < stage.batch; ++b) samples.push_back(sampler_->sample(static_cast<uint64_t>(samples_++), stage.length));
      batches.push_back(make_batch(samples, task_.vocabulary(), device_));
    }
    return batches;
  }

  // The step whose place in the schedule this one takes: its own, or, counting bases, the one at the same share of the run.
  int64_t schedule_step() const {
    if (config_.schedule.over == DecayOver::steps || step_ < config_.schedule.warmup_steps) return step_;
    const double share = static_cast<double>(bases_) / static_cast<double>(total_bases_);
    return std::max(config_.schedule.warmup_steps, static_cast<int64_t>(share * static_cast<double>(total_steps_)));
  }

  double one_step(Progress& progress) {
    const auto start = std::chrono::steady_clock::now();
    std::size_t index = 0;
    const StageConfig& stage = stage_of(step_, index);
    if (!sampler_ || index != stage_index_) {
      data::SamplerConfig sampling = config_.data;
      sampling.copies = stage.copies;
      sampling.natural_weight = stage.natural_weight;
      sampler_ = std::make_unique<data::SequenceSampler>(sampling, static_cast<uint64_t>(config_.seed));
      stage_index_ = index;
      log::info(concat("stage ", index + 1, "/", config_.stages.size(), ": ", stage.steps, " steps of ", config_.accumulation * stage.batch,
                       " x ", stage.length, " bases"));
    }
    const int64_t first_sample = samples_;
    const std::vector<Batch> batches = fetch(stage);
    // The divisor is the whole step's weight, so that accumulation equals one big batch exactly.
    double weight = 0;
    for (const Batch& batch : batches) weight += task_.weight_of(batch);
    if (weight <= 0)
      fail<CheckFailed>("step ", step_ + 1, ": no position of samples ", first_sample, "..", samples_ - 1, " carries any loss weight");
    optimizer_.zero_grad();
    double loss = 0;
    std::map<std::string, double> parts;
    for (const Batch& batch : batches) {
      LossSum sum = task_.loss(batch);
      (sum.sum / weight).backward();
      loss += sum.sum.item<double>() / weight;
      for (const auto& [name, value] : sum.parts) parts[name] += value / weight;
    }
    const auto gradients = optimizer_.gradients();
    const double norm = clip_grad_norm(gradients, config_.optimizer.clip_norm);
    if (!std::isfinite(loss) || !std::isfinite(norm)) {
      fail<CheckFailed>(
          "step ", step_ + 1, ": loss ", loss, ", gradient norm ", norm, " (samples ", first_sample, "..", samples_ - 1,
          "); the parameters were not changed. Lower optimizer.lr or raise schedule.warmup_steps, then --resume from the last checkpoint");
    }
    const double lr = lr_at(config_.schedule, config_.optimizer.lr, schedule_step(), total_steps_);
    optimizer_.step(lr);
    task_.after_step();
    ++step_;
    const int64_t bases = config_.accumulation * stage.batch * stage.length;
    bases_ += bases;
    const double seconds = seconds_since(start);
    MetricFields fields = {{"loss", loss}};
    for (const auto& [name, value] : parts) fields.emplace_back(name, value);
    fields.insert(fields.end(), {{"lr", lr},
                                 {"grad_norm", norm},
                                 {"length", stage.length},
                                 {"bases", bases_},
                                 {"bases_per_second", static_cast<double>(bases) / seconds}});
    metrics_->write(step_, fields);
    progress.advance(1, concat("loss ", loss, ", ", format_count(static_cast<int64_t>(static_cast<double>(bases) / seconds)), " bases/s"));
    return loss;
  }

  void validate() {
    if (validation_.empty()) {
      const data::SequenceSampler sampler(config_.validation.data, static_cast<uint64_t>(config_.seed) + 1);
      for (int64_t i = 0; i < config_.validation.sequences; ++i)
        validation_.push_back(
            make_batch({sampler.sample(static_cast<uint64_t>(i), config_.validation.length)}, task_.vocabulary(), device_));
    }
    const Task::Validation result = task_.validate(validation_);
    MetricFields fields;
    std::string text = concat("validation at step ", step_, ":");
    for (const auto& [name, value] : result.figures) {
      fields.emplace_back(name, value);
      text += concat(" ", name, " ", value);
    }
    metrics_->write(step_, fields);
    log::info(text);
    if (!best_ || result.primary < best_->second) {
      best_ = {step_, result.primary};
      store_->set_best(step_);
    }
  }

  void save() {
    metrics_->sync();
    Checkpoint checkpoint;
    checkpoint.state.step = step_;
    checkpoint.state.samples = samples_;
    checkpoint.state.extra = {{"bases", bases_}, {"identity", task_.identity()}};
    if (best_) {
      checkpoint.state.extra["best_step"] = best_->first;
      checkpoint.state.extra["best_value"] = best_->second;
    }
    for (const auto& parameter : optimizer_.parameters()) checkpoint.trainable.emplace(parameter.name, parameter.tensor.detach());
    for (const auto& [name, tensor] : optimizer_.state_tensors()) checkpoint.optimizer.emplace(name, tensor);
    store_->save(checkpoint);
  }

  void restore(int64_t step) {
    const Checkpoint checkpoint = store_->load(step);
    const auto& identity = checkpoint.state.get<std::string>("identity");
    if (identity != task_.identity())
      fail<CheckpointError>("'", store_->path_of(step).string(), "' belongs to another backbone (", identity, ", now ", task_.identity(),
                            ")");
    std::vector<std::pair<std::string, Tensor>> own;
    for (const auto& parameter : optimizer_.parameters()) own.emplace_back(parameter.name, parameter.tensor);
    assign_tensors(checkpoint.trainable, own, store_->path_of(step).string());
    optimizer_.load_state(checkpoint.optimizer);
    step_ = checkpoint.state.step;
    samples_ = checkpoint.state.samples;
    bases_ = checkpoint.state.get<int64_t>("bases");
    if (checkpoint.state.extra.contains("best_step")) {
      best_ = {checkpoint.state.get<int64_t>("best_step"), checkpoint.state.get<double>("best_value")};
      store_->set_best(best_->first);
    }
    log::info(concat("resumed after step ", step_, " of ", total_steps_));
  }

  const TrainConfig& config_;
  Task& task_;
  const TrainerOptions& options_;
  at::Device device_;
  AdamW optimizer_;
  RunFolder folder_;
  std::unique_ptr<CheckpointStore> store_;
  std::unique_ptr<MetricsLog> metrics_;
  std::unique_ptr<data::SequenceSampler> sampler_;
  std::size_t stage_index_ = 0;
  std::vector<Batch> validation_;
  std::optional<std::pair<int64_t, double>> best_;
  int64_t step_ = 0, samples_ = 0, bases_ = 0, total_steps_ = 0, total_bases_ = 0;
};

}  // namespace

Batch make_batch(const std::vector<data::Sample>& samples, const model::Vocabulary& vocabulary, const at::Device& device) {
  std::size_t length = 0;
  for (const auto& sample : samples) length = std::max(length, sample.letters.size());
  const auto rows = static_cast<int64_t>(samples.size()), columns = static_cast<int64_t>(length);
  const int64_t padding = vocabulary.unknown_base != model::Vocabulary::kNone ? vocabulary.unknown_base : vocabulary.bases[0];
  Batch batch{at::full({rows, columns}, padding, at::kLong), at::zeros({rows, columns}), at::full({rows, columns}, -1, at::kInt)};
  for (int64_t r = 0; r < rows; ++r) {
    const auto& sample = samples[static_cast<std::size_t>(r)];
    const auto tokens = vocabulary.encode(sample.letters, sample.name, sample.begin);
    std::copy(tokens.begin(), tokens.end(), batch.tokens.mutable_data_ptr<int64_t>() + r * columns);
    std::copy(sample.weights.begin(), sample.weights.end(), batch.weights.mutable_data_ptr<float>() + r * columns);
    std::copy(sample.copy_offset.begin(), sample.copy_offset.end(), batch.copy_offset.mutable_data_ptr<int32_t>() + r * columns);
  }
  return {batch.tokens.to(device), batch.weights.to(device), batch.copy_offset.to(device)};
}

at::Device pick_device(const std::string& name) { return model::first_device(model::resolve_devices(name)); }

at::ScalarType pick_dtype(const std::string& name) {
  if (name == "fp32") return at::kFloat;
  if (name == "bf16") return at::kBFloat16;
  fail<ConfigError>("dtype '", name, "': expected fp32 or bf16");
}

TrainResult train(const TrainConfig& config, Task& task, const TrainerOptions& options) {
  at::globalContext().setFloat32MatmulPrecision(config.matmul == MatmulPrecision::bf16 ? "medium" : "highest");
  Loop loop(config, task, options);
  return loop.run();
}

}  // namespace focus::train
