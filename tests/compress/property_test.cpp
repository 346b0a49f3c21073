// Configurations drawn at random, in fp64: the two executions agree in logits and gradients, with and without
// activations computed again, nothing looks ahead, and a stream holds what the plan says. The draws are the
// same in every run, unless the environment asks for others: FOCUS_PROPERTY_SEED is the first seed, or
// `random`; FOCUS_PROPERTY_DRAWS their number.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "focus/compress/compressed_model.h"
#include "focus/core/error.h"
#include "focus/core/random.h"
#include "support/random_memory.h"
#include "support/small_model.h"
#include "support/tensors.h"

namespace focus::compress {
namespace {

using at::Tensor;
using testing::max_difference;

// Relative difference that rounding may make. Entries made from entries over and over let it grow to far more
// than one rounding.
constexpr double kRounding = 1e-9;

std::string setting(const char* name, const char* otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr ? text : otherwise;
}

struct Draw {
  int64_t seed = 0, length = 0;
  bool llama = false;
  MemoryConfig config;
  std::vector<int64_t> chunks;
  std::shared_ptr<model::Backbone> backbone;
  std::shared_ptr<FocusAdapter> adapter;
  Tensor tokens;

  std::shared_ptr<model::Backbone> new_backbone(at::ScalarType type) const {
    if (llama) return testing::small_llama(type);
    return testing::small_model(type);
  }
};

Draw draw(int64_t seed) {
  Draw out;
  out.seed = seed;
  out.config = testing::random_memory(seed);
  Random random(static_cast<uint64_t>(seed), /*stream=*/1);
  // The schedules name blocks of the hybrid model.
  out.llama = out.config.focus.schedule.empty() && random.uniform() < 0.3;
  out.backbone = out.new_backbone(at::kDouble);
  out.adapter = testing::perturbed_adapter(*out.backbone, out.config, seed);
  out.length = random.uniform_integer(25, 90);
  const int64_t longest = random.uniform_integer(1, 40);
  for (int64_t left = out.length; left > 0; left -= out.chunks.back())
    out.chunks.push_back(std::min(left, random.uniform_integer(1, longest)));
  out.tokens = testing::random_bases(1, out.length, seed);
  return out;
}

Tensor parallel_logits(const CompressedModel& model, const Tensor& tokens) {
  return model.backbone().unembed(model.parallel(tokens).bases);
}

Tensor stream_logits(const CompressedModel& model, const Tensor& tokens, const std::vector<int64_t>& chunks,
                     const std::function<void(const CompressedStream&)>& after_chunk = {}) {
  CompressedStream stream;
  std::vector<Tensor> parts;
  for (const int64_t chunk : chunks) {
    parts.push_back(
        model.backbone().unembed(model.forward(tokens.narrow(1, stream.bases, chunk), stream).bases));
    if (after_chunk) after_chunk(stream);
  }
  return at::cat(parts, 1);
}

/// In fp32: a model in fp64 keeps beta in fp64 too, which no real one does.
void check_memory(const Draw& d) {
  at::NoGradGuard guard;
  const auto backbone = d.new_backbone(at::kFloat);
  const CompressedModel model(backbone, testing::perturbed_adapter(*backbone, d.config, d.seed));
  stream_logits(model, d.tokens, d.chunks, [&](const CompressedStream& stream) {
    const MemoryUse use = model.memory_use(stream), planned = model.planned_use(stream.bases);
    EXPECT_EQ(use.entries, planned.entries) << "after " << stream.bases << " bases";
    EXPECT_EQ(use.retained_bytes, planned.retained_bytes) << "after " << stream.bases << " bases";
    // The letters' index is planned as the most it may be.
    const int64_t index = stream.far != nullptr ? stream.far->num_bytes() : 0;
    const int64_t planned_index =
        stream.far != nullptr ? FarChooser::planned_bytes(d.config.far, model.plan(), stream.bases) : 0;
    EXPECT_LE(index, planned_index) << "after " << stream.bases << " bases";
    // So is a store whose k-mers go by use.
    const int64_t stored = use.far_bytes - index, planned_stored = planned.far_bytes - planned_index;
    if (d.config.far.evicts_by_use()) {
      EXPECT_LE(stored, planned_stored) << "after " << stream.bases << " bases";
    } else {
      EXPECT_EQ(stored, planned_stored) << "after " << stream.bases << " bases";
    }
    if (d.config.focus.stream == Stream::side) {
      EXPECT_EQ(use.open_bytes, planned.open_bytes) << "after " << stream.bases << " bases";
    }
  });
}

void check_logits(const Draw& d, const CompressedModel& model) {
  at::NoGradGuard guard;
  const Tensor expected = parallel_logits(model, d.tokens),
               streamed = stream_logits(model, d.tokens, d.chunks);
  const double bound = kRounding * expected.abs().max().item<double>();
  EXPECT_LT(max_difference(streamed, expected), bound);

  // Causality: another base at t changes nothing before t.
  Random random(static_cast<uint64_t>(d.seed), /*stream=*/2);
  const int64_t t = random.uniform_integer(1, d.length - 1);
  Tensor changed = d.tokens.clone();
  changed[0][t] = changed[0][t].item<int64_t>() == 'A' ? int64_t{'C'} : int64_t{'A'};
  const auto before = [t](const Tensor& logits) { return logits.narrow(1, 0, t); };
  EXPECT_LT(max_difference(before(parallel_logits(model, changed)), before(expected)), bound) << "base " << t;
  EXPECT_LT(max_difference(before(stream_logits(model, changed, d.chunks)), before(streamed)), bound)
      << "base " << t;
}

using Gradients = std::map<std::string, Tensor>;

/// Of a random weighting of the logits; zeros where nothing depends on a parameter.
Gradients gradients_of(const Draw& d, const Tensor& logits) {
  at::manual_seed(static_cast<uint64_t>(d.seed));
  d.adapter->zero_grad();
  if (logits.requires_grad()) (logits * at::randn(logits.sizes(), at::kDouble)).sum().backward();
  Gradients out;
  for (const auto& item : d.adapter->named_parameters()) {
    const Tensor gradient = item.value().grad();
    out.emplace(item.key(), gradient.defined() ? gradient : at::zeros_like(item.value()));
  }
  return out;
}

void check_gradients(const Draw& d, const CompressedModel& model) {
  const Gradients parallel = gradients_of(d, parallel_logits(model, d.tokens));
  const Gradients sequential = gradients_of(d, stream_logits(model, d.tokens, d.chunks));
  d.backbone->set_recompute(true);
  const Gradients repeated = gradients_of(d, parallel_logits(model, d.tokens));
  d.backbone->set_recompute(false);
  const auto norm = [](const Tensor& x) { return x.norm().item<double>(); };
  double largest = 0;
  for (const auto& [name, gradient] : parallel) largest = std::max(largest, norm(gradient));
  for (const auto& [name, gradient] : parallel) {
    const double bound = kRounding * (norm(gradient) + 0.01 * largest);
    EXPECT_LE(norm(sequential.at(name) - gradient), bound) << name;
    EXPECT_LE(norm(repeated.at(name) - gradient), bound) << name << ", activations computed again";
  }
}

TEST(PropertyTest, SequentialEqualsParallelAndNothingLooksAhead) {
  const std::string wish = setting("FOCUS_PROPERTY_SEED", "1");
  const int64_t first =
      wish == "random" ? static_cast<int64_t>(std::random_device{}() % 1'000'000'000) : std::stoll(wish);
  const int64_t draws = std::stoll(setting("FOCUS_PROPERTY_DRAWS", "200"));
  std::cout << "seeds " << first << " to " << first + draws - 1 << "\n";
  for (int64_t seed = first; seed < first + draws; ++seed) {
    const Draw d = draw(seed);
    SCOPED_TRACE(
        concat("FOCUS_PROPERTY_SEED=", seed, " FOCUS_PROPERTY_DRAWS=1 repeats it: ", d.length, " bases"));
    const CompressedModel model(d.backbone, d.adapter);
    try {
      check_memory(d);
      check_logits(d, model);
      check_gradients(d, model);
    } catch (const std::exception& error) {
      ADD_FAILURE() << error.what();
    }
    ASSERT_FALSE(HasFailure()) << "stopped at this draw; its configuration: " << config::to_json(d.config);
  }
}

}  // namespace
}  // namespace focus::compress
