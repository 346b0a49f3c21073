#include "focus/data/sampler.h"

#include <algorithm>
#include <cstdint>
#include <mutex>
#include <set>
#include <utility>

#include "focus/core/error.h"
#include "focus/core/log.h"
#include "focus/core/random.h"
#include "focus/core/units.h"
#include "focus/data/letters.h"
#include "pass.h"
#include "source.h"

namespace focus::data {
namespace {

constexpr int kMaxDraws = 1000;
constexpr std::size_t kKeptTables = 4;

/// For one length: of each source, the running sum of its stretches' shares, so that a place is found by
/// bisection. Sources may have hundreds of thousands of stretches.
struct DrawTable {
  int64_t length = 0;
  std::vector<std::vector<int64_t>> ends;
};

/// Writes the number of copies that `config` asks for over `sequence`; copies never overlap one another, nor
/// the source of an earlier copy, so copy_source[t] always shows the letters that were copied. `offset` and
/// `source` get the sequence's length, -1 outside copies. A copy that finds no place in 20 draws is left out.
void plant_copies(const CopyConfig& config, Random& random, std::string& sequence,
                  std::vector<int32_t>& offset, std::vector<int32_t>& source) {
  const auto length = static_cast<int64_t>(sequence.size());
  offset.assign(sequence.size(), -1);
  source.assign(sequence.size(), -1);
  const int64_t shortest = std::max<int64_t>(1, std::min(config.min_length, length / 4));
  const int64_t longest = std::max(shortest, std::min(config.max_length, length * 45 / 100));
  if (length < 4) return;
  std::vector<bool> taken(sequence.size(), false);  // written by a copy, or read by one
  const bool far = length >= 2 * config.min_far_distance && random.uniform() < config.far_fraction;
  const int64_t count =
      random.uniform_integer(config.min_count, std::max(config.min_count, config.max_count));
  for (int64_t i = 0; i < count; ++i) {
    for (int attempt = 0; attempt < 20; ++attempt) {
      const int64_t size = random.uniform_integer(shortest, longest);
      const int64_t least = std::max(size, far ? config.min_far_distance : 1);
      const int64_t most = length - size;
      if (least > most) continue;
      const int64_t distance = random.uniform_integer(least, most);
      const int64_t from = random.uniform_integer(length - size - distance + 1), to = from + distance;
      if (std::find(taken.begin() + to, taken.begin() + to + size, true) != taken.begin() + to + size)
        continue;
      std::string segment = sequence.substr(static_cast<std::size_t>(from), static_cast<std::size_t>(size));
      const bool opposite = random.uniform() < config.reverse_complement_fraction;
      if (opposite) segment = reverse_complement(segment);
      const double rate = random.uniform() * config.max_substitution;
      for (char& letter : segment) {
        if (random.uniform() < rate) letter = "ACGT"[random.uniform_integer(4)];
      }
      for (int64_t j = 0; j < size; ++j) {
        const auto at = static_cast<std::size_t>(to + j);
        const int64_t origin = opposite ? from + size - 1 - j : from + j;
        sequence[at] = segment[static_cast<std::size_t>(j)];
        offset[at] = static_cast<int32_t>(j);
        source[at] = static_cast<int32_t>(origin);
        taken[at] = true;
        taken[static_cast<std::size_t>(origin)] = true;
      }
      break;
    }
  }
}

}  // namespace

struct SequenceSampler::Impl {
  SamplerConfig config;
  uint64_t seed = 0;
  std::shared_ptr<const Sources> sources;
  double weights = 0;
  mutable std::mutex mutex;
  mutable std::vector<std::shared_ptr<const DrawTable>> tables;  // of the lengths used last
  mutable std::set<std::pair<std::string, int64_t>>
      told;  // files and lengths whose short stretches were counted in the log
  mutable std::shared_ptr<const Pass> pass;  // of the length used last

