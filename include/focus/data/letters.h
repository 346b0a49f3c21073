// Letters: the bytes of a nucleotide sequence, cleaned for a model. A model::Vocabulary makes tokens of them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace focus::data {

/// upper: 'a' becomes 'A' (what Evo-2 was trained on; lowercase only lowers the loss weight). keep: letters
/// stay as they are.
enum class CasePolicy { upper, keep };

/// What to do with letters other than A, C, G, T. mask: the letter stays and its prediction gets loss weight
/// 0; error: DataError naming record and position; keep: an ordinary letter with full weight. U is an error
/// under mask and error (the sequence is RNA).
enum class AmbiguousPolicy { mask, error, keep };

/// Whether a byte is a letter of the nucleotide code, in either case: ACGTU, the ambiguity codes RYKMSWBDHVN,
/// and X, which masks.
constexpr bool is_nucleotide(uint8_t byte) {
  constexpr std::string_view kCode = "ABCDGHKMNRSTUVWXY";
  const auto upper = static_cast<char>(byte & 0xDF);
  return byte >= 0x40 && kCode.find(upper) != std::string_view::npos;
}

/// A byte that is_nucleotide() refuses, quoted, and what it may mean: for messages, after "holds ".
std::string foreign_byte(uint8_t byte);

/// The letters of `sequence` that a model reads. `record` and `offset` (0-based position of its first letter
/// in the record) only serve error messages, which give 1-based positions. A byte that is no nucleotide is a
/// DataError under every policy.
std::vector<uint8_t> clean(std::string_view sequence, CasePolicy case_policy = CasePolicy::upper,
                           AmbiguousPolicy ambiguous = AmbiguousPolicy::mask,
                           std::string_view record = "sequence", int64_t offset = 0);

/// Loss weight of each letter as a target: 1, `lowercase_weight` for lowercase (soft-masked) letters, 0 for
/// other letters than ACGT under AmbiguousPolicy::mask.
std::vector<float> loss_weights(std::string_view sequence, float lowercase_weight = 0.1F,
                                AmbiguousPolicy ambiguous = AmbiguousPolicy::mask);

/// Whether a letter is A, C, G or T (upper or lower case).
constexpr bool is_acgt(uint8_t letter) {
  const uint8_t upper = letter & 0xDF;
  return upper == 'A' || upper == 'C' || upper == 'G' || upper == 'T';
}

/// The complement of one letter, IUPAC codes included, case kept; other bytes map to themselves.
uint8_t complement(uint8_t letter);
/// The opposite strand read in its own direction, case kept.
std::string reverse_complement(std::string_view sequence);

struct SequenceCounts {
  int64_t length = 0;
  int64_t lowercase = 0;  // letters a-z
  int64_t n = 0;          // N or n
  int64_t ambiguous = 0;  // letters other than A, C, G, T and N

  SequenceCounts& operator+=(const SequenceCounts& more);
};
SequenceCounts count_letters(std::string_view sequence);

/// Notes how much of what was read is no certain base, and says so in one warning: text that happens to hold
/// letters of the nucleotide code only (a protein, words) has many ambiguity codes, a genome hardly any.
class AmbiguityNote {
 public:
  void add(std::string_view record, const SequenceCounts& counts);
  /// Warns where a record has 5 % of ambiguity codes or more, or N and they are more than half of everything.
  void warn() const;

 private:
  std::string example_;  // the record with the largest share
  double largest_ = 0;
  int64_t records_ = 0, length_ = 0, unknown_ = 0;
};

}  // namespace focus::data
