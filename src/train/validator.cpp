#include "validator.h"

#include <iterator>

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
  std::vector<Mean> means;  // of the last sequence: all have the same names
  std::size_t num_primary = 0;
  std::vector<Tensor> rows;  // by own sequence: sum and weight of each figure
  for (const Batch& sequence : own_) {
    Validation found = task.validate(sequence);
    num_primary = found.primary.size();
    means = std::move(found.primary);
    means.insert(means.end(), std::make_move_iterator(found.others.begin()),
                 std::make_move_iterator(found.others.end()));
    std::vector<Tensor> row;
    for (const Mean& mean : means) row.insert(row.end(), {mean.sum, mean.weight});
    rows.push_back(at::stack(row));
  }
  // A rank without a sequence does not know how many figures there are; rank 0 has the first sequence.
  const int64_t columns = ranks_.from_first(std::vector<int64_t>{2 * static_cast<int64_t>(means.size())})[0];
  const Tensor all = at::zeros({num_sequences_, columns}, at::kDouble);
  for (std::size_t i = 0; i < rows.size(); ++i)
    all[ranks_.rank() + static_cast<int64_t>(i) * ranks_.size()].copy_(rows[i]);
  ranks_.all_reduce_sum({all});
  Result out;
  for (std::size_t f = 0; f < means.size(); ++f) {
    double sum = 0, weight = 0;
    for (const double* row = all.const_data_ptr<double>(); row < all.const_data_ptr<double>() + all.numel();
         row += columns) {
      sum += row[2 * f];
      weight += row[2 * f + 1];
    }
    if (weight == 0) continue;
    out.figures.emplace_back("validation_" + means[f].name, sum / weight);
    if (f < num_primary) out.primary += sum / weight;
  }
  out.primary = ranks_.from_first(std::vector<double>{out.primary})[0];
  return out;
}

}  // namespace focus::train
