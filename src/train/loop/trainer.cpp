#include "focus/train/loop/trainer.h"

#include <ATen/Context.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "focus/core/error.h"
#include "focus/core/log.h"
#include "focus/core/progress.h"
#include "focus/core/units.h"
#include "focus/model/placement.h"
#include "gradient_sum.h"
#include "run/run_data.h"
#include "run/run_position.h"
#include "run/run_record.h"
#include "step_loss.h"
#include "validator.h"

namespace focus::train {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

class Loop {
 public:
  Loop(const TrainConfig& config, Task& task, const TrainerOptions& options)
      : data_(config),
        config_(data_.config),
        task_(task),
        alone_(distributed::one_rank()),
        ranks_(options.ranks != nullptr ? *options.ranks : *alone_),
        device_(model::first_device(model::resolve_devices(config.device))),
        model_(task.model()),
        optimizer_(model_.parameters, config.optimizer) {
    for (const StageConfig& stage : config_.stages) {
      total_steps_ += stage.steps;
      total_bases_ += stage.steps * step_bases(config_, stage);
    }
    require_splittable(config, ranks_.size());
    require_same_run(data_, model_.identity, ranks_);
    if (ranks_.is_first()) {
      record_ = std::make_unique<RunRecord>(data_, options);
      if (record_->resume_step()) restore(*record_->resume_step());
    }
    const int64_t resumes = record_ && record_->resume_step() ? 1 : 0;
    if (ranks_.from_first(std::vector<int64_t>{resumes})[0] == 0) task_.initialise(data_.training, ranks_);
    share_state(ranks_, at_, optimizer_);
    if (data_.held_out)
      validator_.emplace(config.validation, *data_.held_out, model_.backbone->vocabulary(), device_, ranks_);
    data_.held_out.reset();  // all that is drawn from it is drawn
  }

  TrainResult run() {
    const auto start = std::chrono::steady_clock::now();
    Progress progress({.label = "train", .unit = "steps", .total = total_steps_, .start = at_.step});
    started_ = start;
    first_bases_ = at_.bases;
    TrainResult result;
    const int64_t first_step = at_.step;
    if (total_steps_ == 0 && validator_) validate();
    if (at_.step < total_steps_ && interrupted_anywhere(ranks_))
      fail<Interrupted>("interrupted before step ", at_.step + 1, "; nothing was trained");
    while (at_.step < total_steps_) {
      result.last_loss = one_step(progress);
      const bool last = at_.step == total_steps_;
      bool is_best = false;
      if (validator_ && (at_.step % config_.validation.every == 0 || last)) is_best = note_best(validate());
      const bool stop = interrupted_anywhere(ranks_) && !last;
      // The best parameters must be there at the end, also when the intervals of validation and checkpoints
      // differ.
      if (at_.step % config_.checkpoint_every == 0 || last || stop || is_best) save();
      if (stop) {
        progress.finish();
        fail<Interrupted>("interrupted after step ", at_.step, " of ", total_steps_,
                          "; checkpoint written, continue with --resume");
      }
    }
    progress.finish();
    if (ranks_.is_first()) write_results();
    ranks_.barrier();
    result.steps = at_.step;
    result.trained = at_.step - first_step;
    result.skipped = at_.skipped;
    result.seconds = seconds_since(start);
    return result;
  }

 private:
  /// This rank's micro-batches of the step. Which samples belong to which micro-batch does not depend on the
  /// number of ranks.
  std::vector<Batch> fetch(const StageConfig& stage) {
    const int64_t share = config_.accumulation / ranks_.size();
    std::vector<Batch> batches;
    for (int64_t micro = ranks_.rank() * share; micro < (ranks_.rank() + 1) * share; ++micro) {
      std::vector<data::Sample> samples;
      for (int64_t b = 0; b < stage.batch; ++b)
        samples.push_back(samples_->sample(at_.samples + micro * stage.batch + b));
      batches.push_back(make_batch(samples, model_.backbone->vocabulary(), device_));
    }
    at_.samples += config_.accumulation * stage.batch;
    return batches;
  }

