#include "files.h"
#include "focus/data/tokenizer.h"

namespace focus::data {
namespace {

TEST(Tokenizer, TokenIsTheByte) {
  EXPECT_EQ(encode("ACGTN"), (std::vector<uint8_t>{65, 67, 71, 84, 78}));
  EXPECT_EQ(decode(encode("acgtn")), "ACGTN");
  EXPECT_EQ(decode(encode("acGtn", CasePolicy::keep)), "acGtn");
  EXPECT_TRUE(encode("").empty());
}

TEST(Tokenizer, AmbiguousPolicies) {
  EXPECT_EQ(decode(encode("ARN", CasePolicy::upper, AmbiguousPolicy::mask)), "ARN");
  EXPECT_EQ(decode(encode("Aru", CasePolicy::keep, AmbiguousPolicy::keep)), "Aru");
  EXPECT_MESSAGE(encode("ACGR", CasePolicy::upper, AmbiguousPolicy::error, "chr1", 100), "position 104 of 'chr1' is 'R'");
  EXPECT_MESSAGE(encode("ACU", CasePolicy::upper, AmbiguousPolicy::mask), "Convert U to T");
  EXPECT_MESSAGE(encode("ACu", CasePolicy::upper, AmbiguousPolicy::error), "Convert U to T");
  for (const AmbiguousPolicy policy : {AmbiguousPolicy::mask, AmbiguousPolicy::error, AmbiguousPolicy::keep}) {
    EXPECT_MESSAGE(encode("AC-GT", CasePolicy::upper, policy), "gaps of an alignment");
    EXPECT_MESSAGE(encode("AC GT", CasePolicy::upper, policy), "byte 32");
    EXPECT_MESSAGE(encode("AC*", CasePolicy::upper, policy), "'*'");
    EXPECT_MESSAGE(encode("AC@", CasePolicy::upper, policy), "'@'");
    EXPECT_MESSAGE(encode("AC\xC3\xA9", CasePolicy::upper, policy), "byte 195");
  }
}

TEST(Tokenizer, LossWeights) {
  EXPECT_EQ(loss_weights("AcNnR", 0.25F), (std::vector<float>{1, 0.25F, 0, 0, 0}));
  EXPECT_EQ(loss_weights("AcNn", 0.5F, AmbiguousPolicy::keep), (std::vector<float>{1, 0.5F, 1, 0.5F}));
  EXPECT_EQ(loss_weights("a"), std::vector<float>{0.1F});
}

TEST(Tokenizer, ReverseComplement) {
  EXPECT_EQ(reverse_complement("ACGTNacgtnRYKMBVDHSWU"), "AWSDHBVKMRYnacgtNACGT");
  const std::string sequence = letters(999, 4, "ACGTacgtNRYKMBVDHSW");
  EXPECT_EQ(reverse_complement(reverse_complement(sequence)), sequence);
  std::vector<uint8_t> tokens = encode("AACG");
  reverse_complement(tokens);
  EXPECT_EQ(decode(tokens), "CGTT");
}

TEST(Tokenizer, IsAcgtAndCounts) {
  int count = 0;
  for (int token = 0; token < 256; ++token) count += is_acgt(static_cast<uint8_t>(token));
  EXPECT_EQ(count, 8);
  const SequenceCounts counts = count_letters("ACGTacgtNNnR");
  EXPECT_EQ(counts.length, 12);
  EXPECT_EQ(counts.lowercase, 5);
  EXPECT_EQ(counts.n, 3);
  EXPECT_EQ(counts.ambiguous, 1);
}

}  // namespace
}  // namespace focus::data
