#include "tasks/fit_tables.h"

#include <map>

#include "focus/compress/tables/tables_fit.h"
#include "focus/core/error.h"
#include "focus/core/interrupt.h"
#include "focus/core/log.h"
#include "focus/core/progress.h"
#include "focus/train/loop/trainer.h"

namespace focus::train {
namespace {

// The regression's sequences are none of the training's.
constexpr uint64_t kFitSamples = uint64_t{1} << 40;

}  // namespace

void fit_tables(const TrainConfig& config, model::Backbone& backbone, compress::FocusAdapter& adapter) {
  const compress::TablesConfig& settings = config.memory.focus.tables;
  std::map<int64_t, compress::BaseTables*> tables;
  for (const int64_t block : adapter.blocks()) {
    if (const auto of_block = adapter.tables(block)) tables.emplace(block, of_block.get());
  }
  if (tables.empty()) return;
  const data::SequenceSampler sampler(config.data, static_cast<uint64_t>(config.seed));
  compress::TablesFit fit(backbone, std::move(tables), settings);
  Progress progress({.label = "tables", .unit = "sequences", .total = settings.fit_sequences});
  for (int64_t i = 0; i < settings.fit_sequences; ++i) {
    fit.add(
        make_batch({sampler.sample(kFitSamples + static_cast<uint64_t>(i), settings.fit_length)}, backbone.vocabulary(), backbone.device())
            .tokens);
    progress.advance(1);
    if (interrupt_requested()) fail<Interrupted>("interrupted while the tables were fitted; nothing was written, start again");
  }
  progress.finish();
  for (const auto& [block, left] : fit.solve())
    log::info(concat("block ", block, ": tables leave ", 100 * left.first, " % of the score variance and ", 100 * left.second,
                     " % of the values unexplained"));
}

}  // namespace focus::train
