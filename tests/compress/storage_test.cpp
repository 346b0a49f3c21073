#include "focus/compress/memory/storage.h"

#include <gtest/gtest.h>

#include "focus/compress/memory/memory_factory.h"
#include "focus/core/error.h"
#include "focus/ops/quantised.h"
#include "support/small_model.h"
#include "support/tensors.h"

namespace focus::compress {
namespace {

using at::Tensor;
using testing::max_difference;
using testing::random_bases;
using testing::small_model;

Entries random_entries(int64_t count, int64_t seed, bool with_beta = true) {
  at::manual_seed(static_cast<uint64_t>(seed));
  Entries out;
  out.k = at::randn({2, 3, count, 8});
  out.v = at::randn({2, 3, count, 8}) * 5.0 + 2.0;
  if (with_beta) out.beta = at::randn({2, 3, count});
  for (int64_t i = 0; i < count; ++i) out.origin.push_back({seed, i});
  return out;
}

StorageFormat format_of(StorageType type, int64_t bits = 0, int64_t key_group = 0) {
  StorageFormat f = StorageConfig{.dtype = type};
  if (bits > 0) f.bits = bits;
  f.key_group = key_group;
  return f;
}

class StoreTest : public ::testing::TestWithParam<StorageFormat> {};

TEST_P(StoreTest, HoldsTheBytesItPlansAndRoundsEachEntryOnce) {
  const at::NoGradGuard no_grad;
  const Entries first = random_entries(10, 1), second = random_entries(7, 2);
  EntryStore store(GetParam());
  store.append(first);
  const Entries once = store.read(first.k);
  store.append(second);
  const Entries both = store.read(first.k);
  EXPECT_EQ(store.size(), 17);
  EXPECT_EQ(max_difference(both.k.narrow(2, 0, 10), once.k), 0.0);
  EXPECT_EQ(max_difference(both.v.narrow(2, 10, 7), rounded(second, GetParam()).v), 0.0);
  EXPECT_EQ(max_difference(both.beta.narrow(2, 10, 7), second.beta), 0.0);
  int64_t expected = 17 * GetParam().entry_bytes(3, 8, at::kFloat, true);
  if (GetParam().key_group > 0)
    expected += (3 + 2) * 3 * 8 * 4;  // groups of 4: three of the first ten, two of the other seven
  EXPECT_EQ(store.num_bytes(), 2 * expected);
  EXPECT_EQ(store.bytes_from(0), store.num_bytes());

  const int64_t planned = store.bytes_from(6);
  store.keep(6, 17);
  EXPECT_EQ(store.num_bytes(), planned);
  EXPECT_EQ(max_difference(store.read(first.k).k, both.k.narrow(2, 6, 11)), 0.0);
  EXPECT_EQ(store.origin().front().index, 6);
  store.select({0, 3, 10});
  EXPECT_EQ(max_difference(store.read(first.k).v,
                           both.v.index_select(2, at::tensor(std::vector<int64_t>{6, 9, 16}))),
            0.0);
  store.append(second);
  EXPECT_EQ(max_difference(store.read(first.k).k.narrow(2, 3, 7), both.k.narrow(2, 10, 7)), 0.0);
  const ops::MemoryPart memory = store.memory(first.k);
  EXPECT_EQ(memory.size(), 10);
  EXPECT_EQ(memory.in_codes(), GetParam().bits > 0);
  if (memory.in_codes()) {
    // The store's own codes, not copies.
    EXPECT_EQ(memory.k_codes.codes.const_data_ptr(), store.memory(first.k).k_codes.codes.const_data_ptr());
    EXPECT_EQ(memory.v_codes.codes.size(3), 8 * GetParam().bits / 8);
  }
}

TEST_P(StoreTest, SavesLoadsAndClones) {
  const at::NoGradGuard no_grad;
  EntryStore store(GetParam()), loaded(GetParam());
  store.append(random_entries(5, 3, /*with_beta=*/false));
  store.append(random_entries(6, 4));
  cache::TensorMap saved;
  store.save(saved);
  loaded.load(saved, at::kCPU);
  const EntryStore copy = store.clone();
  const Tensor like = at::zeros({1});
  const Entries expected = store.read(like), read = loaded.read(like);
  store.keep(0, 1);
  for (const Entries& e : {read, copy.read(like)}) {
    EXPECT_EQ(max_difference(e.k, expected.k), 0.0);
    EXPECT_EQ(max_difference(e.v, expected.v), 0.0);
    EXPECT_EQ(max_difference(e.beta, expected.beta), 0.0);
  }
  EXPECT_EQ(loaded.origin().back().index, 5);
  EXPECT_EQ(copy.origin().back().index, 5);
  EXPECT_EQ(expected.beta.narrow(2, 0, 5).abs().max().item<double>(), 0.0);
  EntryStore other(format_of(StorageType::model, 4, 2));
  EXPECT_THROW(other.load(saved, at::kCPU), CheckpointError);
}

TEST_P(StoreTest, ErrorIsBounded) {
  const at::NoGradGuard no_grad;
  const Entries e = random_entries(16, 5), r = rounded(e, GetParam());
  const double bits = static_cast<double>(GetParam().bits);
  for (const auto& [exact, held] : {std::pair{e.k, r.k}, std::pair{e.v, r.v}}) {
    const double largest = exact.abs().max().item<double>(), error = max_difference(exact, held);
    if (bits > 0) {
      EXPECT_LE(error, 2 * largest / (std::pow(2.0, bits) - 1) / 2 + largest / 1024);
      EXPECT_GT(error, 0.0);
    } else {
      EXPECT_LE(error, GetParam().dtype == StorageType::bf16 ? largest / 256 : 0.0);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, StoreTest,
                         ::testing::Values(format_of(StorageType::model), format_of(StorageType::fp32),
                                           format_of(StorageType::bf16), format_of(StorageType::int8),
                                           format_of(StorageType::model, 8, 4),
                                           format_of(StorageType::model, 4, 4)),
                         [](const auto& format) {
                           const StorageFormat& f = format.param;
                           return concat("type", static_cast<int>(f.dtype), "_bits", f.bits, "_group",
                                         f.key_group);
                         });

TEST(QuantisedTest, OneStepForEachChannelOfAGroup) {
  // A channel that is large throughout costs the others nothing when keys are scaled channel by channel.
  at::manual_seed(6);
  Tensor k = at::randn({1, 1, 8, 4});
  k.select(3, 1).add_(1000.0);
  const auto error = [&](int64_t group) {
    return max_difference(ops::dequantise(ops::quantise(k, 4, group), at::kFloat).select(3, 0),
                          k.select(3, 0));
  };
  // Half a step of the channel's own range, and what fp16 takes off its scale.
  const double largest = k.select(3, 0).abs().max().item<double>(),
               bound = largest / (std::pow(2.0, 4) - 1) + largest / 1024;
  EXPECT_LE(error(8), bound);
  EXPECT_GT(error(0), bound);
  // Constant rows come back as they are, as near as fp16 can say.
  const Tensor flat = at::full({1, 1, 4, 4}, 0.75);
  EXPECT_LT(max_difference(ops::dequantise(ops::quantise(flat, 8, 0), at::kFloat), flat), 1e-3);
}

TEST(StorageTest, QuantisedEntriesRefuseGradients) {
  Entries e = random_entries(3, 7);
  e.k.requires_grad_(true);
  EntryStore store(format_of(StorageType::int8));
  EXPECT_THROW(store.append(e), ConfigError);
  EntryStore bf16(format_of(StorageType::bf16));
  bf16.append(e);
  bf16.read(e.k).k.sum().backward();
  EXPECT_EQ(max_difference(e.k.grad(), at::ones_like(e.k)), 0.0);
}

MemoryConfig config_of(StorageType type) {
  MemoryConfig c;
  c.window.size = 16;
  c.focus.k = 4;
  c.storage.dtype = type;
  return c;
}

TEST(StorageTest, BothExecutionsSeeTheSameRounding) {
  const at::NoGradGuard no_grad;
  const auto backbone = small_model(at::kDouble);
  const Tensor tokens = random_bases(2, 70, 8);
  Tensor exact;
  for (const StorageType type : {StorageType::model, StorageType::bf16, StorageType::int8}) {
    const CompressedModel model(backbone, testing::perturbed_adapter(*backbone, config_of(type)));
    const Tensor whole = model.parallel(tokens).bases;
    for (const int64_t chunk : {1, 7, 70}) {
      CompressedStream stream;
      std::vector<Tensor> parts;
      for (int64_t t = 0; t < 70; t += chunk)
        parts.push_back(model.forward(tokens.narrow(1, t, std::min<int64_t>(chunk, 70 - t)), stream).bases);
      EXPECT_LT(max_difference(at::cat(parts, 1), whole), 1e-6)
          << static_cast<int>(type) << " chunk " << chunk;
      const MemoryUse use = model.memory_use(stream);
      EXPECT_EQ(use.entries, 16);
      // The double model's beta has 8 bytes; the other types hold what is planned.
      EXPECT_EQ(use.retained_bytes, 2 * model.planned_use(70).retained_bytes + 2 * 16 * 2 * 2 * 4);
    }
    if (type == StorageType::model) exact = whole;
    const double difference = max_difference(whole, exact);
    EXPECT_EQ(difference > 0.0, type != StorageType::model);
    EXPECT_LT(difference, 0.1 * exact.abs().max().item<double>());
  }
}

// Codes are constants, so what both executions leave out of a gradient is the same.
TEST(QuantisedMemoryTest, BothExecutionsGiveTheBackboneTheSameGradients) {
  const auto backbone = small_model(at::kDouble);
  backbone->set_trainable(true);
  MemoryConfig config = config_of(StorageType::model);
  config.kind = MemoryKind::quantised;
  config.quantised = {.bits = 8, .key_group = 6};
  const CompressedModel model(backbone, std::make_shared<FocusAdapter>(*backbone, config, 0));
  const Tensor tokens = random_bases(2, 45, 10);
  at::manual_seed(11);
  const Tensor weighting = at::randn({2, 45, backbone->shape().width}, at::kDouble);
  const auto gradients = [&](const Tensor& hidden) {
    backbone->zero_grad();
    (hidden * weighting).sum().backward();
    std::vector<Tensor> out;
    for (const auto& parameter : backbone->parameters())
      out.push_back(parameter.grad().defined() ? parameter.grad().clone() : at::zeros_like(parameter));
    return out;
  };
  const std::vector<Tensor> whole = gradients(model.parallel(tokens).bases);
  CompressedStream stream;
  std::vector<Tensor> parts;
  for (int64_t t = 0; t < 45; t += 9) parts.push_back(model.forward(tokens.narrow(1, t, 9), stream).bases);
  const std::vector<Tensor> in_turn = gradients(at::cat(parts, 1));
  backbone->set_recompute(true);
  const std::vector<Tensor> repeated = gradients(model.parallel(tokens).bases);
  double largest = 0;
  for (std::size_t i = 0; i < whole.size(); ++i) {
    const double size = whole[i].norm().item<double>();
    largest = std::max(largest, size);
    EXPECT_LE(max_difference(in_turn[i], whole[i]), 1e-9 * (1 + size)) << i;
    EXPECT_LE(max_difference(repeated[i], whole[i]), 1e-9 * (1 + size)) << i;
  }
  EXPECT_GT(largest, 0.0);
}

TEST(StorageTest, RefusesWhatHasNoEffect) {
  const auto backbone = small_model(at::kFloat);
  const auto refuses = [&](const MemoryConfig& c, const std::string& policy) {
    EXPECT_THROW(make_memory(policy, backbone, c), ConfigError) << policy;
  };
  refuses(config_of(StorageType::fp32), "sliding");
  refuses(config_of(StorageType::bf16), "kv_quant_int8");
  const auto bf16 = small_model(at::kBFloat16);
  EXPECT_THROW(make_memory("state_only", bf16, config_of(StorageType::bf16)), ConfigError);
  MemoryConfig host = config_of(StorageType::model);
  host.storage.device = StorageDevice::host;
  refuses(host, "sliding");
  MemoryConfig none = config_of(StorageType::int8);
  none.focus.history = History::none;
  EXPECT_THROW(none.validate(), ConfigError);
}

TEST(StorageTest, RivalsGetTheBytesOfRoundedFocusEntries) {
  const at::NoGradGuard no_grad;
  const auto backbone = small_model(at::kFloat);
  const MemoryConfig config = config_of(StorageType::int8);
  const int64_t entry = focus_entry_bytes(*backbone, config);
  EXPECT_EQ(entry, 2 * (2 * 8 + 2 * 4 + 4));
  for (const char* name : {"sliding", "sinks", "heavy", "attention_match", "mean_pool"}) {
    const auto model = make_memory(name, backbone, config);
    CompressedStream stream;
    model->forward(random_bases(1, 160, 9), stream);
    EXPECT_LE(model->memory_use(stream).retained_bytes, 2 * 40 * entry) << name;
    EXPECT_GT(model->memory_use(stream).retained_bytes, 2 * 40 * entry * 9 / 10) << name;
  }
}

}  // namespace
}  // namespace focus::compress
