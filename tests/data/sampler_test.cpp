#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "files.h"
#include "focus/data/letters.h"
#include "focus/data/sampler.h"

namespace focus::data {
namespace {

bool same(const Sample& a, const Sample& b) {
  return a.letters == b.letters && a.weights == b.weights && a.copy_offset == b.copy_offset &&
         a.copy_source == b.copy_source && a.name == b.name && a.begin == b.begin && a.reverse == b.reverse;
}

SamplerConfig one_fasta(const std::string& path) {
  SamplerConfig config;
  config.sources.resize(1);
  config.sources[0].fasta = path;
  return config;
}

class Sampling : public ::testing::Test {
 protected:
  Folder folder_;
  std::string a_ = letters(20000, 1), b_ = letters(5000, 2, "ACGTacgt");
  std::string path_ = folder_.bgzip(
      "x.fa.gz", fasta_record("a", a_) + fasta_record("b", b_) + fasta_record("tiny", letters(50, 3)));
};

TEST_F(Sampling, IsAPureFunctionOfSeedIndexAndLength) {
  SamplerConfig config = one_fasta(path_);
  config.reverse_complement = 0.5;
  config.copies.probability = 0.5;
  const SequenceSampler first(config, 7), second(config, 7), other(config, 8);
  std::vector<Sample> kept;
  for (uint64_t i = 0; i < 50; ++i) kept.push_back(first.sample(i, 512));
  for (uint64_t i = 50; i-- > 0;) {
    second.sample(i, 300);
    EXPECT_TRUE(same(second.sample(i, 512), kept[i])) << i;
  }
  int equal = 0;
  for (uint64_t i = 0; i < 50; ++i) equal += same(other.sample(i, 512), kept[i]);
  EXPECT_EQ(equal, 0);
  config.memory_mb = 0;
  const SequenceSampler from_file(config, 7);
  EXPECT_TRUE(first.in_memory());
  EXPECT_FALSE(from_file.in_memory());
  for (uint64_t i = 0; i < 50; ++i) EXPECT_TRUE(same(from_file.sample(i, 512), kept[i])) << i;
}

TEST_F(Sampling, APassTakesEveryWindowOnce) {
  SamplerConfig config = one_fasta(path_);
  config.max_n_fraction = 0;
  config.reverse_complement = 0.5;
  const std::string gap = letters(2000, 4) + std::string(300, 'N') + letters(1700, 5);
  folder_.text("gap.fa", fasta_record("gap", gap));
  folder_.text("d.jsonl", "{\"text\": \"" + letters(1300, 6) + "\"}\n{\"text\": \"ACGTACGTA\"}\n");
  config.sources.resize(3);
  config.sources[1].fasta = folder_ / "gap.fa";
  config.sources[2].jsonl = folder_ / "d.jsonl";
  const SequenceSampler sampler(config, 7), other(config, 8);
  // a 40, b 10 of 500 bases; gap 8 without the one or two that hold N; documents 500, 500, 300 and 9.
  const auto size = static_cast<uint64_t>(sampler.pass_size(500));
  EXPECT_EQ(size, 40u + 10u + 7u + 4u);
  std::vector<std::string> orders;
  for (uint64_t pass = 0; pass < 2; ++pass) {
    std::map<std::string, std::set<int64_t>> begins;
    std::string order;
    int64_t bases = 0, reversed = 0;
    for (uint64_t i = pass * size; i < (pass + 1) * size; ++i) {
      const Sample sample = sampler.pass_sample(i, 500);
      EXPECT_TRUE(begins[sample.name].insert(sample.begin).second) << sample.name << " " << sample.begin;
      EXPECT_EQ(sample.begin % 500, 0);
      bases += static_cast<int64_t>(sample.letters.size());
      reversed += sample.reverse ? 1 : 0;
      order += sample.name + std::to_string(sample.begin) + " ";
      EXPECT_TRUE(same(sample, sampler.pass_sample(i, 500)));
    }
    EXPECT_EQ(bases, 20000 + 5000 + 3500 + 1309);
    EXPECT_EQ(begins["a"].size(), 40u);
    EXPECT_EQ(begins["gap"].count(2000), 0u);
    EXPECT_GT(reversed, 10);
    orders.push_back(order);
  }
  EXPECT_NE(orders[0], orders[1]);
  const Sample first = sampler.pass_sample(0, 500);
  EXPECT_FALSE(same(first, other.pass_sample(0, 500)) &&
               same(sampler.pass_sample(1, 500), other.pass_sample(1, 500)));
  // Without files in memory, and after another length, the same.
  config.memory_mb = 1;
  const SequenceSampler again(config, 7);
  again.pass_size(100);
  for (uint64_t i = 0; i < size; i += 7)
    EXPECT_TRUE(same(again.pass_sample(i, 500), sampler.pass_sample(i, 500))) << i;
}

TEST_F(Sampling, APassWithoutAWindowSaysWhy) {
  SamplerConfig config = one_fasta(path_);
  const SequenceSampler sampler(config, 7);
  try {
    sampler.pass_size(30000);
    FAIL() << "no error";
  } catch (const DataError& error) {
    EXPECT_NE(std::string(error.what()).find("no window of 30000 bases"), std::string::npos) << error.what();
  }
}

TEST_F(Sampling, OpenedFilesServeOtherSettings) {
  SamplerConfig config = one_fasta(path_);
  const SequenceSampler opened(config, 7);
  config.copies.probability = 1;
  config.natural_weight = 0.5;
  const SequenceSampler shared(opened, config, 8), alone(config, 8);
  for (uint64_t i = 0; i < 50; ++i) EXPECT_TRUE(same(shared.sample(i, 512), alone.sample(i, 512))) << i;
  config.exclude = {"a:1-10"};
  EXPECT_THROW(SequenceSampler(opened, config, 8), InternalError);
}

TEST_F(Sampling, ReturnsTheBasesItNamesWithTheirWeights) {
  SamplerConfig config = one_fasta(path_);
  config.reverse_complement = 0.5;
  config.natural_weight = 0.5;
  const SequenceSampler sampler(config, 1);
  EXPECT_EQ(sampler.num_bases(), 25050);
  int reversed = 0;
  for (uint64_t i = 0; i < 400; ++i) {
    const Sample sample = sampler.sample(i, 200);
    std::string expected = (sample.name == "a" ? a_ : b_).substr(static_cast<std::size_t>(sample.begin), 200);
    ASSERT_EQ(expected.size(), 200U);
    if (sample.reverse) expected = reverse_complement(expected);
    reversed += sample.reverse;
    EXPECT_EQ(sample.letters, clean(expected));
    std::vector<float> weights = loss_weights(expected);
    for (float& w : weights) w *= 0.5F;
    weights[0] = 0;
    EXPECT_EQ(sample.weights, weights);
    EXPECT_EQ(sample.copy_offset, std::vector<int32_t>(200, -1));
    EXPECT_EQ(sample.copy_source, std::vector<int32_t>(200, -1));
  }
  EXPECT_NEAR(reversed, 200, 50);
}

TEST_F(Sampling, IsUniformOverAllowedWindows) {
  SamplerConfig config = one_fasta(path_);
  config.sources[0].regions = {"a:1-110", "a:1001-1120"};
  const SequenceSampler sampler(config, 3);
  std::map<int64_t, int> counts;
  const int draws = 32000;
  for (int i = 0; i < draws; ++i) ++counts[sampler.sample(static_cast<uint64_t>(i), 100).begin];
  ASSERT_EQ(counts.size(), 32U);  // 11 + 21 windows
  for (const auto& [begin, count] : counts) {
    EXPECT_TRUE((begin >= 0 && begin <= 10) || (begin >= 1000 && begin <= 1020)) << begin;
    EXPECT_NEAR(count, 1000, 160) << begin;
  }
}

TEST_F(Sampling, NeverTouchesExcludedRegions) {
  SamplerConfig config = one_fasta(path_);
  config.exclude = {"a:5001-15000", folder_.text("held.bed", "b\t0\t4000\n")};
  const SequenceSampler sampler(config, 3);
  EXPECT_EQ(sampler.num_bases(), 11050);
  std::set<std::string> names;
  for (uint64_t i = 0; i < 500; ++i) {
    const Sample sample = sampler.sample(i, 300);
    names.insert(sample.name);
    if (sample.name == "a") {
      EXPECT_TRUE(sample.begin + 300 <= 5000 || sample.begin >= 15000);
    } else {
      EXPECT_GE(sample.begin, 4000);
    }
  }
  EXPECT_EQ(names.size(), 2U);
  config.exclude = {"c:1-9"};
  EXPECT_MESSAGE(SequenceSampler(config, 1), "excluded region 'c:1-9' fits no source");
  config.exclude = {folder_.text("slip.bed", "b\t0\t4000\nbb\t0\t1\n")};
  EXPECT_MESSAGE(SequenceSampler(config, 1), "bb:1-1");
  config.exclude = {"a", "b", "tiny"};
  EXPECT_MESSAGE(SequenceSampler(config, 1), "excluded regions cover all of it");
}

TEST_F(Sampling, RedrawsWindowsWithTooManyN) {
  const std::string sequence = letters(1000, 4) + std::string(3000, 'N') + letters(1000, 5);
  const std::string path = folder_.text("n.fa", fasta_record("n", sequence));
  const SequenceSampler sampler(one_fasta(path), 3);
  bool any = false;
  for (uint64_t i = 0; i < 300; ++i) {
    const Sample sample = sampler.sample(i, 200);
    const SequenceCounts counts = count_letters(text_of(sample.letters));
    EXPECT_LE(counts.n, 10);
    any = any || counts.n > 0;
    for (std::size_t t = 0; t < 200; ++t)
      EXPECT_EQ(sample.weights[t] == 0, t == 0 || sample.letters[t] == 'N');
  }
  EXPECT_TRUE(any);
  SamplerConfig all_n = one_fasta(path);
  all_n.sources[0].regions = {"n:1001-4000"};
  const SequenceSampler none(all_n, 1);
  EXPECT_MESSAGE(none.sample(5, 200), "sample 5: 1000 windows of 200 bases");
}

TEST_F(Sampling, MixesSourcesByWeightAndReadsJsonl) {
  SamplerConfig config = one_fasta(path_);
  config.sources.resize(2);
  config.sources[0].weight = 3;
  const std::string jsonl_long = letters(900, 6), jsonl_short = letters(100, 7);
  config.sources[1].jsonl =
      folder_.gzip("x.jsonl.gz", "{\"text\": \"" + jsonl_long + "\", \"id\": \"long\"}\n{\"text\": \"" +
                                     jsonl_short + "\", \"id\": \"short\"}\n");
  const SequenceSampler sampler(config, 3);
  std::map<std::string, int> counts;
  for (uint64_t i = 0; i < 8000; ++i) {
    const Sample sample = sampler.sample(i, 256);
    ++counts[sample.name];
    if (sample.name == "short") {
      EXPECT_EQ(text_of(sample.letters), jsonl_short);
    } else if (sample.name == "long") {
      EXPECT_EQ(text_of(sample.letters), jsonl_long.substr(static_cast<std::size_t>(sample.begin), 256));
    }
  }
  EXPECT_NEAR(counts["long"] + counts["short"], 2000, 200);
  EXPECT_NEAR(counts["short"], 200, 60);
}

TEST_F(Sampling, RefusesBadSettingsAndLengths) {
  const auto message = [](const SamplerConfig& config) {
    return message_of<ConfigError>([&] { SequenceSampler(config, 1); });
  };
  EXPECT_THAT_CONTAINS(message(SamplerConfig{}), "no file to draw from");
  SamplerConfig config = one_fasta(path_);
  config.sources[0].jsonl = "x";
  EXPECT_THAT_CONTAINS(message(config), "exactly one of fasta, jsonl and hdf5");
  config.sources[0] = {"", {"a"}, "x", "", 1};
  EXPECT_THAT_CONTAINS(message(config), "no effect");
  config = one_fasta(path_);
  config.sources[0].weight = 0;
  EXPECT_THAT_CONTAINS(message(config), "weight must be greater");
  const SequenceSampler sampler(one_fasta(path_), 1);
  EXPECT_MESSAGE(sampler.sample(0, 30000), "the longest has 20000");
  SamplerConfig jsonl;
  jsonl.sources.resize(1);
  jsonl.sources[0].jsonl = folder_.text("bad.jsonl", "{\"text\": \"ACGT\"}\n{\"text\": \"AC GT\"}\n");
  EXPECT_MESSAGE(SequenceSampler(jsonl, 1), "position 3 of 'line-2 (line 2 of");
  EXPECT_MESSAGE(SequenceSampler(one_fasta(folder_.text("star.fa", ">s\nACGT*CGT\n")), 1),
                 "position 5 of record 's' holds '*'");
}

TEST_F(Sampling, ReadsItsSettingsFromJson) {
  SamplerConfig config;
  config::read_text(
      R"({"sources": [{"fasta": "x.fa", "regions": ["a:1-9"]}, {"jsonl": "y.jsonl", "weight": 2}], "copies": {"probability": 0.6}})",
      "test", {"max_n_fraction=0.2"}, config);
  ASSERT_EQ(config.sources.size(), 2U);
  EXPECT_EQ(config.sources[0].regions, std::vector<std::string>{"a:1-9"});
  EXPECT_EQ(config.sources[1].weight, 2);
  EXPECT_EQ(config.copies.probability, 0.6);
  EXPECT_EQ(config.max_n_fraction, 0.2);
}

TEST_F(Sampling, PlantsCopiesThatCanBeTraced) {
  SamplerConfig config = one_fasta(path_);
  config.sources[0].regions = {"a"};
  config.copies.probability = 1;
  config.copies.max_substitution = 0;
  config.copies.reverse_complement_fraction = 0.5;
  config.natural_weight = 0.25;
  config.copy_weight = 2;
  const SequenceSampler sampler(config, 3);
  config.copies.probability = 0;
  const SequenceSampler natural(config, 3);
  int far = 0, opposite = 0, copies = 0;
  const int draws = 200;
  for (uint64_t i = 0; i < draws; ++i) {
    const Sample sample = sampler.sample(i, 4096), plain = natural.sample(i, 4096);
    EXPECT_EQ(sample.begin, plain.begin);
    bool all_far = true, any = false;
    for (std::size_t t = 0; t < 4096; ++t) {
      const int32_t offset = sample.copy_offset[t], source = sample.copy_source[t];
      EXPECT_EQ(offset < 0, source < 0);
      if (offset < 0) {
        EXPECT_EQ(sample.letters[t], plain.letters[t]);
        EXPECT_EQ(sample.weights[t], t == 0 ? 0 : 0.25F);
        continue;
      }
      any = true;
      EXPECT_LT(source, static_cast<int32_t>(t));
      EXPECT_EQ(sample.weights[t], offset < 8 ? 0.25F : 2.0F);
      if (offset == 1) {
        const bool flipped = source == sample.copy_source[t - 1] - 1;
        EXPECT_TRUE(flipped || source == sample.copy_source[t - 1] + 1);
        opposite += flipped;
        ++copies;
      }
      const bool flipped =
          offset > 0 ? source < sample.copy_source[t - 1] : source > sample.copy_source[t + 1];
      const uint8_t letter = sample.letters[static_cast<std::size_t>(source)];
      ASSERT_EQ(sample.letters[t], flipped ? complement(letter) : letter) << i << " " << t;
      if (offset == 0 && static_cast<int64_t>(t) - (flipped ? source - 799 : source) < 1100) all_far = false;
    }
    EXPECT_TRUE(any);
    far += all_far;
  }
  EXPECT_GT(copies, draws);
  EXPECT_NEAR(opposite, copies / 2, copies / 8);
  EXPECT_GT(far, draws * 0.5);
}

TEST_F(Sampling, CopyLengthsAndSubstitutionsFollowTheSettings) {
  SamplerConfig config = one_fasta(path_);
  config.copies = {.probability = 1,
                   .min_count = 1,
                   .max_count = 1,
                   .min_length = 100,
                   .max_length = 200,
                   .far_fraction = 1,
                   .min_far_distance = 500,
                   .max_substitution = 0.2};
  const SequenceSampler sampler(config, 3);
  double rate_sum = 0;
  for (uint64_t i = 0; i < 300; ++i) {
    const Sample sample = sampler.sample(i, 1024);
    const int32_t size = *std::max_element(sample.copy_offset.begin(), sample.copy_offset.end()) + 1;
    ASSERT_GE(size, 100);
    ASSERT_LE(size, 200);
    int changed = 0;
    for (std::size_t t = 0; t < 1024; ++t) {
      if (sample.copy_offset[t] < 0) continue;
      EXPECT_GE(static_cast<int64_t>(t) - sample.copy_source[t], 500);
      changed += sample.letters[t] != sample.letters[static_cast<std::size_t>(sample.copy_source[t])];
    }
    rate_sum += static_cast<double>(changed) / size;
  }
  EXPECT_NEAR(rate_sum / 300, 0.075,
              0.012);  // mean rate 0.1, a quarter of the drawn letters equal the old one
  const Sample small = sampler.sample(0, 8);  // too short for a far copy of the wanted size: cut to fit
  EXPECT_EQ(small.letters.size(), 8U);
}

TEST(SamplerFiles, LongRegionsAreQuickToDrawFrom) {
  const Folder folder;
  const std::string path = folder.bgzip("x.fa.gz", fasta_record("a", letters(2000000, 1)));
  SamplerConfig config;
  config.sources.resize(1);
  config.sources[0].fasta = path;
  for (const int64_t memory : {0, 512}) {
    config.memory_mb = memory;
    const SequenceSampler sampler(config, 1);
    for (uint64_t i = 0; i < 100; ++i) ASSERT_EQ(sampler.sample(i, 16384).letters.size(), 16384U);
  }
}

}  // namespace
}  // namespace focus::data
