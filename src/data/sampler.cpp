#include "focus/data/sampler.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>

#include "copies.h"
#include "focus/core/error.h"
#include "focus/core/random.h"
#include "focus/data/fasta.h"
#include "focus/data/jsonl.h"
#include "focus/data/region.h"
#include "focus/data/tokenizer.h"

namespace focus::data {
namespace {

constexpr int kMaxDraws = 1000;

// A stretch that windows may be drawn from: a FASTA region or a JSONL record.
struct Stretch {
  Region region;
  std::string letters;  // empty when the bases stay in the file
};

struct Source {
  std::string path;
  std::optional<FastaFile> fasta;  // none: JSONL
  std::vector<Stretch> stretches;
  double weight = 1.0;

  // Drawing weight of a stretch: windows of the length (FASTA), bases (JSONL).
  int64_t share(const Stretch& stretch, int64_t length) const {
    return fasta ? std::max<int64_t>(0, stretch.region.length() - length + 1) : stretch.region.length();
  }
};

bool is_bed(const std::string& text) { return text.ends_with(".bed") || text.ends_with(".bed.gz"); }

// The excluded stretches of each source; a text that fits no source at all is an error, as a held-out set must not be lost to a typing
// slip.
std::vector<std::vector<Region>> resolve_exclusions(const std::vector<std::string>& texts, const std::vector<Source>& sources) {
  std::vector<std::vector<Region>> result(sources.size());
  for (const std::string& text : texts) {
    const std::vector<Region> bed = is_bed(text) ? read_bed(text) : std::vector<Region>{};
    std::vector<bool> used(std::max<std::size_t>(1, bed.size()), false);
    std::string reason = "no source is a FASTA file";
    for (std::size_t s = 0; s < sources.size(); ++s) {
      if (!sources[s].fasta) continue;
      const FastaFile& fasta = *sources[s].fasta;
      if (bed.empty()) {
        try {
          result[s].push_back(parse_region(text, fasta));
          used[0] = true;
        } catch (const DataError& error) {
          reason = error.what();
        }
        continue;
      }
      for (std::size_t i = 0; i < bed.size(); ++i) {
        if (!fasta.contains(bed[i].name)) continue;
        result[s].push_back(bed[i]);
        used[i] = true;
      }
    }
    const auto unused = std::find(used.begin(), used.end(), false);
    if (unused == used.end()) continue;
    if (bed.empty()) fail<DataError>("excluded region '", text, "' fits no source: ", reason);
    fail<DataError>("excluded region ", format_region(bed[static_cast<std::size_t>(unused - used.begin())]), " of '", text,
                    "': no source holds that record");
  }
  return result;
}

}  // namespace

void SourceConfig::visit(config::Fields& f) {
  f.text("fasta", fasta, "FASTA file, plain or BGZF, indexed on first use");
  f.texts("regions", regions, "regions (name, name:start-end, 1-based inclusive) or .bed files to draw from; empty: every record of fasta");
  f.text("jsonl", jsonl, "JSONL file with \"text\" lines, plain or gzip, instead of fasta");
  f.number("weight", weight, {0.0, 1e9}, "share of the samples, relative to the other sources");
}

void CopyConfig::visit(config::Fields& f) {
  f.number("probability", probability, {0.0, 1.0}, "share of the sequences that get planted copies");
  f.integer("min_count", min_count, {1, 1000}, "fewest copies in such a sequence");
  f.integer("max_count", max_count, {1, 1000}, "most copies in such a sequence");
  f.integer("min_length", min_length, {1, 1 << 24}, "bases of the shortest copy");
  f.integer("max_length", max_length, {1, 1 << 24}, "bases of the longest copy");
  f.number("far_fraction", far_fraction, {0.0, 1.0}, "share of the sequences with copies whose copies are all far");
  f.integer("min_far_distance", min_far_distance, {1, int64_t{1} << 30}, "least distance in bases of a far copy from its source");
  f.number("max_substitution", max_substitution, {0.0, 1.0}, "each copy draws its substitution rate from 0 to this");
  f.number("reverse_complement_fraction", reverse_complement_fraction, {0.0, 1.0}, "share of the copies on the opposite strand");
}

void SamplerConfig::visit(config::Fields& f) {
  f.list("sources", sources, "files to draw from");
  f.texts("exclude", exclude, "regions or .bed files of the FASTA sources never to draw from");
  f.number("max_n_fraction", max_n_fraction, {0.0, 1.0}, "largest share of letters other than A, C, G, T in a sequence");
  f.number("reverse_complement", reverse_complement, {0.0, 1.0}, "share of the sequences read on the opposite strand");
  f.number("lowercase_weight", lowercase_weight, {0.0, 1.0}, "loss weight of lowercase (soft-masked) bases");
  f.number("natural_weight", natural_weight, {0.0, 1e6}, "factor on the loss weight outside planted copies");
  f.number("copy_weight", copy_weight, {0.0, 1e6}, "loss weight inside planted copies");
  f.integer("copy_warmup", copy_warmup, {0, 1 << 20}, "first bases of a copy that are weighted as outside");
  f.integer("memory_mb", memory_mb, {0, 1 << 30},
            "FASTA regions are held in memory up to this size together (MiB); also the limit for JSONL");
  f.group("copies", copies, "planted copies of segments further right");
}

struct SequenceSampler::Impl {
  SamplerConfig config;
  uint64_t seed = 0;
  std::vector<Source> sources;
  int64_t num_bases = 0;
  bool in_memory = false;

