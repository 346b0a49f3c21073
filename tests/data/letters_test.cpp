#include "focus/data/letters.h"
#include "files.h"

namespace focus::data {
namespace {

TEST(Letters, TokenIsTheByte) {
  EXPECT_EQ(clean("ACGTN"), (std::vector<uint8_t>{65, 67, 71, 84, 78}));
  EXPECT_EQ(text_of(clean("acgtn")), "ACGTN");
  EXPECT_EQ(text_of(clean("acGtn", CasePolicy::keep)), "acGtn");
  EXPECT_TRUE(clean("").empty());
}

TEST(Letters, AmbiguousPolicies) {
  EXPECT_EQ(text_of(clean("ARN", CasePolicy::upper, AmbiguousPolicy::mask)), "ARN");
  EXPECT_EQ(text_of(clean("Aru", CasePolicy::keep, AmbiguousPolicy::keep)), "Aru");
  EXPECT_MESSAGE(clean("ACGR", CasePolicy::upper, AmbiguousPolicy::error, "chr1", 100),
                 "position 104 of 'chr1' is 'R'");
  EXPECT_MESSAGE(clean("ACU", CasePolicy::upper, AmbiguousPolicy::mask), "Convert U to T");
  EXPECT_MESSAGE(clean("ACu", CasePolicy::upper, AmbiguousPolicy::error), "Convert U to T");
  for (const AmbiguousPolicy policy :
       {AmbiguousPolicy::mask, AmbiguousPolicy::error, AmbiguousPolicy::keep}) {
    EXPECT_MESSAGE(clean("AC-GT", CasePolicy::upper, policy), "gaps of an alignment");
    EXPECT_MESSAGE(clean("AC GT", CasePolicy::upper, policy), "byte 32");
    EXPECT_MESSAGE(clean("AC*", CasePolicy::upper, policy), "'*'");
    EXPECT_MESSAGE(clean("AC@", CasePolicy::upper, policy), "'@'");
    EXPECT_MESSAGE(clean("AC\xC3\xA9", CasePolicy::upper, policy), "byte 195");
    for (const char* letter : {"E", "F", "I", "J", "L", "O", "P", "Q", "Z", "e", "z"})
      EXPECT_MESSAGE(clean(concat("AC", letter, "GT"), CasePolicy::upper, policy, "p"),
                     concat("position 3 of 'p' holds '", letter, "'"));
  }
}

TEST(Letters, WarnsOfManyAmbiguousOnes) {
  const auto said = [](const std::vector<std::string>& records) {
    AmbiguityNote note;
    for (const std::string& record : records) note.add(record.substr(0, 4), count_letters(record));
    ::testing::internal::CaptureStderr();
    note.warn();
    return ::testing::internal::GetCapturedStderr();
  };
  EXPECT_EQ(said({"ACGTACGTACGTACGTACGTACGTACGTACGTACGTACGTR", "NNNNACGTACGT"}), "");
  EXPECT_THAT_CONTAINS(said({"ACGT", "MKTAYVAKR", "ACGTACGTACGTACGTACR"}),
                       "66.7 % of the letters of 'MKTA' are ambiguity codes");
  EXPECT_THAT_CONTAINS(said({"ACGT", "MKTAYVAKR", "ACGTACGTACGTACGTACR"}), "many of 1 more");
  EXPECT_THAT_CONTAINS(said({"ACGT", "NNNNNN"}), "60 % of all letters are not A, C, G or T");
}

TEST(Letters, LossWeights) {
  EXPECT_EQ(loss_weights("AcNnR", 0.25F), (std::vector<float>{1, 0.25F, 0, 0, 0}));
  EXPECT_EQ(loss_weights("AcNn", 0.5F, AmbiguousPolicy::keep), (std::vector<float>{1, 0.5F, 1, 0.5F}));
  EXPECT_EQ(loss_weights("a"), std::vector<float>{0.1F});
}

TEST(Letters, ReverseComplement) {
  EXPECT_EQ(reverse_complement("ACGTNacgtnRYKMBVDHSWU"), "AWSDHBVKMRYnacgtNACGT");
  const std::string sequence = letters(999, 4, "ACGTacgtNRYKMBVDHSW");
  EXPECT_EQ(reverse_complement(reverse_complement(sequence)), sequence);
}

TEST(Letters, IsAcgtAndCounts) {
  int count = 0;
  for (int letter = 0; letter < 256; ++letter) count += is_acgt(static_cast<uint8_t>(letter));
  EXPECT_EQ(count, 8);
  const SequenceCounts counts = count_letters("ACGTacgtNNnR");
  EXPECT_EQ(counts.length, 12);
  EXPECT_EQ(counts.lowercase, 5);
  EXPECT_EQ(counts.n, 3);
  EXPECT_EQ(counts.ambiguous, 1);
}

}  // namespace
}  // namespace focus::data