  // The step whose place in the schedule this one takes: its own, or, counting bases, the one at the same
  // share of the run.
  int64_t schedule_step() const {
    if (config_.schedule.over == DecayOver::steps || at_.step < config_.schedule.warmup_steps)
      return at_.step;
    const double share = static_cast<double>(at_.bases) / static_cast<double>(total_bases_);
    return std::max(config_.schedule.warmup_steps,
                    static_cast<int64_t>(share * static_cast<double>(total_steps_)));
  }

  void enter_stage(const StageConfig& stage, std::size_t index) {
    if (samples_ && index == stage_index_) return;
    samples_.emplace(data_, index);
    stage_index_ = index;
    log::info(concat("stage ", index + 1, "/", config_.stages.size(), ": ", stage.steps, " steps of ",
                     config_.accumulation * stage.batch, " x ", stage.length, " bases"));
  }

  double one_step(Progress& progress) {
    const auto start = std::chrono::steady_clock::now();
    const std::size_t index = stage_at(config_, at_.step);
    const StageConfig& stage = config_.stages[index];
    enter_stage(stage, index);
    const std::unique_ptr<Objective> objective = task_.objective(at_.step, stage);
    const int64_t first_sample = at_.samples;
    std::vector<Batch> batches = fetch(stage);
    optimizer_.zero_grad();
    const StepLoss losses = backward(*objective, batches, ranks_, optimizer_.parameters());
    if (losses.weight <= 0) {
      fail<CheckFailed>("step ", at_.step + 1, ": no position carries any loss weight in samples ",
                        describe_samples(*samples_, first_sample, at_.samples));
    }
    const double loss = losses.loss;
    const double norm = clip_grad_norm(optimizer_.gradients(), config_.optimizer.clip_norm);
    const double lr = lr_at(config_.schedule, peak_lr(config_, stage), schedule_step(), total_steps_);
    MetricFields fields = {{"loss", loss}};
    fields.insert(fields.end(), losses.facts.begin(), losses.facts.end());
    for (const auto& fact : objective->facts) fields.push_back(fact);
    fields.insert(fields.end(), {{"lr", lr}, {"grad_norm", norm}});
    if (std::isfinite(loss) && std::isfinite(norm)) {
      optimizer_.step(lr);
    } else {
      skip_or_stop(loss, norm, first_sample);
      fields.emplace_back("skipped", at_.skipped);
    }
    ++at_.step;
    const int64_t bases = step_bases(config_, stage);
    at_.bases += bases;
    fields.insert(fields.end(), {{"length", stage.length}, {"bases", at_.bases}});
    report(fields, loss, static_cast<double>(bases) / seconds_since(start), progress);
    return loss;
  }

  /// The parameters stay as they were. Loss and norm are sums over all ranks, so that all decide alike.
  void skip_or_stop(double loss, double norm, int64_t first_sample) {
    const std::string what = concat("step ", at_.step + 1, ": loss ", loss, ", gradient norm ", norm,
                                    "; samples ", describe_samples(*samples_, first_sample, at_.samples));
    if (config_.non_finite == NonFinite::stop) {
      fail<CheckFailed>(what,
                        ". The parameters were not changed. Lower optimizer.lr or raise "
                        "schedule.warmup_steps in a new run, or go on from the "
                        "last checkpoint past this step with --resume --set non_finite=skip");
    }
    if (++at_.skipped > config_.max_skips) {
      fail<CheckFailed>(
          what, ". ", config_.max_skips,
          " steps were skipped before, as many as max_skips allows; lower optimizer.lr in a new run, or "
          "--resume with a larger max_skips");
    }
    if (ranks_.is_first())
      log::warn(concat(what, ". Step skipped (", at_.skipped, " of at most ", config_.max_skips, ")"));
  }

