// Which token a letter is. Sequences travel through focus as letters (bytes); where a model is fed or its
// predictions are read, this table turns them into the model's own tokens.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>
#include <vector>

namespace focus::model {

struct Vocabulary {
  static constexpr int32_t kNone = -1;

  std::array<int32_t, 256> token_of_byte{};  // kNone: the model has no token for this byte
  std::array<int32_t, 4> bases{};            // tokens of A, C, G and T
  int32_t unknown_base = kNone;              // token of N

  /// Every byte below `size` is its own token, as in Evo-2. ConfigError: too few tokens for letters.
  static Vocabulary bytes(int64_t size);

  /// Tokens of letters. `record` and `offset` (0-based position of the first letter in the record) only serve
  /// the error message. DataError: a letter without a token.
  std::vector<int64_t> encode(std::span<const uint8_t> letters, std::string_view record,
                              int64_t offset = 0) const;
};

/// The vocabulary of a Hugging Face model folder, from the first of tokenizer.json, vocab.json, vocab.txt and
/// tokenizer_config.json that is there; without any, a letter's token is its byte. A letter is its own
/// one-character token. Where a base is known in one case only, the uppercase letter takes the lowercase
/// token (never the other way round: --case keep must not hide that a model has no lowercase). Letters other
/// than A, C, G and T without a token become N where there is one. Special tokens a tokenizer puts around a
/// text are not added. `size` is the model's vocabulary. ConfigError: not JSON, a base without a token, k-mer
/// or byte-pair vocabularies (they read several letters as one token), a tokenizer class whose tokens are not
/// in its files, tokens beyond `size`.
Vocabulary read_vocabulary(const std::filesystem::path& folder, int64_t size);

}  // namespace focus::model
