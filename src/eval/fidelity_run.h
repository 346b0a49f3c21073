// The parts of a fidelity run that other evaluations are made of.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "fidelity_methods.h"
#include "focus/data/segments.h"
#include "focus/distributed/ranks.h"
#include "measure.h"

namespace focus::eval {

/// Settings of the model's files, of the sequences, and of how the work is done.
void visit_model(FidelityConfig& c, config::Fields& f);
void visit_segments(FidelityConfig& c, config::Fields& f);
void visit_run(FidelityConfig& c, config::Fields& f);
/// ConfigError: a file of these is missing.
void require_files(const FidelityConfig& c);

/// `count` segments of each region of the configured file.
data::SegmentSample draw_segments(const FidelityConfig& config, int64_t count);

/// A segment as a model reads it.
Input read_segment(const data::SampledSegment& segment, const model::Vocabulary& vocabulary);

/// What a run was made from, for its report.
std::map<std::string, std::string> provenance_of(const FidelityConfig& config,
                                                 const weights::LoadedModel& loaded,
                                                 const std::string& device);

/// Streams the segments through the methods, "full" first, and measures them as run_fidelity() says. Origin
/// and configuration of the result are left empty. Of `config` only sizes count, neither methods nor memory.
/// With a cache, opened before, what it holds is not measured again, and it is told of progress.
report::FidelityResult run_methods(const FidelityConfig& config, const compress::WindowPlan& plan,
                                   const data::SegmentSample& sample, const model::Backbone& backbone,
                                   const std::vector<Method>& methods, const std::string& label,
                                   distributed::Ranks& ranks, FidelityCache* cache = nullptr,
                                   const report::OnValues& on_values = {});

}  // namespace focus::eval