  void load_jsonl(Source& source, int64_t limit_bytes);
  void load_regions(int64_t limit_bytes);
  std::string letters(const Source& source, const Stretch& stretch, int64_t begin, int64_t length) const;
  std::string draw_window(Random& random, uint64_t index, int64_t length, Sample& sample) const;
};

void SequenceSampler::Impl::load_jsonl(Source& source, int64_t limit_bytes) {
  JsonlReader reader(source.path);
  JsonlRecord record;
  int64_t total = 0;
  while (reader.next(record)) {
    const auto length = static_cast<int64_t>(record.text.size());
    if (length < 2) fail<DataError>("line ", record.line, " of '", source.path, "' has one base; a training sequence needs two or more");
    encode(record.text, CasePolicy::upper, AmbiguousPolicy::mask, concat(record.name, " (line ", record.line, " of ", source.path, ")"));
    total += length;
    if (total > limit_bytes)
      fail<DataError>("'", source.path, "' holds more than ", limit_bytes >> 20,
                      " MiB of sequence; raise memory_mb, or turn it into FASTA packed with bgzip, which is read piece by piece");
    Stretch& stretch = source.stretches.emplace_back();
    stretch.region = Region{record.name, 0, length};
    stretch.letters = record.text;
  }
  if (source.stretches.empty()) fail<DataError>("'", source.path, "' holds no sequence");
}

void SequenceSampler::Impl::load_regions(int64_t limit_bytes) {
  const std::vector<std::vector<Region>> excluded = resolve_exclusions(config.exclude, sources);
  int64_t fasta_bases = 0;
  for (std::size_t s = 0; s < sources.size(); ++s) {
    Source& source = sources[s];
    if (source.fasta) {
      const FastaFile& fasta = *source.fasta;
      const std::vector<std::string>& texts = config.sources[s].regions;
      std::vector<Region> wanted = read_regions(texts, fasta);
      if (texts.empty()) {
        for (const std::string& name : fasta.names()) wanted.push_back({name, 0, fasta.length(name)});
      }
      for (Region& region : subtract_regions(wanted, excluded[s])) source.stretches.push_back({std::move(region), {}});
      if (source.stretches.empty())
        fail<DataError>("nothing of '", source.path, "' is left to draw from: the excluded regions cover all of it");
    }
    for (const Stretch& stretch : source.stretches) {
      num_bases += stretch.region.length();
      if (source.fasta) fasta_bases += stretch.region.length();
    }
  }
  in_memory = fasta_bases <= limit_bytes;
  if (!in_memory) return;
  for (Source& source : sources) {
    if (!source.fasta) continue;
    for (Stretch& stretch : source.stretches)
      stretch.letters = source.fasta->fetch(stretch.region.name, stretch.region.begin, stretch.region.end);
  }
}

std::string SequenceSampler::Impl::letters(const Source& source, const Stretch& stretch, int64_t begin, int64_t length) const {
  if (!stretch.letters.empty())
    return stretch.letters.substr(static_cast<std::size_t>(begin - stretch.region.begin), static_cast<std::size_t>(length));
  return source.fasta->fetch(stretch.region.name, begin, begin + length);
}

std::string SequenceSampler::Impl::draw_window(Random& random, uint64_t index, int64_t length, Sample& sample) const {
  std::vector<int64_t> totals;
  double weights = 0;
  for (const Source& source : sources) {
    int64_t total = 0;
    for (const Stretch& stretch : source.stretches) total += source.share(stretch, length);
    if (total == 0) {
      int64_t longest = 0;
      for (const Stretch& stretch : source.stretches) longest = std::max(longest, stretch.region.length());
      fail<DataError>("'", source.path, "' has no stretch of ", length, " bases to draw from (the longest has ", longest,
                      "); lower the training length, or widen its regions");
    }
    totals.push_back(total);
    weights += source.weight;
  }
  for (int draw = 0; draw < kMaxDraws; ++draw) {
    double point = random.uniform() * weights;
    std::size_t s = 0;
    while (s + 1 < sources.size() && point >= sources[s].weight) point -= sources[s++].weight;
    const Source& source = sources[s];
    int64_t place = random.uniform_integer(totals[s]);
    std::size_t i = 0;
    while (place >= source.share(source.stretches[i], length)) place -= source.share(source.stretches[i++], length);
    const Stretch& stretch = source.stretches[i];
    const int64_t size = std::min(length, stretch.region.length());
    if (!source.fasta) place = random.uniform_integer(stretch.region.length() - size + 1);
    std::string window = letters(source, stretch, stretch.region.begin + place, size);
    const SequenceCounts counts = count_letters(window);
    if (static_cast<double>(counts.n + counts.ambiguous) > config.max_n_fraction * static_cast<double>(size)) continue;
    sample.name = stretch.region.name;
    sample.begin = stretch.region.begin + place;
    encode(window, CasePolicy::upper, AmbiguousPolicy::mask, sample.name, sample.begin);  // refuses what is no nucleotide, naming the place
    return window;
  }
  fail<DataError>("sample ", index, ": ", kMaxDraws, " windows of ", length, " bases in a row had more than ", config.max_n_fraction,
                  " of letters other than A, C, G, T; raise max_n_fraction or choose regions without assembly gaps");
}

SequenceSampler::SequenceSampler(SamplerConfig config, uint64_t seed) : impl_(std::make_unique<Impl>()) {
  impl_->config = std::move(config);
  impl_->seed = seed;
  const SamplerConfig& settings = impl_->config;
  if (settings.sources.empty()) fail<ConfigError>("sources: no file to draw from; give at least one {\"fasta\": ...} or {\"jsonl\": ...}");
  if (settings.copies.max_count < settings.copies.min_count) fail<ConfigError>("copies.max_count is less than copies.min_count");
  if (settings.copies.max_length < settings.copies.min_length) fail<ConfigError>("copies.max_length is less than copies.min_length");
  const int64_t limit_bytes = settings.memory_mb << 20;
  for (std::size_t s = 0; s < settings.sources.size(); ++s) {
    const SourceConfig& given = settings.sources[s];
    if (given.fasta.empty() == given.jsonl.empty()) fail<ConfigError>("sources.", s, ": set exactly one of fasta and jsonl");
    if (!given.jsonl.empty() && !given.regions.empty()) fail<ConfigError>("sources.", s, ".regions has no effect on a jsonl source");
    Source source;
    source.path = given.fasta.empty() ? given.jsonl : given.fasta;
    source.weight = given.weight;
    if (!(given.weight > 0)) fail<ConfigError>("sources.", s, ".weight must be greater than 0; leave the source out to switch it off");
    if (given.jsonl.empty()) {
      source.fasta.emplace(given.fasta);
    } else {
      impl_->load_jsonl(source, limit_bytes);
    }
    impl_->sources.push_back(std::move(source));
  }
  impl_->load_regions(limit_bytes);
}

SequenceSampler::~SequenceSampler() = default;
SequenceSampler::SequenceSampler(SequenceSampler&&) noexcept = default;
int64_t SequenceSampler::num_bases() const { return impl_->num_bases; }
bool SequenceSampler::in_memory() const { return impl_->in_memory; }

std::vector<DrawnStretch> SequenceSampler::stretches() const {
  std::vector<DrawnStretch> out;
  for (const Source& source : impl_->sources) {
    for (const Stretch& stretch : source.stretches) out.push_back({source.path, stretch.region});
  }
  return out;
}

std::string SequenceSampler::letters(std::size_t index, int64_t begin, int64_t end) const {
  for (const Source& source : impl_->sources) {
    if (index < source.stretches.size()) return impl_->letters(source, source.stretches[index], begin, end - begin);
    index -= source.stretches.size();
  }
  fail<InternalError>("stretch ", index, " past the last one");
}

Sample SequenceSampler::sample(uint64_t index, int64_t length) const {
  FOCUS_CHECK(length >= 2 && length <= INT32_MAX, "length of a training sequence: ", length);
  const SamplerConfig& config = impl_->config;
  Random random(impl_->seed, index);
  Sample result;
  std::string letters = impl_->draw_window(random, index, length, result);
  result.reverse = random.uniform() < config.reverse_complement;
  if (result.reverse) letters = reverse_complement(letters);
  result.copy_offset.assign(letters.size(), -1);
  result.copy_source.assign(letters.size(), -1);
  if (random.uniform() < config.copies.probability) plant_copies(config.copies, random, letters, result.copy_offset, result.copy_source);
  result.letters = encode(letters);
  result.weights = loss_weights(letters, static_cast<float>(config.lowercase_weight));
  for (std::size_t t = 0; t < letters.size(); ++t) {
    // In a copy the case of the source says nothing about how predictable the base is: only letters other than ACGT stay masked.
    const bool in_copy = result.copy_offset[t] >= config.copy_warmup && result.copy_offset[t] >= 0;
    if (!in_copy) {
      result.weights[t] *= static_cast<float>(config.natural_weight);
    } else if (is_acgt(static_cast<uint8_t>(letters[t]))) {
      result.weights[t] = static_cast<float>(config.copy_weight);
    }
  }
  result.weights[0] = 0;
  return result;
}

}  // namespace focus::data
