#include "fidelity_ranks.h"

#include <algorithm>
#include <string_view>

#include "focus/compress/focus/adapter_file.h"
#include "focus/formats/digest.h"

namespace focus::eval {

using report::FidelityResult;
using report::MethodResult;

bool is_own(const distributed::Ranks& ranks, std::size_t s) {
  return static_cast<int64_t>(s) % ranks.size() == ranks.rank();
}

void require_same_run(distributed::Ranks& ranks, const FidelityConfig& config,
                      const data::SegmentSample& sample, const std::string& backbone_digest) {
  if (ranks.size() == 1) return;
  FidelityConfig shared = config;  // what is each rank's own affair left out
  shared.device.clear();
  shared.threads = 0;
  std::string letters;
  for (const auto& segment : sample.segments) letters += segment.sequence;
  std::string adapters;
  const auto add = [&](const std::string& path) {
    adapters += formats::file_digest(compress::adapter_file(path));
  };
  if (!config.adapter.empty()) add(config.adapter);
  for (const auto& [label, path] : config.adapters) add(path);
  distributed::require_agreement(ranks, {{"settings", config::to_json(shared)},
                                         {"backbone", backbone_digest},
                                         {"adapters", adapters},
                                         {"sequence", letters}});
}

report::PositionValues shared(distributed::Ranks& ranks, int64_t from, const report::PositionValues& values,
                              int64_t positions) {
  if (ranks.size() == 1) return values;
  report::PositionValues out;
  std::vector<at::Tensor> tensors;
  for (std::size_t m = 0; m < out.values.size(); ++m) {
    // In a sum, what another rank has is 0 here.
    if (ranks.rank() == from) {
      out.values[m] = values.values[m];
    } else {
      out.values[m].assign(static_cast<std::size_t>(positions), 0.0F);
    }
    tensors.push_back(at::from_blob(out.values[m].data(), {positions}, at::kFloat));
  }
  ranks.all_reduce_sum(tensors);
  return out;
}

namespace {

/// All ranks' answers, as numbers of bases, all of one size; `questions` behind each segment.
void merge_answers(distributed::Ranks& ranks, std::size_t questions, std::size_t bases,
                   std::vector<std::string>& answers) {
  constexpr std::string_view kBases = "ACGT";
  std::vector<float> numbers(answers.size() * bases);  // in a sum, what another rank has is 0 here
  for (std::size_t i = 0; i < answers.size(); ++i) {
    if (!is_own(ranks, i / questions)) continue;
    for (std::size_t b = 0; b < bases; ++b)
      numbers[i * bases + b] = static_cast<float>(kBases.find(answers[i][b]));
  }
  ranks.all_reduce_sum({at::from_blob(numbers.data(), {static_cast<int64_t>(numbers.size())}, at::kFloat)});
  for (std::size_t i = 0; i < answers.size(); ++i) {
    answers[i].resize(bases);
    for (std::size_t b = 0; b < bases; ++b)
      answers[i][b] = kBases[static_cast<std::size_t>(numbers[i * bases + b])];
  }
}

}  // namespace

void merge_costs(distributed::Ranks& ranks, FidelityResult& out) {
  if (ranks.size() == 1) return;
  std::vector<double> largest, seconds;
  for (MethodResult& method : out.methods) {
    if (!out.questions.empty())
      merge_answers(ranks, out.needle_depths.size(), out.questions[0].value.size(), method.answers);
    largest.insert(largest.end(),
                   {static_cast<double>(method.kept_entries), static_cast<double>(method.kept_bytes),
                    static_cast<double>(method.open_bytes), static_cast<double>(method.far_bytes)});
    seconds.push_back(method.seconds);
  }
  largest = ranks.largest(largest);
  seconds = ranks.sum(seconds);
  for (std::size_t m = 0; m < out.methods.size(); ++m) {
    out.methods[m].kept_entries = static_cast<int64_t>(largest[4 * m]);
    out.methods[m].kept_bytes = static_cast<int64_t>(largest[4 * m + 1]);
    out.methods[m].open_bytes = static_cast<int64_t>(largest[4 * m + 2]);
    out.methods[m].far_bytes = static_cast<int64_t>(largest[4 * m + 3]);
    out.methods[m].seconds = seconds[m];
  }
}

}  // namespace focus::eval
