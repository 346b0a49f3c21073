#include "focus/data/letters.h"

#include <array>
#include <iomanip>
#include <sstream>

#include "focus/core/error.h"
#include "focus/core/log.h"

namespace focus::data {
namespace {

constexpr bool is_lower(uint8_t c) { return c >= 'a' && c <= 'z'; }

constexpr std::array<uint8_t, 256> make_complements() {
  std::array<uint8_t, 256> table{};
  for (std::size_t i = 0; i < table.size(); ++i) table[i] = static_cast<uint8_t>(i);
  constexpr std::string_view from = "ACGTURYKMBVDHacgturykmbvdh", to = "TGCAAYRMKVBHDtgcaayrmkvbhd";
  for (std::size_t i = 0; i < from.size(); ++i)
    table[static_cast<uint8_t>(from[i])] = static_cast<uint8_t>(to[i]);
  return table;
}
constexpr std::array<uint8_t, 256> kComplements = make_complements();

[[noreturn]] void refuse(uint8_t letter, std::string_view record, int64_t position) {
  const std::string where = concat("position ", position, " of '", record, "'");
  if (!is_nucleotide(letter)) fail<DataError>(where, " holds ", foreign_byte(letter));
  if ((letter | 0x20) == 'u')
    fail<DataError>(where, " is '", static_cast<char>(letter),
                    "': is this RNA? Convert U to T, as the model was trained on DNA");
  fail<DataError>(where, " is '", static_cast<char>(letter),
                  "', not A, C, G or T; use the ambiguous policy 'mask' or 'keep' to accept such letters");
}

std::string percent(double share) {
  std::ostringstream out;
  out << std::setprecision(3) << 100 * share << " %";
  return out.str();
}

}  // namespace

std::string foreign_byte(uint8_t byte) {
  if (is_lower(byte | 0x20))
    return concat("'", static_cast<char>(byte), "', a letter of no nucleotide code; is this protein?");
  if (byte == '-' || byte == '.')
    return concat("'", static_cast<char>(byte), "'; gaps of an alignment must be removed");
  if (byte >= '0' && byte <= '9')
    return concat("'", static_cast<char>(byte),
                  "'; only letters are nucleotides: numbers, as of a GenBank listing, must be removed");
  if (byte > 0x20 && byte < 0x7F)
    return concat("'", static_cast<char>(byte), "'; only letters are nucleotides");
  return concat("byte ", static_cast<int>(byte), "; only letters are nucleotides");
}

std::vector<uint8_t> clean(std::string_view sequence, CasePolicy case_policy, AmbiguousPolicy ambiguous,
                           std::string_view record, int64_t offset) {
  std::vector<uint8_t> letters(sequence.size());
  for (std::size_t i = 0; i < sequence.size(); ++i) {
    const auto letter = static_cast<uint8_t>(sequence[i]);
    if (!is_acgt(letter)) {
      const bool is_u = (letter | 0x20) == 'u';
      if (!is_nucleotide(letter) || ambiguous == AmbiguousPolicy::error ||
          (is_u && ambiguous == AmbiguousPolicy::mask))
        refuse(letter, record, offset + static_cast<int64_t>(i) + 1);
    }
    letters[i] = case_policy == CasePolicy::upper && is_lower(letter) ? letter & 0xDF : letter;
  }
  return letters;
}

std::vector<float> loss_weights(std::string_view sequence, float lowercase_weight,
                                AmbiguousPolicy ambiguous) {
  std::vector<float> weights(sequence.size());
  for (std::size_t i = 0; i < sequence.size(); ++i) {
    const auto letter = static_cast<uint8_t>(sequence[i]);
    weights[i] = is_lower(letter) ? lowercase_weight : 1.0F;
    if (!is_acgt(letter) && ambiguous == AmbiguousPolicy::mask) weights[i] = 0.0F;
  }
  return weights;
}

uint8_t complement(uint8_t letter) { return kComplements[letter]; }

std::string reverse_complement(std::string_view sequence) {
  std::string result(sequence.rbegin(), sequence.rend());
  for (char& c : result) c = static_cast<char>(complement(static_cast<uint8_t>(c)));
  return result;
}

SequenceCounts count_letters(std::string_view sequence) {
  SequenceCounts counts;
  counts.length = static_cast<int64_t>(sequence.size());
  for (const char c : sequence) {
    const auto letter = static_cast<uint8_t>(c);
    counts.lowercase += is_lower(letter) ? 1 : 0;
    if ((letter | 0x20) == 'n') {
      ++counts.n;
    } else if (!is_acgt(letter)) {
      ++counts.ambiguous;
    }
  }
  return counts;
}

SequenceCounts& SequenceCounts::operator+=(const SequenceCounts& more) {
  length += more.length;
  lowercase += more.lowercase;
  n += more.n;
  ambiguous += more.ambiguous;
  return *this;
}

void AmbiguityNote::add(std::string_view record, const SequenceCounts& counts) {
  constexpr double kMany = 0.05;
  length_ += counts.length;
  unknown_ += counts.n + counts.ambiguous;
  const double share =
      counts.length > 0 ? static_cast<double>(counts.ambiguous) / static_cast<double>(counts.length) : 0;
  if (share < kMany) return;
  ++records_;
  if (share <= largest_) return;
  largest_ = share;
  example_ = record;
}

void AmbiguityNote::warn() const {
  if (records_ > 0)
    log::warn(concat(percent(largest_), " of the letters of '", example_,
                     "' are ambiguity codes (not A, C, G, T or N)",
                     records_ > 1 ? concat(", and many of ", records_ - 1, " more") : "", "; is this DNA?"));
  const double share = length_ > 0 ? static_cast<double>(unknown_) / static_cast<double>(length_) : 0;
  if (records_ == 0 && share > 0.5) log::warn(concat(percent(share), " of all letters are not A, C, G or T"));
}

}  // namespace focus::data
