// Base tables before the first step of training.
#pragma once

#include "focus/compress/focus/adapter.h"
#include "focus/model/backbone.h"
#include "focus/train/run/config.h"

namespace focus::train {

/// Fills the adapter's base tables by regression on full memory's keys and values, over focus.tables.fit_sequences sequences of the
/// training data; an adapter without tables stays as it is. Interrupted after a signal, between two sequences.
void fit_tables(const TrainConfig& config, model::Backbone& backbone, compress::FocusAdapter& adapter);

}  // namespace focus::train
