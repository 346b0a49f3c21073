#include "focus/model/vocabulary.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "focus/core/error.h"

namespace focus::model {
namespace {

namespace fs = std::filesystem;

class VocabularyTest : public ::testing::Test {
 protected:
  VocabularyTest() : folder_(fs::temp_directory_path() / ("focus-vocabulary-" + std::to_string(::getpid()))) {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  ~VocabularyTest() override { fs::remove_all(folder_); }
  void write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ / name) << text;
  }
  Vocabulary read(int64_t size = 300) const { return read_vocabulary(folder_, size); }
  std::string refusal(int64_t size = 300) const {
    try {
      read(size);
    } catch (const ConfigError& e) {
      return e.what();
    }
    return "accepted";
  }
  static std::vector<int64_t> encode(const Vocabulary& vocabulary, const std::string& letters) {
    return vocabulary.encode({reinterpret_cast<const uint8_t*>(letters.data()), letters.size()}, "record",
                             10);
  }
  fs::path folder_;
};

#define EXPECT_REFUSED(call, part) EXPECT_NE((call).find(part), std::string::npos) << (call)

TEST_F(VocabularyTest, BytesAreTheirOwnTokens) {
  const Vocabulary evo2 = Vocabulary::bytes(512);
  EXPECT_EQ(encode(evo2, "ACGTNacgtRY"),
            (std::vector<int64_t>{65, 67, 71, 84, 78, 97, 99, 103, 116, 82, 89}));
  EXPECT_THROW(Vocabulary::bytes(84), ConfigError);
  EXPECT_THROW(encode(Vocabulary::bytes(100), "t"), DataError);
}

TEST_F(VocabularyTest, WithoutTokenizerFilesAVocabularyOfBytesIsMeant) {
  EXPECT_EQ(encode(read(256), "ACgN"), (std::vector<int64_t>{65, 67, 103, 78}));
  EXPECT_REFUSED(refusal(255), "no tokenizer file");
}

TEST_F(VocabularyTest, ByT5TokensStandBehindThreeSpecialOnes) {
  write("tokenizer_config.json", R"({"tokenizer_class": "ByT5Tokenizer"})");
  EXPECT_EQ(encode(read(384), "AN"), (std::vector<int64_t>{68, 81}));
  write("tokenizer_config.json", R"({"tokenizer_class": "CharacterTokenizer"})");
  EXPECT_REFUSED(refusal(), "CharacterTokenizer");
  write("tokenizer_config.json", R"({"tokenizer_class": null})");
  EXPECT_REFUSED(refusal(), "only ByT5Tokenizer");
}

TEST_F(VocabularyTest, TokenizerJsonWithSingleLetters) {
  write(
      "tokenizer.json",
      R"({"normalizer": {"type": "NFC"}, "added_tokens": [{"id": 0, "content": "<s>"}, {"id": 9, "content": "N"}],
                              "model": {"type": "BPE", "vocab": {"<s>": 0, "T": 1, "G": 2, "C": 3, "A": 4}, "merges": []}})");
  const Vocabulary v = read(10);
  EXPECT_EQ(v.bases, (std::array<int32_t, 4>{4, 3, 2, 1}));
  // Letters without a token become N, lowercase bases do not: whoever keeps the case must hear that the model
  // knows none.
  EXPECT_EQ(encode(v, "ANRn"), (std::vector<int64_t>{4, 9, 9, 9}));
  try {
    encode(v, "ACg");
    FAIL();
  } catch (const DataError& e) {
    EXPECT_STREQ(e.what(),
                 "the model has no token for 'g', position 13 of 'record'; read lowercase as uppercase");
  }
  EXPECT_REFUSED(refusal(9), "token 9 of 'N' is outside");
}

TEST_F(VocabularyTest, LowercaseVocabulariesReadUppercaseLetters) {
  write("vocab.json", R"({"a": 1, "c": 2, "g": 3, "t": 4})");
  const Vocabulary v = read();
  EXPECT_EQ(encode(v, "ACGTacgt"), (std::vector<int64_t>{1, 2, 3, 4, 1, 2, 3, 4}));
  EXPECT_EQ(v.unknown_base, Vocabulary::kNone);
  EXPECT_THROW(encode(v, "N"), DataError);
}

TEST_F(VocabularyTest, ALowercasingNormalizerDecides) {
  write("tokenizer.json",
        R"({"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Lowercase"}]},
                              "model": {"vocab": {"A": 1, "C": 2, "G": 3, "T": 4, "a": 5, "c": 6, "g": 7, "t": 8}}})");
  EXPECT_EQ(read().bases, (std::array<int32_t, 4>{5, 6, 7, 8}));
  write("tokenizer.json", R"({"normalizer": {"type": "Replace", "pattern": {"String": "T"}, "content": "U"},
                              "model": {"vocab": {"A": 1, "C": 2, "G": 3, "T": 4}}})");
  EXPECT_REFUSED(refusal(), "normalizer 'Replace'");
}

TEST_F(VocabularyTest, LinesOfVocabTxt) {
  write("vocab.txt", "[PAD]\r\n[UNK]\r\nA\r\nC\r\nG\r\nT\r\n");
  EXPECT_EQ(read().bases, (std::array<int32_t, 4>{2, 3, 4, 5}));
  write("vocab.txt", "[PAD]\nAAA\nAAC\n");
  EXPECT_REFUSED(refusal(), "token 'AAA' stands for 3 bases");
}

TEST_F(VocabularyTest, TokensOfSeveralBasesAreRefused) {
  write(
      "tokenizer.json",
      R"({"model": {"type": "BPE", "vocab": {"A": 1, "C": 2, "G": 3, "T": 4, "AC": 5}, "merges": ["A C"]}})");
  EXPECT_REFUSED(refusal(), "1 merges");
  write(
      "tokenizer.json",
      R"({"model": {"type": "Unigram", "vocab": [["A", 0], ["C", 0], ["G", 0], ["T", 0], ["gat", -3.5]]}})");
  EXPECT_REFUSED(refusal(), "token 'gat'");
  write("tokenizer.json", R"({"model": {"type": "WordLevel", "vocab": {"A": 1, "C": 2, "G": 3}}})");
  EXPECT_REFUSED(refusal(), "no token for the single letter T");
  write("tokenizer.json", R"({"model": {"type": "WordLevel", "vocab": {"A": 1, "C": 2, "G": 3, "T": 3}}})");
  EXPECT_REFUSED(refusal(), "same token");
  write("tokenizer.json", R"({"model": {}})");
  EXPECT_REFUSED(refusal(), "not a tokenizer");
  write("tokenizer.json", "{");
  EXPECT_REFUSED(refusal(), "not valid JSON");
  fs::remove(folder_ / "tokenizer.json");
  write("merges.txt", "A C\n");
  write("vocab.json", R"({"A": 1, "C": 2, "G": 3, "T": 4, "AC": 5})");
  EXPECT_REFUSED(refusal(), "byte-pair");
}

}  // namespace
}  // namespace focus::model
