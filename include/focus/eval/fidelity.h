// How close compressed memory stays to full memory: every method streams over the same segments of real
// sequence, really dropping what it drops, and each next-base distribution is compared with the full memory's
// at the same position (paper, Appendix B).
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "focus/compress/plan/config.h"
#include "focus/config/fields.h"
#include "focus/distributed/ranks.h"
#include "focus/report/fidelity_result.h"
#include "focus/report/values_file.h"
#include "focus/weights/load_model.h"

namespace focus::eval {

/// The method 'oracle': Adam on the entries themselves, for each sequence anew.
struct OracleConfig {
  int64_t steps = 100;
  /// Of keys and values relative to the root mean square of the layer's; of betas in nats. Falls to zero
  /// along half a cosine.
  double lr = 0.02;
  void visit(config::Fields& f);
};

/// A copy that is written into every segment: its last `size` bases are those `distance` further left,
/// changed as said. What a memory still knows of them is the run's recall.
struct PlantedConfig {
  int64_t size = 0;  // bases; 0: none
  int64_t distance = 4096;
  double substitutions = 0, indels = 0;  // shares of the copy's bases
  bool reverse_complement = false;
  void visit(config::Fields& f);
};

/// Needles in the haystack: keys of `size` random bases, each followed by a value of as many, are written
/// into every segment, and asked for behind it. A model that still knows them goes on with the value after
/// reading the key again. The segment is read once and compressed once; every question goes on from there by
/// itself.
struct NeedleConfig {
  int64_t size = 0;       // bases of a key, and of its value; 0: none
  int64_t questions = 9;  // needles in a segment that are asked for, evenly from 10 to 90 % of its length
  /// For each of these numbers every needle has a near-duplicate, with so many bases of its key substituted
  /// and a value of its own, at a random place. It is not asked for.
  std::vector<int64_t> distractors;
  void visit(config::Fields& f);
};

/// The configuration of focus-eval fidelity.
struct FidelityConfig {
  std::string model_config;  // as weights::load_model
  std::string model_checkpoint;
  std::string adapter;  // adapter file, or the run folder that holds adapter.safetensors; empty = none
  std::map<std::string, std::string> adapters;  // more of them, each a method under its label
  compress::MemoryConfig memory;                // without an adapter
  compress::PlanOverride plan;                  // of the adapter or of `memory`, for all methods
  std::string fasta;
  bool allow_truncated = false;      // data::FastaOptions
  std::vector<std::string> regions;  // as data::read_regions; empty = every record
  int64_t segments = 8;              // per region
  int64_t length = 8192;             // bases per segment
  double max_n_fraction = 0.1;
  int64_t records = 0;  // of so many random regions only; 0 = all
  PlantedConfig planted;
  NeedleConfig needles;
  std::vector<std::string> methods;  // empty = all that apply but "oracle"; "full" is always measured, first
  OracleConfig oracle;
  int64_t chunk = 0;  // bases per forward call; 0 = one window
  int64_t bootstrap_draws = 1000;
  bool positions = false;  // every value into values.h5
  int64_t seed = 42;
  std::string dtype = "fp32";
  weights::Fp8 fp8 = weights::Fp8::emulate;
  std::string device = "auto";
  int64_t threads = 0;  // 0 = all cores, shared out among the ranks of a machine
  /// Several ranks: how long one that is done waits for the others. One that died is noticed at once, so this
  /// need not be short.
  int64_t rank_timeout_seconds = 86400;
  void visit(config::Fields& f);
  /// Settings that contradict each other, are missing or have no effect; ConfigError.
  void validate() const;
};

/// full, noise_floor, the other compress::memory_names(), adaptive_entropy, focus, the labels of `adapters`,
/// oracle: those that `config` names, or all that apply but the oracle, which is slow. "full" comes first.
/// ConfigError: unknown or repeated names, a method whose adapter is missing.
///   full         every key and value is kept, streamed in chunks: what all others are compared with, itself
///   included noise_floor  the plain backbone over the whole segment in one call: what rounding alone does.
///   It needs the memory of one such call. memories     compress::make_memory, the rivals each with the bytes
///   that Focus entries would take adaptive_entropy   fitted entries of k-mers with equal shares of entropy,
///   which a first pass with state_only memory measures fitted       the closed form without trained parts
///   focus        the trained adapter
///   a label      another trained adapter
///   oracle       no method but a control: the entries of `fitted`, optimised for the very segment that is
///   measured. What it recovers can be
///                held by so many entries; what it does not is lost to their number, or to the optimisation
std::vector<std::string> fidelity_methods(const FidelityConfig& config);

/// The method that a run is about: the first trained one, else 'fitted', whether it is measured or not.
std::string method_in_question(const FidelityConfig& config);

class FidelityCache;  // what runs of one process share

/// Measures. Segments go one at a time (batch 1), and one method after the other: besides the model and one
/// method's memory, full memory's logits of one segment are held (fp32, length x vocabulary: 2 KiB per base
/// with 512 tokens), what goes into its first attention block, a chunk of the method's logits, and 32 bytes
/// per base. The result grows by about 1 KiB per method and segment, whatever their length.
///
/// The first call of a stream is one base shorter than the others: calls then end one base before a window
/// does, where its open part is largest, so that `open_bytes` is the peak but for one base. Kept entries and
/// bytes are those at the segment's end.
///
/// A segment that crosses no window boundary measures nothing; that is allowed, with a warning. Progress and
/// warnings go to the log. Ranks take the segments in turn, each on its own `device`, and tell each other
/// their values: the result is the same on all, and but for the times that of one process. `on_values` is
/// told of all segments. More ranks than segments is allowed, with a warning.
///
/// Throws ConfigError, DataError, WeightsError, CheckpointError as the parts do; CheckFailed for logits that
/// are not finite, naming method, segment and position; Interrupted after Ctrl-C, between two calls of the
/// model; DeviceError when another rank was lost.
report::FidelityResult run_fidelity(const FidelityConfig& config, const std::string& device,
                                    c10::ScalarType dtype, distributed::Ranks& ranks,
                                    FidelityCache* cache = nullptr, const report::OnValues& on_values = {});
/// The same in one process.
report::FidelityResult run_fidelity(const FidelityConfig& config, const std::string& device,
                                    c10::ScalarType dtype, const report::OnValues& on_values = {});

}  // namespace focus::eval