  Impl(SamplerConfig settings, uint64_t number, std::shared_ptr<const Sources> opened)
      : config(std::move(settings)), seed(number), sources(std::move(opened)) {
    for (const Source& source : sources->list) weights += source.weight;
  }
  std::shared_ptr<const DrawTable> table(int64_t length) const;
  std::shared_ptr<const Pass> pass_over(int64_t length) const;
  std::string draw_window(Random& random, uint64_t index, int64_t length, Sample& sample) const;
  /// The letters of a window, checked, with its place in `sample`.
  std::string read_window(const Stretch& stretch, std::string window, int64_t begin, Sample& sample) const;
  /// `sample` with everything but its place, from its letters.
  Sample finished(Random& random, std::string letters, Sample sample) const;
};

std::shared_ptr<const DrawTable> SequenceSampler::Impl::table(int64_t length) const {
  const std::lock_guard lock(mutex);
  for (const auto& known : tables) {
    if (known->length == length) return known;
  }
  auto made = std::make_shared<DrawTable>();
  made->length = length;
  for (const Source& source : sources->list) {
    std::vector<int64_t>& ends = made->ends.emplace_back();
    int64_t total = 0, longest = 0, too_short = 0, lost = 0;
    for (const Stretch& stretch : source.stretches) {
      const int64_t share = source.share(stretch, length);
      ends.push_back(total += share);
      longest = std::max(longest, stretch.region.length());
      too_short += share == 0 ? 1 : 0;
      lost += share == 0 ? stretch.region.length() : 0;
    }
    if (total == 0)
      fail<DataError>("'", source.path, "' has no stretch of ", length,
                      " bases to draw from (the longest has ", longest,
                      "); lower the training length, or widen its regions");
    if (too_short > 0 && told.insert({source.path, length}).second)
      log::info(concat("'", source.path, "': ", format_count(too_short), " of ",
                       format_count(static_cast<int64_t>(ends.size())), " records or regions, ",
                       format_count(lost), " bases, are shorter than ", format_count(length),
                       " bases and are never drawn at that length"));
  }
  if (tables.size() == kKeptTables) tables.erase(tables.begin());
  tables.push_back(made);
  return made;
}

std::string SequenceSampler::Impl::draw_window(Random& random, uint64_t index, int64_t length,
                                               Sample& sample) const {
  const auto shares = table(length);
  for (int draw = 0; draw < kMaxDraws; ++draw) {
    double point = random.uniform() * weights;
    std::size_t s = 0;
    while (s + 1 < sources->list.size() && point >= sources->list[s].weight)
      point -= sources->list[s++].weight;
    const Source& source = sources->list[s];
    const std::vector<int64_t>& ends = shares->ends[s];
    int64_t place = random.uniform_integer(ends.back());
    const auto i = static_cast<std::size_t>(std::upper_bound(ends.begin(), ends.end(), place) - ends.begin());
    const Stretch& stretch = source.stretches[i];
    const int64_t size = std::min(length, stretch.region.length());
    if (source.drawing == Drawing::documents) {
      place = random.uniform_integer(stretch.region.length() - size + 1);
    } else if (i > 0) {
      place -= ends[i - 1];
    }
    std::string window = source.letters(stretch, stretch.region.begin + place, size);
    const SequenceCounts counts = count_letters(window);
    if (static_cast<double>(counts.n + counts.ambiguous) > config.max_n_fraction * static_cast<double>(size))
      continue;
    return read_window(stretch, std::move(window), stretch.region.begin + place, sample);
  }
  fail<DataError>(
      "sample ", index, ": ", kMaxDraws, " windows of ", length, " bases in a row had more than ",
      config.max_n_fraction,
      " of letters other than A, C, G, T; raise max_n_fraction or choose regions without assembly gaps");
}

std::string SequenceSampler::Impl::read_window(const Stretch& stretch, std::string window, int64_t begin,
                                               Sample& sample) const {
  sample.name = stretch.region.name;
  sample.begin = begin;
  clean(window, CasePolicy::upper, AmbiguousPolicy::mask, sample.name,
        sample.begin);  // refuses what is no nucleotide, naming the place
  return window;
}

std::shared_ptr<const Pass> SequenceSampler::Impl::pass_over(int64_t length) const {
  const std::lock_guard lock(mutex);
  if (!pass || pass->length() != length)
    pass = std::make_shared<const Pass>(*sources, length, config.max_n_fraction);
  return pass;
}

SequenceSampler::SequenceSampler(SamplerConfig config, uint64_t seed) {
  config.validate();
  auto opened = std::make_shared<const Sources>(open_sources(config));
  impl_ = std::make_unique<Impl>(std::move(config), seed, std::move(opened));
}

SequenceSampler::SequenceSampler(const SequenceSampler& opened, SamplerConfig config, uint64_t seed) {
  config.validate();
  const SamplerConfig& from = opened.impl_->config;
  FOCUS_CHECK(config.sources == from.sources && config.exclude == from.exclude,
              "the settings name other data than the opened sampler's");
  impl_ = std::make_unique<Impl>(std::move(config), seed, opened.impl_->sources);
  const std::lock_guard lock(opened.impl_->mutex);
  impl_->told = opened.impl_->told;
  if (impl_->config.max_n_fraction == from.max_n_fraction) impl_->pass = opened.impl_->pass;
}

SequenceSampler::~SequenceSampler() = default;
SequenceSampler::SequenceSampler(SequenceSampler&&) noexcept = default;
int64_t SequenceSampler::num_bases() const { return impl_->sources->num_bases; }
bool SequenceSampler::in_memory() const { return impl_->sources->in_memory; }

std::vector<DrawnStretch> SequenceSampler::stretches() const {
  std::vector<DrawnStretch> out;
  for (const Source& source : impl_->sources->list) {
    for (const Stretch& stretch : source.stretches)
      out.push_back(
          {source.file ? source.file->file_of(stretch.region.name).string() : source.path, stretch.region});
  }
  return out;
}

std::string SequenceSampler::letters(std::size_t index, int64_t begin, int64_t end) const {
  for (const Source& source : impl_->sources->list) {
    if (index < source.stretches.size()) return source.letters(source.stretches[index], begin, end - begin);
    index -= source.stretches.size();
  }
  fail<InternalError>("stretch ", index, " past the last one");
}

Sample SequenceSampler::Impl::finished(Random& random, std::string letters, Sample result) const {
  result.reverse = random.uniform() < config.reverse_complement;
  if (result.reverse) letters = reverse_complement(letters);
  result.copy_offset.assign(letters.size(), -1);
  result.copy_source.assign(letters.size(), -1);
  if (random.uniform() < config.copies.probability)
    plant_copies(config.copies, random, letters, result.copy_offset, result.copy_source);
  result.letters = clean(letters);
  result.weights = loss_weights(letters, static_cast<float>(config.lowercase_weight));
  for (std::size_t t = 0; t < letters.size(); ++t) {
    // In a copy the case of the source says nothing about how predictable the base is: only letters other
    // than ACGT stay masked.
    const bool in_copy = result.copy_offset[t] >= config.copy_warmup && result.copy_offset[t] >= 0;
    if (!in_copy) {
      result.weights[t] *= static_cast<float>(config.natural_weight);
    } else if (is_acgt(static_cast<uint8_t>(letters[t]))) {
      result.weights[t] = static_cast<float>(config.copy_weight);
    }
  }
  result.weights[0] = 0;
  return result;
}

Sample SequenceSampler::sample(uint64_t index, int64_t length) const {
  FOCUS_CHECK(length >= 2 && length <= INT32_MAX, "length of a training sequence: ", length);
  Random random(impl_->seed, index);
  Sample result;
  std::string letters = impl_->draw_window(random, index, length, result);
  return impl_->finished(random, std::move(letters), std::move(result));
}

Sample SequenceSampler::pass_sample(uint64_t index, int64_t length) const {
  FOCUS_CHECK(length >= 2 && length <= INT32_MAX, "length of a training sequence: ", length);
  const PassWindow window = impl_->pass_over(length)->at(index, impl_->seed);
  const Source& source = impl_->sources->list[window.source];
  const Stretch& stretch = source.stretches[window.stretch];
  Random random(impl_->seed, index);
  Sample result;
  std::string letters =
      impl_->read_window(stretch, source.letters(stretch, window.begin, window.size), window.begin, result);
  return impl_->finished(random, std::move(letters), std::move(result));
}

int64_t SequenceSampler::pass_size(int64_t length) const { return impl_->pass_over(length)->size(); }

}  // namespace focus::data
