#include "validator.h"

namespace focus::train {

using at::Tensor;

Validator::Validator(const ValidationConfig& config, const data::SequenceSampler& held_out,
                     const model::Vocabulary& vocabulary, const at::Device& device, distributed::Ranks& ranks)
    : num_sequences_(config.sequences), ranks_(ranks) {
  for (int64_t i = ranks.rank(); i < num_sequences_; i += ranks.size())
    own_.push_back(
        make_batch({held_out.sample(static_cast<uint64_t>(i), config.length)}, vocabulary, device));
}

Validator::Result Validator::validate(Task& task) const {
  const at::NoGradGuard guard;
  Validation found;          // of the last sequence
  std::vector<Tensor> rows;  // by own sequence: sum and weight of each figure
  for (const Batch& sequence : own_) {
    found = task.validate(sequence);
    std::vector<Tensor> row;
    for (const Mean& mean : found.means) row.insert(row.end(), {mean.sum, mean.weight});
    rows.push_back(at::stack(row));
  }
  // A rank without a sequence does not know how many figures there are; rank 0 has the first sequence.
  const auto num_figures =
      ranks_.from_first(std::vector<int64_t>{static_cast<int64_t>(found.means.size())})[0];
  const Tensor all = at::zeros({num_sequences_, 2 * num_figures}, at::kDouble);
  for (std::size_t i = 0; i < rows.size(); ++i)
    all[ranks_.rank() + static_cast<int64_t>(i) * ranks_.size()].copy_(rows[i]);
  ranks_.all_reduce_sum({all});
  const auto values = all.accessor<double, 2>();
  Result out;
  for (std::size_t f = 0; f < found.means.size(); ++f) {
    double sum = 0, weight = 0;
    for (int64_t i = 0; i < num_sequences_; ++i) {
      sum += values[i][2 * static_cast<int64_t>(f)];
      weight += values[i][2 * static_cast<int64_t>(f) + 1];
    }
    if (weight == 0) continue;
    out.figures.emplace_back("validation_" + found.means[f].name, sum / weight);
    if (f < found.num_primary) out.primary += sum / weight;
  }
  out.primary = ranks_.from_first(std::vector<double>{out.primary})[0];
  return out;
}

}  // namespace focus::train
