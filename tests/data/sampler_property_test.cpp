// What holds for every sample of any configuration, over random small files.
#include <algorithm>
#include <map>

#include "files.h"
#include "focus/core/random.h"
#include "focus/data/letters.h"
#include "focus/data/pack.h"
#include "focus/data/sampler.h"

namespace focus::data {
namespace {

struct Genome {
  std::vector<std::string> names;
  std::map<std::string, std::string> records;
  std::string fasta;
};

Genome random_genome(Random& random) {
  Genome genome;
  const int64_t count = random.uniform_integer(1, 6);
  const auto width = static_cast<std::size_t>(random.uniform_integer(1, 90));
  for (int64_t r = 0; r < count; ++r) {
    const std::string name = concat("r", r, random.uniform() < 0.3 ? ":1-5" : "");
    std::string bases = letters(random.uniform_integer(1, 2500), random.next(),
                                random.uniform() < 0.5 ? "ACGT" : "ACGTacgtACGTacgtnR");
    for (int64_t gaps = random.uniform_integer(4); gaps > 0; --gaps) {
      const auto begin = static_cast<std::size_t>(random.uniform_integer(static_cast<int64_t>(bases.size())));
      const auto end =
          std::min(bases.size(), begin + static_cast<std::size_t>(random.uniform_integer(1, 200)));
      std::fill(bases.begin() + static_cast<std::ptrdiff_t>(begin),
                bases.begin() + static_cast<std::ptrdiff_t>(end), 'N');
    }
    genome.names.push_back(name);
    genome.records[name] = bases;
    genome.fasta += fasta_record(name, bases, width);
  }
  return genome;
}

Region random_region(Random& random, const Genome& genome) {
  const std::string& name =
      genome
          .names[static_cast<std::size_t>(random.uniform_integer(static_cast<int64_t>(genome.names.size())))];
  const auto length = static_cast<int64_t>(genome.records.at(name).size());
  const int64_t begin = random.uniform_integer(length);
  return {name, begin, random.uniform_integer(begin + 1, length)};
}

std::string bed_line(const Region& region) {
  return concat(region.name, '\t', region.begin, '\t', region.end, '\n');
}

struct Case {
  Genome genome;
  SamplerConfig config;
  std::vector<Region> wanted, excluded;
};

Case random_case(Random& random, const Folder& folder) {
  Case made{random_genome(random), {}, {}, {}};
  SamplerConfig& config = made.config;
  config.sources.resize(1);
  SourceConfig& source = config.sources[0];
  // Of a source, by kind: plain, BGZF, gzip, token store.
  std::filesystem::remove(folder / "g.fa.fai");
  std::filesystem::remove(folder / "g.fa.gz.fai");
  std::filesystem::remove(folder / "g.fa.gz.gzi");
  switch (random.uniform_integer(4)) {
    case 0:
      source.fasta = folder.text("g.fa", made.genome.fasta);
      break;
    case 1:
      source.fasta = folder.bgzip("g.fa.gz", made.genome.fasta);
      break;
    case 2:
      source.fasta = folder.gzip("g.fa.z", made.genome.fasta);
      break;
    default:
      source.hdf5 = folder / "g.h5";
      pack({{folder.gzip("g.fa.z", made.genome.fasta), false, {}}}, {}, source.hdf5);
  }
  const auto regions = [&](std::vector<Region>& list, std::vector<std::string>& texts,
                           const std::string& bed) {
    std::string lines;
    for (int64_t n = random.uniform_integer(1, 4); n > 0; --n) {
      list.push_back(random_region(random, made.genome));
      if (random.uniform() < 0.5) {
        texts.push_back(format_region(list.back()));
      } else {
        lines += bed_line(list.back());
      }
    }
    if (!lines.empty()) texts.push_back(folder.text(bed, lines));
  };
  if (random.uniform() < 0.5) {
    regions(made.wanted, source.regions, "wanted.bed");
  } else {
    for (const auto& [name, bases] : made.genome.records)
      made.wanted.push_back({name, 0, static_cast<int64_t>(bases.size())});
  }
  if (random.uniform() < 0.5) regions(made.excluded, config.exclude, "excluded.bed");
  config.memory_mb = random.uniform() < 0.5 || !source.fasta.ends_with(".z") ? 512 : 1;
  if (random.uniform() < 0.5 && !source.fasta.ends_with(".z")) config.memory_mb = 0;
  config.max_n_fraction = random.uniform();
  config.reverse_complement = random.uniform();
  config.lowercase_weight = random.uniform();
  config.natural_weight = random.uniform() * 2;
  return made;
}

void check(const Case& given, const Sample& sample, int64_t length) {
  const SamplerConfig& config = given.config;
  ASSERT_EQ(static_cast<int64_t>(sample.letters.size()), length);
  ASSERT_EQ(given.genome.records.count(sample.name), 1U);
  const std::string& record = given.genome.records.at(sample.name);
  ASSERT_GE(sample.begin, 0);
  ASSERT_LE(sample.begin + length, static_cast<int64_t>(record.size()));
  // Within one of the regions as given, and clear of everything excluded.
  EXPECT_TRUE(std::any_of(given.wanted.begin(), given.wanted.end(), [&](const Region& region) {
    return region.name == sample.name && region.begin <= sample.begin && sample.begin + length <= region.end;
  }));
  for (const Region& region : given.excluded)
    EXPECT_FALSE(region.name == sample.name && region.begin < sample.begin + length &&
                 sample.begin < region.end);
  // The file's letters, or their reverse complement; the weights follow the letters.
  std::string expected =
      record.substr(static_cast<std::size_t>(sample.begin), static_cast<std::size_t>(length));
  if (sample.reverse) expected = reverse_complement(expected);
  int64_t ambiguous = 0;
  for (std::size_t t = 0; t < expected.size(); ++t) {
    const char letter = expected[t], upper = static_cast<char>(letter & 0xDF);
    const bool base = std::string("ACGT").find(upper) != std::string::npos;
    ambiguous += base ? 0 : 1;
    ASSERT_EQ(sample.letters[t], static_cast<uint8_t>(upper));
    const double weight =
        t == 0 || !base ? 0 : config.natural_weight * (letter == upper ? 1 : config.lowercase_weight);
    ASSERT_NEAR(sample.weights[t], weight, 1e-6) << t;
    ASSERT_EQ(sample.copy_offset[t], -1);
    ASSERT_EQ(sample.copy_source[t], -1);
  }
  EXPECT_LE(static_cast<double>(ambiguous), config.max_n_fraction * static_cast<double>(length));
}

TEST(SamplerProperty, SamplesAreSlicesOfTheirSourceInsideRegionsAndOutsideExclusions) {
  const Folder folder;
  int64_t drawn = 0, refused = 0, reversed = 0;
  for (uint64_t seed = 0; seed < 300; ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed);
    const Case given = random_case(random, folder);
    const int64_t length = random.uniform_integer(2, 300);
    try {
      const SequenceSampler sampler(given.config, seed);
      for (uint64_t i = 0; i < 20; ++i) {
        const Sample sample = sampler.sample(i, length);
        check(given, sample, length);
        if (::testing::Test::HasFatalFailure()) return;
        ++drawn;
        reversed += sample.reverse;
      }
    } catch (const DataError& error) {
      // Nothing left, nothing long enough, or nothing with few enough N: said, not drawn.
      const std::string message = error.what();
      EXPECT_TRUE(message.find("cover all of it") != std::string::npos ||
                  message.find("has no stretch of") != std::string::npos ||
                  message.find("windows of") != std::string::npos)
          << message;
      ++refused;
    }
  }
  EXPECT_GT(drawn, 3000);
  EXPECT_GT(refused, 0);
  EXPECT_NEAR(static_cast<double>(reversed) / static_cast<double>(drawn), 0.5, 0.1);
}

TEST(SamplerProperty, EveryAllowedWindowCanBeDrawnAndNoOther) {
  const Folder folder;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed);
    const std::string bases = letters(60, seed + 1);
    SamplerConfig config;
    config.sources.resize(1);
    config.sources[0].fasta = folder.text(concat("w", seed, ".fa"),
                                          fasta_record("w", bases) + fasta_record("v", bases.substr(0, 20)));
    const int64_t hole = random.uniform_integer(0, 59), length = random.uniform_integer(2, 10);
    config.exclude = {concat("w:", hole + 1, "-", hole + 1)};
    const SequenceSampler sampler(config, seed);
    std::map<std::pair<std::string, int64_t>, int> counts;
    for (uint64_t i = 0; i < 6000; ++i) {
      const Sample sample = sampler.sample(i, length);
      ++counts[{sample.name, sample.begin}];
    }
    std::size_t allowed = static_cast<std::size_t>(20 - length + 1);
    for (int64_t begin = 0; begin + length <= 60; ++begin)
      allowed += begin + length <= hole || begin > hole ? 1 : 0;
    EXPECT_EQ(counts.size(), allowed);
    for (const auto& [window, count] : counts)
      EXPECT_NEAR(count, 6000.0 / static_cast<double>(allowed), 65) << window.second;
  }
}

