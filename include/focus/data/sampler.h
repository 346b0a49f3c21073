// Training sequences drawn at random from FASTA and JSONL sources, with pasted far copies as an option.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "focus/config/fields.h"
#include "focus/data/region.h"

namespace focus::data {

/// One file to draw from; exactly one of fasta, jsonl and hdf5 is set.
struct SourceConfig {
  std::string fasta;  // FASTA file; one that cannot be indexed is held in memory
  std::vector<std::string>
      regions;          // regions or .bed files of fasta or hdf5 to draw from; empty: every record
  std::string jsonl;    // JSONL file, held in memory
  std::string hdf5;     // token store (TokenStore)
  double weight = 1.0;  // share of the samples, relative to the other sources
  bool operator==(const SourceConfig&) const = default;

  void visit(config::Fields& f);
};

/// Planted copies: a segment of the sequence is written again further right, so that its bases can only be
/// predicted well by what still knows the first occurrence. Lengths are cut to a quarter (minimum) and to .45
/// (maximum) of the sequence.
struct CopyConfig {
  double probability = 0.0;  // of a sequence to receive copies
  int64_t min_count = 1, max_count = 4;
  int64_t min_length = 100, max_length = 800;
  double far_fraction = 0.6;  // of the sequences with copies, where long enough: all their copies are far
  int64_t min_far_distance =
      1100;  // least distance of a far copy; sequences shorter than twice this have no far copies
  double max_substitution = 0.05;            // each copy draws its substitution rate from [0, this]
  double reverse_complement_fraction = 0.0;  // of the copies, written on the opposite strand

  void visit(config::Fields& f);
  bool operator==(const CopyConfig&) const = default;
};

struct SamplerConfig {
  std::vector<SourceConfig> sources;
  std::vector<std::string>
      exclude;  // regions or .bed files never drawn from (held-out data), looked up in all sources but jsonl
  bool allow_truncated = false;  // FastaOptions
  double max_n_fraction = 0.05;
  double reverse_complement = 0.0;
  double lowercase_weight = 0.1;
  double natural_weight = 1.0;  // factor on the loss weight outside copies
  double copy_weight = 1.0;     // loss weight inside a copy
  int64_t copy_warmup =
      8;  // first bases of a copy that still count as outside: no model can know that a copy has begun
  int64_t memory_mb = 512;  // bounds jsonl and gzip, held always; the rest is held too when all fits, else
                            // read piece by piece
  CopyConfig copies;

  void visit(config::Fields& f);
  void validate() const;
};

/// One training sequence. All arrays have the sequence's length.
struct Sample {
  std::vector<uint8_t> letters;      // upper case
  std::vector<float> weights;        // loss weight of the prediction OF letter t; weights[0] = 0
  std::vector<int32_t> copy_offset;  // position within a planted copy, -1 outside
  std::vector<int32_t> copy_source;  // position the base was copied from, -1 outside
  std::string name;                  // record
  int64_t begin = 0;                 // 0-based first base in the record, on the forward strand
  bool reverse = false;              // the sequence is the reverse complement of [begin, begin + length)
};

/// A stretch that windows are drawn from.
struct DrawnStretch {
  std::string path;  // the source's file
  Region region;
};

/// Draws sequences. sample() is a pure function of (configuration, seed, index, length): a resumed run needs
/// only the next index, and several workers may draw interleaved indices. Safe to call from several threads.
///
/// A source is drawn by weight; in a FASTA source each allowed window of the length is equally likely, in a
/// JSONL source a record is drawn in proportion to its length. Windows cross neither record nor region nor
/// excluded stretch. A JSONL record shorter than the length is returned whole, at its own length. A token
/// store is drawn from as what it was packed from: the samples are the same.
///
/// Throws DataError: unreadable or unsound files, unknown records, letters that are no nucleotides, no window
/// of the length, only windows with more than max_n_fraction letters other than ACGT (after 1000 draws).
/// ConfigError: settings that SamplerConfig::validate() refuses.
class SequenceSampler {
 public:
  SequenceSampler(SamplerConfig config, uint64_t seed);
  /// Draws from the files that `opened` holds open, as the sampler of (config, seed) does. InternalError
  /// unless `config` names the same sources and exclusions.
  SequenceSampler(const SequenceSampler& opened, SamplerConfig config, uint64_t seed);
  ~SequenceSampler();
  SequenceSampler(SequenceSampler&&) noexcept;

  Sample sample(uint64_t index, int64_t length) const;
  /// Sample `index` of pass after pass over everything, in each of which every window comes once: stretches
  /// cut one after the other into windows of `length`, in a random order. What is shorter than that at the
  /// end of a region is left out, of a document it is a sample. Weights of sources have no effect. The first
  /// call reads all letters. DataError as above, and where there is no window.
  Sample pass_sample(uint64_t index, int64_t length) const;
  /// Samples of a pass.
  int64_t pass_size(int64_t length) const;
  /// Bases that may be drawn, over all sources.
  int64_t num_bases() const;
  /// Whether no draw reads a file.
  bool in_memory() const;
  /// Everything that may be drawn, excluded stretches left out.
  std::vector<DrawnStretch> stretches() const;
  /// Letters as in the file of bases [begin, end) of the record of stretches()[index], which holds them.
  std::string letters(std::size_t index, int64_t begin, int64_t end) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace focus::data
