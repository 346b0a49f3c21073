#include "run/leak_check.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "focus/core/error.h"
#include "focus/core/log.h"
#include "focus/core/units.h"
#include "focus/data/region.h"

namespace focus::train {
namespace {

constexpr int64_t kWord = 32;  // two bits per base fill 64: words are compared exactly, not by hash
constexpr double kSameShare = 0.5;
constexpr int64_t kPieceBases = int64_t{1} << 22;
constexpr int kFilterBits = 22;

constexpr std::array<int8_t, 256> kCode = [] {
  std::array<int8_t, 256> code{};
  code.fill(-1);
  for (int i = 0; i < 4; ++i)
    code[static_cast<unsigned char>("ACGT"[i])] = code[static_cast<unsigned char>("acgt"[i])] =
        static_cast<int8_t>(i);
  return code;
}();

/// Calls visit(word, its reverse complement, position after it) for each stretch of 32 letters ACGT.
template <class Visit>
void each_word(std::string_view letters, const Visit& visit) {
  uint64_t forward = 0, reverse = 0;
  int64_t valid = 0;
  for (std::size_t t = 0; t < letters.size(); ++t) {
    const int8_t code = kCode[static_cast<unsigned char>(letters[t])];
    valid = code < 0 ? 0 : valid + 1;
    if (code < 0) continue;
    forward = forward << 2 | static_cast<uint64_t>(code);
    reverse = reverse >> 2 | static_cast<uint64_t>(3 - code) << 62;
    if (valid >= kWord) visit(forward, reverse, static_cast<int64_t>(t) + 1);
  }
}

std::size_t filter_slot(uint64_t word) {
  return static_cast<std::size_t>((word * 0x9e3779b97f4a7c15U) >> (64 - kFilterBits));
}

/// The words of the held-out sequences, and which of them were met.
class HeldOutWords {
 public:
  void add(int64_t sequence, std::string_view letters) {
    each_word(letters, [&](uint64_t forward, uint64_t reverse, int64_t end) {
      if (end % kWord != 0) return;
      const uint64_t word = std::min(forward, reverse);
      words_[word].push_back(sequence);
      filter_[filter_slot(word)] = true;
      ++totals_[sequence];
    });
  }
  void meet(std::string_view letters) {
    each_word(letters, [&](uint64_t forward, uint64_t reverse, int64_t) {
      const uint64_t word = std::min(forward, reverse);
      if (!filter_[filter_slot(word)]) return;  // almost every word ends here
      const auto found = words_.find(word);
      if (found == words_.end()) return;
      for (const int64_t sequence : found->second) ++met_[sequence];
      found->second.clear();
    });
  }
  double share_met(int64_t sequence) const {
    const auto total = totals_.find(sequence), met = met_.find(sequence);
    return total == totals_.end() || met == met_.end()
               ? 0
               : static_cast<double>(met->second) / static_cast<double>(total->second);
  }

 private:
  std::unordered_map<uint64_t, std::vector<int64_t>> words_;
  std::vector<bool> filter_ = std::vector<bool>(std::size_t{1} << kFilterBits);
  std::map<int64_t, int64_t> totals_, met_;
};

std::optional<std::string> overlapping_regions(const data::SequenceSampler& training,
                                               const data::SequenceSampler& held_out,
                                               const std::vector<InputDigest>& inputs) {
  const auto digest = [&](const std::string& path) {
    for (const InputDigest& input : inputs) {
      if (input.path == path) return input.sha256;
    }
    return path;
  };
  std::map<std::pair<std::string, std::string>, std::vector<data::DrawnStretch>> by_record;
  for (data::DrawnStretch& stretch : training.stretches())
    by_record[{digest(stretch.path), stretch.region.name}].push_back(std::move(stretch));
  for (const data::DrawnStretch& stretch : held_out.stretches()) {
    const auto same = by_record.find({digest(stretch.path), stretch.region.name});
    if (same == by_record.end()) continue;
    for (const data::DrawnStretch& trained : same->second) {
      const int64_t begin = std::max(trained.region.begin, stretch.region.begin),
                    end = std::min(trained.region.end, stretch.region.end);
      if (begin < end)
        return concat("validation.data and data both draw from ",
                      data::format_region({stretch.region.name, begin, end}), " of '", stretch.path, "'",
                      trained.path == stretch.path ? "" : concat(" ('", trained.path, "' is a copy of it)"));
    }
  }
  return std::nullopt;
}

std::optional<std::string> repeated_sequences(const RunData& data) {
  const TrainConfig& config = data.config;
  // As they are drawn for validation, but from the file: planted copies and strands do not matter here.
  data::SamplerConfig natural = config.validation.data;
  natural.copies = {};
  natural.reverse_complement = 0;
  const data::SequenceSampler held_out(*data.held_out, natural, static_cast<uint64_t>(config.seed) + 1);
  HeldOutWords words;
  std::vector<std::string> shown;
  for (int64_t i = 0; i < config.validation.sequences; ++i) {
    const data::Sample sample = held_out.sample(static_cast<uint64_t>(i), config.validation.length);
    words.add(i, {reinterpret_cast<const char*>(sample.letters.data()), sample.letters.size()});
    shown.push_back(data::format_region(
        {sample.name, sample.begin, sample.begin + static_cast<int64_t>(sample.letters.size())}));
  }
  const auto stretches = data.training.stretches();
  for (std::size_t s = 0; s < stretches.size(); ++s) {
    const data::Region& region = stretches[s].region;
    for (int64_t begin = region.begin; begin < region.end; begin += kPieceBases)
      words.meet(data.training.letters(s, begin, std::min(region.end, begin + kPieceBases + kWord - 1)));
  }
  int64_t repeated = 0;
  std::string example;
  for (int64_t i = 0; i < config.validation.sequences; ++i) {
    const double share = words.share_met(i);
    if (share <= kSameShare) continue;
    if (++repeated == 1)
      example = concat("for example ", shown[static_cast<std::size_t>(i)], ", of which ",
                       static_cast<int64_t>(share * 100), " % occur there");
  }
  if (repeated == 0) return std::nullopt;
  return concat(repeated, " of ", config.validation.sequences,
                " held-out sequences are also in the training data (", example, ")");
}

}  // namespace

void require_held_out(const RunData& data, const std::vector<InputDigest>& inputs) {
  if (!data.held_out) return;
  const data::SequenceSampler& training = data.training;
  std::optional<std::string> leak = overlapping_regions(training, *data.held_out, inputs);
  if (!leak && training.in_memory()) leak = repeated_sequences(data);
  if (!leak && !training.in_memory())
    log::info(concat(
        "held-out data: regions do not overlap the training data's; their letters were not compared, as ",
        format_count(training.num_bases()), " bases are more than data.memory_mb holds"));
  if (!leak) return;
  if (!data.config.validation.allow_overlap)
    fail<DataError>(*leak,
                    "; validation would measure what was trained on. Name other regions, list them in "
                    "data.exclude, or set validation.allow_overlap");
  log::warn(concat(*leak, "; accepted by validation.allow_overlap"));
}

}  // namespace focus::train
