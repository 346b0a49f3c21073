#include "needles.h"

#include <algorithm>
#include <numeric>
#include <span>
#include <utility>

#include "focus/core/error.h"
#include "focus/core/hash.h"
#include "focus/core/random.h"
#include "focus/data/region.h"
#include "focus/infer/decode.h"

namespace focus::eval {
namespace {

std::string random_bases(Random& random, int64_t count) {
  std::string out;
  for (int64_t i = 0; i < count; ++i) out += "ACGT"[random.uniform_integer(4)];
  return out;
}

std::string substitute(Random& random, std::string text, int64_t count) {
  std::vector<std::size_t> places(text.size());
  std::iota(places.begin(), places.end(), std::size_t{0});
  random.shuffle(places);
  places.resize(static_cast<std::size_t>(count));
  for (const std::size_t place : places) {
    std::string others = "ACGT";
    std::erase(others, text[place]);
    text[place] = others[static_cast<std::size_t>(random.uniform_integer(3))];
  }
  return text;
}

}  // namespace

std::vector<double> needle_depths(const NeedleConfig& config) {
  constexpr double kFirst = 0.1, kLast = 0.9;
  if (config.questions == 1) return {0.5};
  std::vector<double> out;
  for (int64_t q = 0; q < config.questions; ++q)
    out.push_back(kFirst +
                  (kLast - kFirst) * static_cast<double>(q) / static_cast<double>(config.questions - 1));
  return out;
}

std::vector<Needle> make_needles(const NeedleConfig& config, uint64_t seed,
                                 const data::SampledSegment& segment) {
  const auto length = static_cast<int64_t>(segment.sequence.size());
  const int64_t size = 2 * config.size;
  const auto copies = static_cast<int64_t>(config.distractors.size()) + 1;
  FOCUS_CHECK(4 * size * config.questions * copies <= length, config.questions * copies, " needles of ", size,
              " bases in ", length);
  const std::string place =
      "needles " + data::format_region({segment.name, segment.begin, segment.begin + length});
  Random random(seed, fnv1a(place.data(), place.size()));
  std::vector<Needle> out;
  for (const double depth : needle_depths(config))
    out.push_back({static_cast<int64_t>(depth * static_cast<double>(length - size)),
                   random_bases(random, config.size), random_bases(random, config.size)});
  for (int64_t q = 0; q < config.questions; ++q) {
    for (const int64_t distance : config.distractors) {
      Needle near{0, substitute(random, out[static_cast<std::size_t>(q)].key, distance),
                  random_bases(random, config.size)};
      // A needle keeps less than its own length on both sides: half of the places at least are free.
      do near.begin = random.uniform_integer(length - size + 1);
      while (std::any_of(out.begin(), out.end(),
                         [&](const Needle& other) { return std::abs(other.begin - near.begin) < size; }));
      out.push_back(std::move(near));
    }
  }
  return out;
}

void hide(const std::vector<Needle>& needles, data::SampledSegment& segment) {
  for (const Needle& needle : needles)
    segment.sequence.replace(static_cast<std::size_t>(needle.begin), needle.key.size() + needle.value.size(),
                             needle.key + needle.value);
}

std::string answer(const Streamed& streamed, const report::Question& question) {
  const model::Backbone& backbone = *streamed.backbone;
  const model::Vocabulary& vocabulary = backbone.vocabulary();
  const std::vector<uint8_t> key(question.key.begin(), question.key.end());
  const at::Tensor key_BL = at::tensor(vocabulary.encode(key, "a needle"), at::kLong).unsqueeze(0);
  auto stream = streamed.read->fork();
  const at::Tensor hidden = stream->forward(key_BL.to(backbone.device()));
  infer::DecodeOptions options;
  options.choice.temperature = 0;
  options.allowed.assign(vocabulary.bases.begin(), vocabulary.bases.end());
  infer::Decoder decoder(backbone, std::move(stream), hidden.narrow(1, hidden.size(1) - 1, 1), options);
  const at::Tensor tokens = decoder.next(static_cast<int64_t>(question.value.size()))[0];
  std::string bases;
  for (const int64_t token : std::span(tokens.const_data_ptr<int64_t>(), question.value.size()))
    bases +=
        "ACGT"[std::find(options.allowed.begin(), options.allowed.end(), token) - options.allowed.begin()];
  return bases;
}

}  // namespace focus::eval