TEST(SamplerProperty, PlainGzipIsHeldInMemoryUpToItsLimit) {
  const Folder folder;
  const std::string text =
      fasta_record("a", letters(1'500'000, 1)) + fasta_record("b", letters(1'000'000, 2));
  SamplerConfig config;
  config.sources.resize(1);
  config.sources[0].fasta = folder.gzip("g.fa.gz", text);
  config.memory_mb = 3;
  const SequenceSampler held(config, 5);
  EXPECT_TRUE(held.in_memory());
  SamplerConfig indexed = config;
  indexed.sources[0].fasta = folder.text("g.fa", text);
  const SequenceSampler plain(indexed, 5);
  for (uint64_t i = 0; i < 100; ++i) EXPECT_EQ(held.sample(i, 1000).letters, plain.sample(i, 1000).letters);
  config.memory_mb = 2;
  EXPECT_MESSAGE(SequenceSampler(config, 5), "raise memory_mb, pack it with: focus-train pack --fasta");
  // What gzip takes is no longer there for others: the second source is read piece by piece.
  config.memory_mb = 4;
  config.sources.push_back(indexed.sources[0]);
  EXPECT_FALSE(SequenceSampler(config, 5).in_memory());
}

TEST(SamplerProperty, ManyRegionsAndExclusionsAreQuick) {
  const Folder folder;
  SamplerConfig config;
  config.sources.resize(1);
  config.sources[0].fasta = folder.text("g.fa", fasta_record("a", letters(2'000'000, 1)));
  std::string wanted, excluded;
  for (int64_t i = 0; i < 100'000; ++i) {
    wanted += concat("a\t", 20 * i, "\t", 20 * i + 15, "\n");
    excluded += concat("a\t", 20 * i + 10, "\t", 20 * i + 18, "\n");
  }
  config.sources[0].regions = {folder.text("wanted.bed", wanted)};
  config.exclude = {folder.text("excluded.bed", excluded)};
  const SequenceSampler sampler(config, 1);
  EXPECT_EQ(sampler.num_bases(), 1'000'000);
  for (uint64_t i = 0; i < 20'000; ++i) EXPECT_LE(sampler.sample(i, 5).begin % 20, 5);
}

}  // namespace
}  // namespace focus::data
