#include "focus/data/sampler.h"

#include <algorithm>
#include <cstdint>
#include <mutex>
#include <utility>

#include "copies.h"
#include "focus/core/error.h"
#include "focus/core/random.h"
#include "focus/data/letters.h"
#include "source.h"

namespace focus::data {
namespace {

constexpr int kMaxDraws = 1000;
constexpr std::size_t kKeptTables = 4;

/// For one length: of each source, the running sum of its stretches' shares, so that a place is found by bisection. Sources may have
/// hundreds of thousands of stretches.
struct DrawTable {
  int64_t length = 0;
  std::vector<std::vector<int64_t>> ends;
};

}  // namespace

struct SequenceSampler::Impl {
  SamplerConfig config;
  uint64_t seed = 0;
  std::shared_ptr<const Sources> sources;
  double weights = 0;
  mutable std::mutex mutex;
  mutable std::vector<std::shared_ptr<const DrawTable>> tables;  // of the lengths used last

  Impl(SamplerConfig settings, uint64_t number, std::shared_ptr<const Sources> opened)
      : config(std::move(settings)), seed(number), sources(std::move(opened)) {
    for (const Source& source : sources->list) weights += source.weight;
  }
  std::shared_ptr<const DrawTable> table(int64_t length) const;
  std::string draw_window(Random& random, uint64_t index, int64_t length, Sample& sample) const;
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
    int64_t total = 0, longest = 0;
    for (const Stretch& stretch : source.stretches) {
      ends.push_back(total += source.share(stretch, length));
      longest = std::max(longest, stretch.region.length());
    }
    if (total == 0)
      fail<DataError>("'", source.path, "' has no stretch of ", length, " bases to draw from (the longest has ", longest,
                      "); lower the training length, or widen its regions");
  }
  if (tables.size() == kKeptTables) tables.erase(tables.begin());
  tables.push_back(made);
  return made;
}

std::string SequenceSampler::Impl::draw_window(Random& random, uint64_t index, int64_t length, Sample& sample) const {
  const auto shares = table(length);
  for (int draw = 0; draw < kMaxDraws; ++draw) {
    double point = random.uniform() * weights;
    std::size_t s = 0;
    while (s + 1 < sources->list.size() && point >= sources->list[s].weight) point -= sources->list[s++].weight;
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
    if (static_cast<double>(counts.n + counts.ambiguous) > config.max_n_fraction * static_cast<double>(size)) continue;
    sample.name = stretch.region.name;
    sample.begin = stretch.region.begin + place;
    clean(window, CasePolicy::upper, AmbiguousPolicy::mask, sample.name, sample.begin);  // refuses what is no nucleotide, naming the place
    return window;
  }
  fail<DataError>("sample ", index, ": ", kMaxDraws, " windows of ", length, " bases in a row had more than ", config.max_n_fraction,
                  " of letters other than A, C, G, T; raise max_n_fraction or choose regions without assembly gaps");
}

SequenceSampler::SequenceSampler(SamplerConfig config, uint64_t seed) {
  config.validate();
  auto opened = std::make_shared<const Sources>(open_sources(config));
  impl_ = std::make_unique<Impl>(std::move(config), seed, std::move(opened));
}

SequenceSampler::SequenceSampler(const SequenceSampler& opened, SamplerConfig config, uint64_t seed) {
  config.validate();
  const SamplerConfig& from = opened.impl_->config;
  FOCUS_CHECK(config.sources == from.sources && config.exclude == from.exclude, "the settings name other data than the opened sampler's");
  impl_ = std::make_unique<Impl>(std::move(config), seed, opened.impl_->sources);
}

SequenceSampler::~SequenceSampler() = default;
SequenceSampler::SequenceSampler(SequenceSampler&&) noexcept = default;
int64_t SequenceSampler::num_bases() const { return impl_->sources->num_bases; }
bool SequenceSampler::in_memory() const { return impl_->sources->in_memory; }

std::vector<DrawnStretch> SequenceSampler::stretches() const {
  std::vector<DrawnStretch> out;
  for (const Source& source : impl_->sources->list) {
    for (const Stretch& stretch : source.stretches) out.push_back({source.path, stretch.region});
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

Sample SequenceSampler::sample(uint64_t index, int64_t length) const {
  FOCUS_CHECK(length >= 2 && length <= INT32_MAX, "length of a training sequence: ", length);
  const SamplerConfig& config = impl_->config;
  Random random(impl_->seed, index);
  Sample result;
  std::string letters = impl_->draw_window(random, index, length, result);
  result.reverse = random.uniform() < config.reverse_complement;
  if (result.reverse) letters = reverse_complement(letters);
  result.copy_offset.assign(letters.size(), -1);
  result.copy_source.assign(letters.size(), -1);
  if (random.uniform() < config.copies.probability) plant_copies(config.copies, random, letters, result.copy_offset, result.copy_source);
  result.letters = clean(letters);
  result.weights = loss_weights(letters, static_cast<float>(config.lowercase_weight));
  for (std::size_t t = 0; t < letters.size(); ++t) {
    // In a copy the case of the source says nothing about how predictable the base is: only letters other than ACGT stay masked.
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

}  // namespace focus::data
