// Base tables before the first step of training.
#pragma once

#include "focus/compress/focus/adapter.h"
#include "focus/data/sampler.h"
#include "focus/distributed/ranks.h"
#include "focus/model/backbone.h"

namespace focus::train {

/// Fills the adapter's base tables by regression on full memory's keys and values, over
/// `settings.fit_sequences` sequences of the training data; an adapter without tables stays as it is. Every
/// rank calls it, reads its share of the sequences, and stays within one sequence of the others, so that none
/// waits long. Interrupted after a signal to any rank, between two sequences.
void fit_tables(const compress::TablesConfig& settings, const data::SequenceSampler& training,
                model::Backbone& backbone, compress::FocusAdapter& adapter, distributed::Ranks& ranks);

}  // namespace focus::train
