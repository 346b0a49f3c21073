#include "run/run_data.h"

#include <algorithm>

#include "focus/compress/focus/adapter_file.h"
#include "focus/core/error.h"
#include "focus/data/open_sequences.h"
#include "focus/data/region.h"
#include "focus/weights/model_files.h"

namespace focus::train {
namespace {

constexpr int64_t kMaxDescribed = 8;

std::string letters_of(const data::Sample& sample) { return {sample.letters.begin(), sample.letters.end()}; }

}  // namespace

RunData::RunData(const TrainConfig& settings)
    : given(settings), training(given.data, static_cast<uint64_t>(given.seed)), config(given) {
  for (StageConfig& stage : config.stages) {
    if (stage.epochs == 0) continue;
    const int64_t samples = stage.epochs * training.pass_size(stage.length),
                  of_step = config.accumulation * stage.batch;
    stage.steps = (samples + of_step - 1) / of_step;
  }
  if (config.validation.every > 0)
    held_out.emplace(config.validation.data, static_cast<uint64_t>(config.seed) + 1);
}

StageSamples::StageSamples(const RunData& data, std::size_t index)
    : sampler_([&]() -> data::SequenceSampler {
        const StageConfig& stage = data.config.stages.at(index);
        data::SamplerConfig sampling = data.config.data;
        sampling.copies = stage.copies;
        sampling.natural_weight = stage.natural_weight;
        return {data.training, sampling, static_cast<uint64_t>(data.config.seed)};
      }()),
      length_(data.config.stages.at(index).length),
      first_(0),
      passes_(data.config.stages.at(index).epochs > 0) {
  for (std::size_t i = 0; i < index; ++i) {
    const StageConfig& earlier = data.config.stages[i];
    first_ += earlier.steps * data.config.accumulation * earlier.batch;
  }
}

data::Sample StageSamples::sample(int64_t index) const {
  return passes_ ? sampler_.pass_sample(static_cast<uint64_t>(index - first_), length_)
                 : sampler_.sample(static_cast<uint64_t>(index), length_);
}

std::size_t stage_at(const TrainConfig& config, int64_t step) {
  for (std::size_t index = 0; index < config.stages.size(); ++index) {
    if (step < config.stages[index].steps) return index;
    step -= config.stages[index].steps;
  }
  fail<InternalError>("step outside all stages");
}

int64_t step_bases(const TrainConfig& config, const StageConfig& stage) {
  return config.accumulation * stage.batch * stage.length;
}

std::string describe_samples(const StageSamples& samples, int64_t first, int64_t end) {
  std::string text;
  for (int64_t index = first; index < std::min(end, first + kMaxDescribed); ++index) {
    const data::Sample sample = samples.sample(index);
    const data::Region region{sample.name, sample.begin,
                              sample.begin + static_cast<int64_t>(sample.letters.size())};
    text += concat(index > first ? ", " : "", index, " ", data::format_region(region),
                   sample.reverse ? " (reverse)" : "");
  }
  return end - first > kMaxDescribed
             ? concat(text, " and ", end - first - kMaxDescribed, " more up to ", end - 1)
             : text;
}

void require_splittable(const TrainConfig& config, int64_t num_ranks) {
  if (config.stages.empty() || config.accumulation % num_ranks == 0) return;
  const int64_t next = (config.accumulation / num_ranks + 1) * num_ranks;
  fail<ConfigError>("accumulation = ", config.accumulation,
                    " micro-batches per step cannot be split evenly over ", num_ranks,
                    " ranks; set accumulation to ", next, " or another multiple of ", num_ranks,
                    ", or start another number of ranks");
}

void require_same_run(const RunData& data, const std::string& identity, distributed::Ranks& ranks) {
  const TrainConfig& config = data.config;
  int64_t longest = 0;
  if (config.task == TaskKind::adapter && config.memory.uses(compress::MemoryKind::tables))
    longest = config.memory.tables.fit_length;
  for (const StageConfig& stage : config.stages) longest = std::max(longest, stage.length);
  std::string drawn = letters_of(data.training.sample(0, longest));
  if (data.held_out) drawn += letters_of(data.held_out->sample(0, config.validation.length));
  TrainConfig shared = data.given;  // what is each rank's own affair left out
  shared.device.clear();
  shared.threads = 0;
  distributed::require_agreement(ranks, {{"settings", config::to_json(shared)},
                                         {"backbone", identity},
                                         {"training or validation data", drawn}});
}

std::vector<InputDigest> digest_inputs(const TrainConfig& config) {
  std::vector<InputDigest> out;
  std::vector<std::string> paths;
  for (const NamedPath& file : weights::model_files(config.model_config, config.model_checkpoint))
    paths.push_back(file.path.string());
  if (!config.adapter.empty()) paths.push_back(compress::adapter_file(config.adapter).string());
  for (const auto* sampler : {&config.data, &config.validation.data}) {
    for (const auto& source : sampler->sources) {
      const auto add = [&](const std::string& given, data::SequenceKind kind) {
        if (given.empty()) return;
        for (const auto& file : data::sequence_files(given, kind)) paths.push_back(file.string());
      };
      add(source.fasta, data::SequenceKind::fasta);
      add(source.jsonl, data::SequenceKind::jsonl);
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

}  // namespace focus::train
