#include "focus/core/error.h"
#include "focus/data/sampler.h"

namespace focus::data {

void SourceConfig::visit(config::Fields& f) {
  f.file(
      "fasta", fasta,
      "FASTA file, plain or BGZF, indexed on first use, or a folder of such files; plain gzip, and lines of "
      "unequal length, are held in memory");
  f.only(f.when(jsonl.empty(), "jsonl", "is empty"))
      .regions("regions", regions,
               "regions (name, name:start-end, 1-based inclusive) or .bed files to draw from; empty: every "
               "record");
  f.file(
      "jsonl", jsonl,
      "JSONL file with \"text\" lines, plain or gzip, or a folder of such files, instead of fasta; held in "
      "memory");
  f.file("hdf5", hdf5, "token store that focus-train pack wrote, instead of fasta");
  f.number("weight", weight, {0.0, 1e9}, "share of the samples, relative to the other sources");
}

void CopyConfig::visit(config::Fields& f) {
  f.number("probability", probability, {0.0, 1.0}, "share of the sequences that get planted copies");
  f.integer("min_count", min_count, {1, 1000}, "fewest copies in such a sequence");
  f.integer("max_count", max_count, {1, 1000}, "most copies in such a sequence");
  f.integer("min_length", min_length, {1, 1 << 24}, "bases of the shortest copy");
  f.integer("max_length", max_length, {1, 1 << 24}, "bases of the longest copy");
  f.number("far_fraction", far_fraction, {0.0, 1.0},
           "share of the sequences with copies whose copies are all far");
  f.integer("min_far_distance", min_far_distance, {1, int64_t{1} << 30},
            "least distance in bases of a far copy from its source");
  f.number("max_substitution", max_substitution, {0.0, 1.0},
           "each copy draws its substitution rate from 0 to this");
  f.number("reverse_complement_fraction", reverse_complement_fraction, {0.0, 1.0},
           "share of the copies on the opposite strand");
}

void SamplerConfig::visit(config::Fields& f) {
  f.list("sources", sources, "files to draw from");
  f.regions("exclude", exclude, "regions or .bed files of fasta and hdf5 sources never to draw from");
  f.boolean("allow_truncated", allow_truncated,
            "read what there is of a BGZF FASTA file that was cut short between two blocks");
  f.number("max_n_fraction", max_n_fraction, {0.0, 1.0},
           "largest share of letters other than A, C, G, T in a sequence");
  f.number("reverse_complement", reverse_complement, {0.0, 1.0},
           "share of the sequences read on the opposite strand");
  f.number("lowercase_weight", lowercase_weight, {0.0, 1.0}, "loss weight of lowercase (soft-masked) bases");
  f.number("natural_weight", natural_weight, {0.0, 1e6}, "factor on the loss weight outside planted copies");
  f.number("copy_weight", copy_weight, {0.0, 1e6}, "loss weight inside planted copies");
  f.integer("copy_warmup", copy_warmup, {0, 1 << 20}, "first bases of a copy that are weighted as outside");
  f.integer("memory_mb", memory_mb, {0, 1 << 30},
            "limit in MiB of the letters held in memory: all of jsonl and gzip, and regions of other files "
            "when all fit");
  f.group("copies", copies, "planted copies of segments further right");
}

void SamplerConfig::validate() const {
  if (sources.empty())
    fail<ConfigError>(
        "sources: no file to draw from; give at least one {\"fasta\": ...}, {\"jsonl\": ...} or {\"hdf5\": "
        "...}");
  for (std::size_t s = 0; s < sources.size(); ++s) {
    const SourceConfig& source = sources[s];
    if (static_cast<int>(source.fasta.empty()) + static_cast<int>(source.jsonl.empty()) +
            static_cast<int>(source.hdf5.empty()) !=
        2)
      fail<ConfigError>("sources.", s, ": set exactly one of fasta, jsonl and hdf5");
    config::refuse_idle(source, concat("sources.", s, "."));
    if (!(source.weight > 0))
      fail<ConfigError>("sources.", s,
                        ".weight must be greater than 0; leave the source out to switch it off");
  }
  if (copies.max_count < copies.min_count)
    fail<ConfigError>("copies.max_count is less than copies.min_count");
  if (copies.max_length < copies.min_length)
    fail<ConfigError>("copies.max_length is less than copies.min_length");
}

}  // namespace focus::data
