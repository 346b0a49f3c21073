#include "fit_tables.h"

#include <algorithm>
#include <map>

#include "focus/compress/tables/tables_fit.h"
#include "focus/core/error.h"
#include "focus/core/log.h"
#include "focus/core/progress.h"
#include "focus/train/loop/task.h"
#include "loop/gradient_sum.h"

namespace focus::train {
void fit_tables(const compress::TablesConfig& settings, const data::SequenceSampler& training,
                model::Backbone& backbone, compress::FocusAdapter& adapter, distributed::Ranks& ranks) {
  std::map<int64_t, compress::BaseTables*> tables;
  for (const int64_t block : adapter.blocks()) {
    if (const auto of_block = adapter.tables(block)) tables.emplace(block, of_block.get());
  }
  if (tables.empty()) return;
  compress::TablesFit fit(backbone, std::move(tables), settings);
  Progress progress({.label = "tables", .unit = "sequences", .total = settings.fit_sequences});
  for (int64_t first = 0; first < settings.fit_sequences; first += ranks.size()) {
    if (const int64_t own = first + ranks.rank(); own < settings.fit_sequences) {
      const data::Sample sample =
          training.sample(compress::kFitSamples + static_cast<uint64_t>(own), settings.fit_length);
      fit.add(make_batch({sample}, backbone.vocabulary(), backbone.device()).tokens);
    }
    progress.advance(std::min(ranks.size(), settings.fit_sequences - first));
    if (interrupted_anywhere(ranks))
      fail<Interrupted>("interrupted while the tables were fitted; nothing was written, start again");
  }
  ranks.all_reduce_sum(fit.sums());
  progress.finish();
  // All ranks solve: the solution of the same sums takes one no longer than all.
  for (const auto& [block, left] : fit.solve()) {
    if (!ranks.is_first()) continue;
    const double residual = compress::score_residual(*adapter.tables(block));
    log::info(concat("block ", block, ": tables leave ", 100 * left.first, " % of the score variance (",
                     residual, " nats) and ", 100 * left.second, " % of the values unexplained"));
    if (residual > compress::kLargestResidual)
      log::warn(
          concat("block ", block, ": base memory may fail here: letters leave a score uncertain by ",
                 residual, " nats, and above ", compress::kLargestResidual,
                 " it has been seen to keep little; measure it with 'focus-eval calibrate', or give the "
                 "block another memory in focus.schedule"));
  }
}

}  // namespace focus::train
