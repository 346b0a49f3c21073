// The answers of a run as the folders that kvpress's evaluation writes, for its leaderboard and scripts.
#pragma once

#include <filesystem>

namespace focus::report {

/// A folder of `output` for each method of a fidelity run that asked for needles, named by the method:
///   predictions.csv  a row per question: segment, depth, question (the key), answer_prefix (empty), answer,
///                    max_new_tokens, predicted_answer, compression_ratio
///   metrics.json     exact_match and base_accuracy with their intervals, bytes, seconds
///   config.yaml      the names of kvpress's settings, and the run's own below `focus`
/// compression_ratio: the share of full memory's bytes for closed windows that the method does not hold; far
/// memory counts as held. DataError: `run` is no finished fidelity run, or asked for no needles.
void write_kvpress_folders(const std::filesystem::path& run, const std::filesystem::path& output);

}  // namespace focus::report
