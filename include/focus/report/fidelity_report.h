// What a person reads after a fidelity run: tables, arrays and one self-contained page.
#pragma once

#include <filesystem>

#include "focus/report/fidelity_result.h"

namespace focus::report {

/// Writes the report of a run into `folder` (created if missing); each file appears whole or not at all.
/// Values at every position are written while they are measured (ValuesFile).
///   summary.tsv      one row per method, scope (all, after_boundary, repeat_rich, ordinary) and measure:
///                    count, mean with the bootstrap 95% interval over segments, median, quartiles, p99, max,
///                    kept entries and bytes, and for KL the recovered share R
///   by_position.tsv  means by position in the segment
///   by_offset.tsv    means by offset behind the last boundary
///   by_class.tsv     figures in the classes of each grouping
///   distribution.tsv counts of the distances
///   needles.tsv      where needles were asked for: answers per method, of all questions and by depth
///   answers.tsv      every one of them
///   segments.tsv     every segment with its repeat share and each method's mean KL
///   summary.json     all of summary.tsv and segments.tsv, the run's provenance and resolved configuration
///   focus_mqc.json   the main table for MultiQC
///   report.html      the page: tables and plots, drawn by its own script; nothing is loaded from elsewhere
/// Divergences are those of the full cache from the method, in nats where they are logarithmic;
/// `delta_cross_entropy` is the method's cross entropy less that of the method called "full", R compares with
/// the method called "state_only" and the method "noise_floor" is drawn as the reference below which
/// differences are rounding; recall (summary.json) is 1 less the share of state_only's delta_cross_entropy
/// that a method has at the positions of Segment::copied; each is left out where the run has no such method.
/// A measure without values is NaN. Throws DataError when the folder cannot be written, InternalError when
/// the methods' sums are not those of the segments.
void write_fidelity_report(const FidelityResult& result, const std::filesystem::path& folder);

}  // namespace focus::report