  void report(MetricFields fields, double loss, double bases_per_second, Progress& progress) {
    if (!ranks_.is_first()) return;
    const double rate = static_cast<double>(at_.bases - first_bases_) / seconds_since(started_);
    const std::string memory =
        record_->write_step(at_.step, std::move(fields), bases_per_second,
                            static_cast<double>(total_bases_ - at_.bases) / rate, device_);
    progress.advance(1, concat("loss ", loss, ", ", format_count(static_cast<int64_t>(bases_per_second)),
                               " bases/s, ", memory));
  }

  /// The primary figure.
  double validate() {
    const Validator::Result result = validator_->validate(task_);
    if (ranks_.is_first()) record_->write_validation(at_.step, result.figures);
    return result.primary;
  }

  /// Whether this is the best validation so far.
  bool note_best(double primary) {
    if (at_.best && !(primary < at_.best->value)) return false;
    if (!std::isfinite(primary)) return false;
    at_.best = {at_.step, primary};
    return true;
  }

  void save() {
    require_same_parameters(ranks_, optimizer_.parameters());
    if (!ranks_.is_first()) return;
    record_->save(make_checkpoint(at_, model_.identity, optimizer_), best_step());
  }
  int64_t bases_after(int64_t step) const {
    int64_t bases = 0;
    for (const StageConfig& stage : config_.stages) {
      bases += std::min(step, stage.steps) * step_bases(config_, stage);
      step -= std::min(step, stage.steps);
    }
    return bases;
  }
  std::optional<int64_t> best_step() const { return at_.best ? std::optional(at_.best->step) : std::nullopt; }

  void restore(int64_t step) {
    const std::string path = record_->checkpoints().path_of(step).string();
    if (step > total_steps_)
      fail<CheckpointError>("'", path, "' was saved after step ", step, ", but this run has ", total_steps_,
                            " steps: it belongs to another run; remove it, or start anew with --force");
    at_ = apply_checkpoint(record_->load(step), model_.identity, optimizer_, path);
    record_->tidy(best_step());
    log::info(step < total_steps_ ? concat("resumed after step ", at_.step, " of ", total_steps_)
                                  : concat("nothing to resume: all ", total_steps_,
                                           " steps were done before; only the result is written again"));
  }

  void write_results() {
    const std::filesystem::path& root = record_->root();
    const bool best = at_.best && config_.result != ResultKind::last;
    if (!best) task_.write_result(root, record_->training(at_.step, at_.bases));
    if (!at_.best) return;
    std::map<std::string, at::Tensor> last;
    for (const auto& parameter : optimizer_.parameters())
      last.emplace(parameter.name, parameter.tensor.detach().clone());
    const CheckpointStore& store = record_->checkpoints();
    assign_parameters(store.load(at_.best->step).trainable, optimizer_,
                      store.path_of(at_.best->step).string());
    log::info(concat("best validation at step ", at_.best->step,
                     best ? ": these parameters are the result" : ": kept in 'best'"));
    const std::filesystem::path folder = best ? root : record_->best_folder();
    std::filesystem::create_directories(folder);
    task_.write_result(folder, record_->training(at_.best->step, bases_after(at_.best->step)));
    assign_parameters(last, optimizer_, "the last step");
  }

  RunData data_;
  const TrainConfig& config_;
  Task& task_;
  std::unique_ptr<distributed::Ranks> alone_;
  distributed::Ranks& ranks_;
  at::Device device_;
  const TrainedModel& model_;
  AdamW optimizer_;
  std::unique_ptr<RunRecord> record_;    // rank 0
  std::optional<StageSamples> samples_;  // of the stage
  std::size_t stage_index_ = 0;
  std::optional<Validator> validator_;
  RunPosition at_;
  int64_t total_steps_ = 0, total_bases_ = 0, first_bases_ = 0;
  std::chrono::steady_clock::time_point started_;
};

}  // namespace

TrainResult train(const TrainConfig& config, Task& task, const TrainerOptions& options) {
  at::globalContext().setFloat32MatmulPrecision(config.matmul == MatmulPrecision::bf16 ? "medium"
                                                                                       : "highest");
  Loop loop(config, task, options);
  return loop.run();
}

}  // namespace focus::train
