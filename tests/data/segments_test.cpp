#include <algorithm>
#include <map>
#include <set>

#include "files.h"
#include "focus/data/fasta.h"
#include "focus/data/letters.h"
#include "focus/data/open_sequences.h"
#include "focus/data/segments.h"

namespace focus::data {
namespace {

TEST(SampleSegments, DrawsWithoutOverlapFromEveryRegion) {
  const Folder folder;
  const std::string a = letters(20000, 1), b = letters(9000, 2);
  const auto fasta = open_fasta(
      folder.text("x.fa", fasta_record("a", a) + fasta_record("b", b) + fasta_record("small", "ACGT")));
  const SegmentSample sample = sample_segments(*fasta, {}, {.length = 500, .count = 18, .seed = 1});
  EXPECT_EQ(sample.segments.size(), 36U);
  EXPECT_EQ(sample.skipped_regions, 1);
  EXPECT_EQ(sample.skipped_n_rich, 0);
  EXPECT_EQ(sample.overlapping, 0);
  for (std::size_t i = 0; i < sample.segments.size(); ++i) {
    const SampledSegment& segment = sample.segments[i];
    EXPECT_EQ(segment.sequence,
              (segment.name == "a" ? a : b).substr(static_cast<std::size_t>(segment.begin), 500));
    const bool follows = i > 0 && sample.segments[i - 1].name == segment.name;
    EXPECT_TRUE(!follows || segment.begin >= sample.segments[i - 1].begin + 500);
  }
  EXPECT_EQ(sample.segments[18].begin, 0);  // b has room for exactly 18
  const SegmentSample only_a =
      sample_segments(*fasta, {{"a", 0, 20000}}, {.length = 500, .count = 18, .seed = 1});
  const SegmentSample other = sample_segments(*fasta, {}, {.length = 500, .count = 18, .seed = 2});
  EXPECT_EQ(only_a.segments[3].begin, sample.segments[3].begin);
  EXPECT_NE(other.segments[3].begin, sample.segments[3].begin);
}

TEST(SampleSegments, SkipsAndCountsNRichCandidates) {
  const Folder folder;
  const std::string sequence = letters(4000, 1) + std::string(4000, 'N') + letters(4000, 2);
  const auto fasta = open_fasta(
      folder.text("x.fa", fasta_record("a", sequence) + fasta_record("gap", std::string(3000, 'n'))));
  const SegmentSample sample =
      sample_segments(*fasta, {{"a", 0, 12000}}, {.length = 200, .count = 20, .seed = 3});
  EXPECT_EQ(sample.segments.size(), 20U);
  EXPECT_GT(sample.skipped_n_rich, 0);
  for (const SampledSegment& segment : sample.segments) EXPECT_LE(count_letters(segment.sequence).n, 20);
  EXPECT_MESSAGE(sample_segments(*fasta, {{"gap", 0, 3000}}, {.length = 100, .count = 2, .seed = 1}),
                 "too many N");
  EXPECT_MESSAGE(sample_segments(*fasta, {{"a", 0, 100}}, {.length = 101, .count = 2, .seed = 1}),
                 "1 of 1 region(s) are shorter");
}

TEST(SampleSegments, OverlapsOnlyWhereThereIsNoRoom) {
  const Folder folder;
  const auto fasta = open_fasta(folder.text("x.fa", fasta_record("a", letters(1000, 1))));
  const SegmentSample crowded = sample_segments(*fasta, {}, {.length = 300, .count = 10, .seed = 1});
  EXPECT_EQ(crowded.segments.size(), 10U);
  EXPECT_GT(crowded.overlapping, 0);
  const SegmentSample whole = sample_segments(*fasta, {}, {.length = 1000, .count = 5, .seed = 1});
  EXPECT_EQ(whole.segments.size(), 1U);  // the same segment twice tells nothing
}

double naive_repeat_share(const std::string& x, int64_t window, int64_t word) {
  int64_t repeated = 0;
  for (int64_t t = word; t < static_cast<int64_t>(x.size()); ++t) {
    for (int64_t e = word; e <= t - window; ++e) {
      const std::string w = x.substr(static_cast<std::size_t>(t - word), static_cast<std::size_t>(word));
      if (e != t && w == x.substr(static_cast<std::size_t>(e - word), static_cast<std::size_t>(word)) &&
          w.find('N') == std::string::npos) {
        ++repeated;
        break;
      }
    }
  }
  return static_cast<double>(repeated) / static_cast<double>(x.size());
}

TEST(RepeatShare, EqualsTheDirectCount) {
  std::string sequence = letters(700, 1) + "NN" + letters(50, 8);
  sequence.replace(400, 120, sequence.substr(30, 120));
  sequence.replace(600, 40, std::string(40, 'A'));
  for (const int64_t word : {1, 5, 12, 32}) {
    for (const int64_t window : {1, 100, 371, 10000})
      EXPECT_DOUBLE_EQ(repeat_share(sequence, window, word), naive_repeat_share(sequence, window, word))
          << word << " " << window;
  }
  EXPECT_NEAR(repeat_share(sequence, 100), 89.0 / 752.0,
              5.0 / 752.0);  // a copy of 120 bases holds 120 - 31 words; chance may lengthen it
  std::string lower = sequence;
  for (char& c : lower) c = static_cast<char>(c | 0x20);
  EXPECT_EQ(repeat_share(lower, 100), repeat_share(sequence, 100));
  EXPECT_EQ(repeat_share("", 1), 0);
  EXPECT_EQ(repeat_share("ACG", 1), 0);
}

TEST(LastCopies, EqualTheDirectSearch) {
  std::string sequence = letters(500, 3);
  sequence.replace(200, 60, sequence.substr(20, 60));
  sequence.replace(400, 60, sequence.substr(20, 60));
  for (const int64_t word : {3, 12, 32}) {
    const auto last = last_copies(sequence, word);
    for (int64_t t = 0; t < 500; ++t) {
      int64_t expected = 0;
      for (int64_t e = t - 1; t >= word && e >= word && expected == 0; --e) {
        if (sequence.compare(static_cast<std::size_t>(e - word), static_cast<std::size_t>(word), sequence,
                             static_cast<std::size_t>(t - word), static_cast<std::size_t>(word)) == 0)
          expected = t - e;
      }
      ASSERT_EQ(last[static_cast<std::size_t>(t)], expected) << word << " " << t;
    }
  }
  EXPECT_EQ(last_copies(sequence, 32)[440], 200) << "the nearer of two";
}

TEST(SampleSegments, DrawsFromSoManyRandomRecords) {
  const Folder folder;
  std::string text;
  for (int i = 0; i < 20; ++i)
    text += ">r" + std::to_string(i) + "\n" + letters(i == 3 ? 10 : 100, i + 1) + "\n";
  const auto file = open_fasta(folder.text("x.fa", text));
  const SegmentOptions options{.length = 50, .count = 1, .regions = 6};
  const auto sample = sample_segments(*file, {}, options);
  ASSERT_EQ(sample.segments.size(), 6U);
  EXPECT_EQ(sample.skipped_regions, 1);
  std::set<std::string> names;
  for (const auto& segment : sample.segments) names.insert(segment.name);
  EXPECT_EQ(names.size(), 6U);
  // A record that is drawn gives the segment that it gives among all.
  const auto all = sample_segments(*file, {}, {.length = 50, .count = 1});
  for (const auto& segment : sample.segments) {
    EXPECT_TRUE(std::any_of(all.segments.begin(), all.segments.end(), [&](const auto& other) {
      return other.name == segment.name && other.begin == segment.begin;
    }));
  }
}

TEST(OpenSequences, JsonLinesAreRecords) {
  const Folder folder;
  const auto path = folder.text("x.jsonl", R"({"text": "ACGTAC", "id": "a"})"
                                           "\n\n"
                                           R"({"text": "GGGT"})"
                                           "\n");
  const auto file = open_sequences(path);
  EXPECT_EQ(file->names(), (std::vector<std::string>{"a", "line-3"}));
  EXPECT_EQ(file->fetch("a", 1, 4), "CGT");
  EXPECT_EQ(file->total_length(), 10);
  EXPECT_EQ(open_sequences(folder.text("y.fa", ">q\nACG\n"))->names(), std::vector<std::string>{"q"});
  EXPECT_THROW(open_sequences(folder.text(
                   "z.jsonl", "{\"text\": \"A\", \"id\": \"a\"}\n{\"text\": \"A\", \"id\": \"a\"}\n")),
               DataError);
  EXPECT_THROW(open_sequences(path, {.held_bases = 8}), DataError);
  EXPECT_THROW(open_sequences(folder.text("empty.jsonl", "\n")), DataError);
}

}  // namespace
}  // namespace focus::data
