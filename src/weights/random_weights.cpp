#include "focus/weights/random_weights.h"

#include <c10/util/BFloat16.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <set>

#include "focus/core/error.h"
#include "focus/core/file.h"
#include "focus/core/random.h"
#include "focus/formats/torch_archive_writer.h"
#include "focus/model/parameter_list.h"

namespace focus::weights {

using formats::DType;
using formats::OpaqueEntry;
using formats::TensorView;

namespace {

using model::ModelConfig;
using model::ParameterSpec;

// Gain of every matrix on inputs of unit variance. The product of two gates, or of three Hyena branches,
// stays below one, so that a block adds at most half a unit of variance to the residual stream and 50 blocks
// leave it near four.
constexpr double kGain = 0.7;
// Standard deviation of the logits that the final norm and the tied unembedding give.
constexpr double kLogitSpread = 2.0;
constexpr int64_t kWindowBytes = 64;

bool is_matrix(const ParameterSpec& spec) {
  return spec.shape.size() == 2 && spec.name.ends_with(".weight") && spec.name.starts_with("blocks.");
}

/// Element `i` of a tensor that has memory of its own.
using Fill = std::function<double(int64_t i)>;

Fill fill_of(const ParameterSpec& spec, const ModelConfig& c, Random& random) {
  const auto ends = [&](const char* name) { return spec.name.ends_with(name); };
  const int64_t last = spec.shape.back();
  if (spec.name == "embedding_layer.weight") {
    const double spread = kLogitSpread / std::sqrt(static_cast<double>(c.hidden_size));
    return [&random, spread](int64_t) { return spread * random.normal(); };
  }
  if (ends(".scale")) return [](int64_t) { return 1.0; };
  if (ends(".bias")) return [&random](int64_t) { return 0.02 * random.normal(); };
  if (ends(".D")) return [&random](int64_t) { return 0.5 + 0.1 * random.normal(); };
  if (ends("inv_freq")) {
    const double dim = 2.0 * static_cast<double>(last);
    return [base = c.rotary_base, dim](int64_t i) {
      return 1.0 / std::pow(base, 2.0 * static_cast<double>(i) / dim);
    };
  }
  // The taps: the newest base passes, the others add a little.
  if (ends("short_filter_weight"))
    return [&random, last](int64_t i) { return (i % last == last - 1 ? 1.0 : 0.0) + 0.3 * random.normal(); };
  if (ends("filter.h")) {
    const double spread = 1.0 / std::sqrt(static_cast<double>(last));
    return [&random, spread](int64_t) { return spread * random.normal(); };
  }
  // Decay rates from 1e-4 per base (memory of ten thousand bases) to 1, evenly in their logarithm over the
  // modes. A residue falls with the square root of its rate, so that slow modes, which sum over many bases,
  // add no more than fast ones.
  const int64_t modes = c.state_size;
  const auto rate = [modes](int64_t i) {
    return std::pow(10.0, -4.0 + 4.0 * static_cast<double>(i % modes) /
                                     static_cast<double>(std::max<int64_t>(modes - 1, 1)));
  };
  if (ends("log_poles"))
    return [&random, rate](int64_t i) { return -rate(i) * std::exp(0.1 * random.normal()); };
  if (ends("residues"))
    return [&random, rate](int64_t i) { return 0.25 * std::sqrt(rate(i)) * random.normal(); };
  fail<InternalError>("no rule for random values of tensor '", spec.name, "'");
}

void write_values(std::byte* target, DType dtype, int64_t count, const Fill& value) {
  if (dtype == DType::bfloat16) {
    auto* out = reinterpret_cast<c10::BFloat16*>(target);
    for (int64_t i = 0; i < count; ++i) out[i] = static_cast<float>(value(i));
  } else {
    auto* out = reinterpret_cast<float*>(target);
    for (int64_t i = 0; i < count; ++i) out[i] = static_cast<float>(value(i));
  }
}

float value_at(const TensorView& tensor, int64_t i) {
  if (tensor.dtype == DType::bfloat16) return reinterpret_cast<const c10::BFloat16*>(tensor.data)[i];
  return reinterpret_cast<const float*>(tensor.data)[i];
}

}  // namespace

RandomWeights::RandomWeights(const ModelConfig& config, const RandomWeightsOptions& options) {
  if (options.dtype != DType::bfloat16 && options.dtype != DType::float32)
    fail<ConfigError>("a random checkpoint is written in bf16 or fp32, not ", name_of(options.dtype));
  if (config.fp8_input_projections && options.scratch.empty())
    fail<ConfigError>("model '", config.name,
                      "' has FP8 input projections; their scales need a scratch file");
  const auto list = model::parameter_list(config);
  const auto allocate = [&](int64_t num_bytes) {
    memory_.push_back(std::make_unique_for_overwrite<std::byte[]>(static_cast<std::size_t>(num_bytes)));
    return memory_.back().get();
  };

  const int64_t unit = kWindowBytes / size_of(options.dtype);
  int64_t largest = 0, num_matrices = 0;
  for (const ParameterSpec& spec : list) {
    if (!is_matrix(spec)) continue;
    largest = std::max(largest, spec.num_elements());
    ++num_matrices;
  }
  // Windows may begin in the first eighth of the pool, or a little further where that gives too few places.
  const int64_t places = std::max(4 * num_matrices, largest / 8 / unit);
  const int64_t pool_elements = largest + places * unit;
  Random values(options.seed, 0), offsets(options.seed, 1);
  std::byte* pool = allocate(pool_elements * size_of(options.dtype));
  const double spread = kGain / std::sqrt(static_cast<double>(config.hidden_size));
  write_values(pool, options.dtype, pool_elements, [&](int64_t) { return spread * values.normal(); });

  float weight_amax = 0;
  const TensorView whole{"", options.dtype, {pool_elements}, pool};
  for (int64_t i = 0; config.fp8_input_projections && i < pool_elements; ++i)
    weight_amax = std::max(weight_amax, std::abs(value_at(whole, i)));
  if (config.fp8_input_projections) add_fp8_state(config, weight_amax, options.scratch);

  std::set<int64_t> taken;
  for (const ParameterSpec& spec : list) {
    const DType dtype = spec.fp32 ? DType::float32 : options.dtype;
    const int64_t count = spec.num_elements();
    if (is_matrix(spec)) {
      int64_t place = offsets.uniform_integer(places);
      while (!taken.insert(place).second) place = (place + 1) % places;
      tensors_.push_back({spec.name, dtype, spec.shape, pool + place * kWindowBytes});
      continue;
    }
    std::byte* own = allocate(count * size_of(dtype));
    write_values(own, dtype, count, fill_of(spec, config, values));
    tensors_.push_back({spec.name, dtype, spec.shape, own});
  }
}

void RandomWeights::add_fp8_state(const ModelConfig& config, float weight_amax,
                                  const std::filesystem::path& scratch) {
  // Delayed scaling's rule: the largest value seen becomes the largest of E4M3. Inputs have unit variance
  // behind their norm.
  constexpr float kLargestE4m3 = 448, kInputAmax = 6;
  const std::vector<float> scales = {kLargestE4m3 / kInputAmax, kLargestE4m3 / weight_amax, 1},
                           amax = {kInputAmax, weight_amax, 0};
  const auto bytes = [](const std::vector<float>& values) {
    return reinterpret_cast<const std::byte*>(values.data());
  };
  formats::write_torch_archive(scratch, {{"scale_fwd", DType::float32, {3}, bytes(scales)},
                                         {"amax_history_fwd", DType::float32, {1, 3}, bytes(amax)}});
  fp8_state_ = read_file(scratch);
  std::error_code ignored;
  std::filesystem::remove(scratch, ignored);
  const std::span<const std::byte> content(reinterpret_cast<const std::byte*>(fp8_state_.data()),
                                           fp8_state_.size());
  for (std::size_t i = 0; i < config.blocks.size(); ++i) {
    if (config.blocks[i] != model::BlockKind::attention)
      opaque_.push_back(
          {concat("blocks.", i, ".projections._extra_state"), OpaqueEntry::Kind::byte_stream, content});
  }
}

}  // namespace focus::weights
