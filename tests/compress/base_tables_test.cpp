// Letters kept instead of keys and values, and the tables that predict these.
#include "focus/compress/tables/tables_fit.h"

#include <gtest/gtest.h>

#include "focus/compress/focus/adapter_file.h"
#include "focus/compress/memory/memory_factory.h"
#include "focus/core/error.h"
#include "focus/ops/attention.h"
#include "support/small_model.h"
#include "support/tensors.h"

namespace focus::compress {
namespace {

using at::Tensor;
using testing::max_difference;
using testing::random_bases;
using testing::relative_rms;
using testing::small_model;

Tensor random_codes(int64_t batch, int64_t count, int64_t seed) {
  at::manual_seed(static_cast<uint64_t>(seed));
  return at::randint(0, 5, {batch, count}, at::kByte);
}

TEST(PackedBasesTest, GivesBackWhatWasAppendedInPieces) {
  const Tensor codes = random_codes(2, 20'011, 1);
  PackedBases packed;
  int64_t done = 0;
  for (const int64_t piece : {1, 1, 2, 3, 9000, 1, 11'003}) {
    packed.append(codes.narrow(1, done, piece));
    done += piece;
    ASSERT_EQ(packed.size(), done);
    ASSERT_EQ(packed.num_bytes(), PackedBases::bytes_of(2, done));
    ASSERT_TRUE(at::equal(packed.codes(0, done), codes.narrow(1, 0, done)));
  }
  EXPECT_TRUE(at::equal(packed.codes(777, 9005), codes.narrow(1, 777, 9005 - 777)));
  EXPECT_TRUE(packed.codes(-3, 2).narrow(1, 0, 3).eq(kUnknownBase).all().item<bool>());
  PackedBases again;
  again.load(packed.saved(), packed.size());
  again.append(codes.narrow(1, 0, 5));
  EXPECT_TRUE(at::equal(again.codes(0, done), codes.narrow(1, 0, done)));
  EXPECT_TRUE(at::equal(again.codes(done, done + 5), codes.narrow(1, 0, 5)));
  PackedBases wrong;
  EXPECT_THROW(wrong.load(packed.saved(), 7), CheckpointError);
  EXPECT_LE(PackedBases::bytes_of(1, 1'000'000), 500'000 + 4096);
}

TEST(BaseCodesTest, KnowsBothCasesAndNothingElse) {
  const auto vocabulary = model::Vocabulary::bytes(128);
  const Tensor tokens =
      at::tensor({int64_t{'A'}, int64_t{'c'}, int64_t{'G'}, int64_t{'t'}, int64_t{'N'}, int64_t{'R'}})
          .unsqueeze(0);
  EXPECT_TRUE(at::equal(base_codes(tokens, vocabulary)[0], at::tensor({0, 1, 2, 3, 4, 4}).to(at::kByte)));
}

class BaseTablesTest : public ::testing::Test {
 protected:
  static MemoryConfig config(int64_t word, int64_t words) {
    MemoryConfig c;
    c.window.size = 16;
    c.focus.k = 5;
    c.kind = MemoryKind::tables;
    c.tables.word = word;
    c.tables.offsets.clear();
    for (int64_t i = 0; i < words; ++i) c.tables.offsets.push_back(i * word);
    c.tables.ridge = 1e-3;
    return c;
  }
};

// The prediction, counted out letter by letter.
TEST_F(BaseTablesTest, AddsARowForEachWordBehindTheBase) {
  const at::NoGradGuard guard;
  const auto backbone = small_model(at::kFloat);
  const MemoryConfig c = config(2, 3);
  BaseTables tables(c.tables, backbone->shape());
  at::manual_seed(3);
  for (Tensor& parameter : tables.parameters()) parameter.normal_();
  const Tensor codes = random_codes(1, 40, 4);
  const auto [key, value] = tables.predict(codes, 40);
  const int64_t heads = backbone->shape().num_kv_heads, dim = backbone->shape().head_dim;
  for (int64_t t = 0; t < 40; ++t) {
    Tensor expected = tables.key_mean.clone();
    for (int64_t word = 0; word < 3; ++word) {
      int64_t row = 0;
      for (int64_t letter = 0; letter < 2; ++letter) {
        const int64_t at = t - 2 * word - letter, code = at < 0 ? kUnknownBase : codes[0][at].item<int64_t>();
        row = code == kUnknownBase || row == 16 ? 16 : row + (code << (2 * letter));
      }
      expected = expected + tables.key[word][row];
    }
    const Tensor got = key[0].select(1, t).reshape({heads * dim});
    ASSERT_LT(max_difference(got, expected), 1e-5) << t;
  }
  // The last few alone, with no more letters than they need.
  const auto part = tables.predict(codes.narrow(1, 40 - 7 - 5, 7 + 5), 7);
  EXPECT_LT(max_difference(part.second, value.narrow(2, 33, 7)), 1e-6);
}

/// Plain attention that keeps the values of one block, [n, C].
class ValueRecorder final : public model::AttentionHook {
 public:
  explicit ValueRecorder(int64_t block) : block_(block) {}
  Tensor mix(const model::AttentionCall& call) override {
    if (call.block == block_) values = call.attention.project_part(call.u_BLD, 2).flatten(0, 1);
    return model::attend(call.attention, call.u_BLD, call.position, nullptr);
  }
  std::unique_ptr<cache::LayerState> make_state(int64_t) override { return nullptr; }
  Tensor values;

 private:
  int64_t block_;
};

// What the fit says it leaves is what its tables leave, counted base by base; and it is the best that tables
// can do.
TEST_F(BaseTablesTest, TheFitIsTheLeastSquaresSolutionAndSaysWhatItLeaves) {
  const at::NoGradGuard guard;
  const auto backbone = small_model(at::kFloat);
  const MemoryConfig c = config(2, 3);
  const auto adapter = std::make_shared<FocusAdapter>(*backbone, c, 0);
  const int64_t block = backbone->attention_blocks()[1];
  BaseTables& tables = *adapter->tables(block);
  TablesFit fit(*backbone, {{block, &tables}}, c.tables);
  const Tensor tokens = random_bases(3, 400, 21);
  fit.add(tokens);
  const double said = fit.solve().at(block).second;
  ValueRecorder recorder(block);
  backbone->forward_embedded(backbone->embed(tokens), nullptr, &recorder);
  const Tensor codes = base_codes(tokens, backbone->vocabulary());
  const auto left = [&] {
    const Tensor predicted = tables.predict(codes, 400).second.transpose(1, 2).flatten(2).flatten(0, 1);
    return (recorder.values - predicted).pow(2).sum(at::kDouble).item<double>();
  };
  const double all = (recorder.values - recorder.values.mean(0, true)).pow(2).sum(at::kDouble).item<double>(),
               best = left();
  EXPECT_NEAR(best / all, said, 1e-4);
  EXPECT_LT(best, all);
  for (int64_t seed = 0; seed < 5; ++seed) {
    at::manual_seed(static_cast<uint64_t>(seed));
    const Tensor before = tables.value.clone();
    tables.value.add_(at::randn(before.sizes()) * 0.02);
    EXPECT_GT(left(), best) << seed;
    tables.value.copy_(before);
  }
}

// On the small random model, whose keys are no tables, the fit explains some of them, and what it explains
// helps.
TEST_F(BaseTablesTest, TheFitExplainsKeysAndHelps) {
  const at::NoGradGuard guard;
  const auto backbone = small_model(at::kFloat);
  const MemoryConfig c = config(2, 4);
  const auto adapter = std::make_shared<FocusAdapter>(*backbone, c, 0);
  std::map<int64_t, BaseTables*> tables;
  for (const int64_t block : backbone->attention_blocks()) tables[block] = adapter->tables(block).get();
  TablesFit fit(*backbone, tables, c.tables);
  for (int64_t i = 0; i < 40; ++i) fit.add(random_bases(2, 300, 100 + i));
  const auto unexplained = fit.solve();
  ASSERT_EQ(unexplained.size(), 2U);
  for (const auto& [block, shares] : unexplained) {
    EXPECT_LT(shares.first, 0.9) << block;
    EXPECT_GE(shares.first, 0.0) << block;
    EXPECT_LT(shares.second, 0.9) << block;
    // beta is half of the score variance that is left.
    EXPECT_GT(adapter->tables(block)->beta.min().item<double>(), 0.0);
  }
  // What is left on other sequences is what the fit said: no more than noise of the sample apart.
  const Tensor tokens = random_bases(2, 300, 999), expected = backbone->forward(tokens);
  MemoryConfig plain;
  plain.window = c.window;
  plain.focus.k = c.focus.k;
  const CompressedModel model(backbone, adapter);
  const auto none = make_memory("state_only", backbone, plain);
  CompressedStream a, b;
  const double with = relative_rms(backbone->unembed(model.forward(tokens, a).bases), expected);
  const double without = relative_rms(backbone->unembed(none->forward(tokens, b).bases), expected);
  EXPECT_LT(with, 0.85 * without) << with << " against " << without;
}

TEST_F(BaseTablesTest, BlocksOfThePastGiveTheSameAsAllAtOnceAndTheSameGradients) {
  const auto backbone = small_model(at::kFloat);
  const MemoryConfig c = config(3, 2);
  const auto adapter = testing::perturbed_adapter(*backbone, c);
  const int64_t block = backbone->attention_blocks()[0], heads = backbone->shape().num_heads,
                dim = backbone->shape().head_dim;
  PackedBases letters;
  letters.append(random_codes(2, 120, 5));
  at::manual_seed(6);
  const BaseTables& tables = *adapter->tables(block);
  std::vector<Tensor> leaves = tables.parameters();
  for (int i = 0; i < 3; ++i) leaves.push_back(at::randn({2, heads, 20, dim}).set_requires_grad(true));
  const Tensor weighting = at::randn({2, heads, 20, dim});
  const auto& attention = *backbone->block(block).attention();
  const auto run = [&](int64_t size) {
    const auto qkv = leaves.end() - 3;
    return attend_letters(qkv[0], attention, tables, letters, 100, qkv[1], qkv[2], size);
  };
  const auto gradients = [&](int64_t size) {
    for (Tensor& leaf : leaves) leaf.mutable_grad() = Tensor();
    run(size).backward(weighting);
    std::vector<Tensor> out;
    for (const Tensor& leaf : leaves) out.push_back(leaf.grad());
    return out;
  };
  const Tensor whole = run(1000).detach();
  const auto of_whole = gradients(1000);
  for (const int64_t size : {7, 50}) {
    EXPECT_LT(max_difference(run(size), whole), 2e-6) << size;
    {
      const at::NoGradGuard guard;
      EXPECT_LT(max_difference(run(size), whole), 2e-6) << size;
    }
    const auto of_blocks = gradients(size);
    for (std::size_t i = 0; i < leaves.size(); ++i)
      EXPECT_LT(max_difference(of_blocks[i], of_whole[i]), 1e-5) << size << ", leaf " << i;
  }
}

TEST_F(BaseTablesTest, ABaseCostsHalfAByteAndNothingElse) {
  const at::NoGradGuard guard;
  const auto backbone = small_model(at::kFloat);
  const CompressedModel model(backbone, testing::perturbed_adapter(*backbone, config(2, 2)));
  CompressedStream stream;
  const Tensor tokens = random_bases(1, 3'200, 8);
  for (int64_t t = 0; t < 3'200; t += 400) model.forward(tokens.narrow(1, t, 400), stream);
  const MemoryUse use = model.memory_use(stream);
  EXPECT_EQ(use.entries, 3'200);
  EXPECT_EQ(use.retained_bytes, 2 * PackedBases::bytes_of(1, 3'200));
  EXPECT_EQ(use.open_bytes, 0);
  EXPECT_EQ(model.planned_use(3'200).retained_bytes, use.retained_bytes);
}

// A layer's own k makes its windows shorter, or longer, than the model's where windows are counted in Focus
// tokens.
TEST_F(BaseTablesTest, RawBasesGoWhenTheLayersOwnWindowEnds) {
  const at::NoGradGuard guard;
  const auto backbone = small_model(at::kFloat);
  MemoryConfig c = config(2, 2);
  c.focus.k = 6;
  c.window = {.size = 4, .unit = WindowUnit::focus};  // 24 bases, then 18
  for (const int64_t k : {3, 8}) {
    c.focus.schedule = {{.from = 4, .to = 4, .k = k}};
    const CompressedModel model(backbone, testing::perturbed_adapter(*backbone, c));
    const Tensor tokens = random_bases(1, 80, 10);
    CompressedStream stream;
    for (int64_t t = 0; t < 80; ++t) {
      model.forward(tokens.narrow(1, t, 1), stream);
      const MemoryUse use = model.memory_use(stream), planned = model.planned_use(t + 1);
      EXPECT_EQ(use.entries, planned.entries) << "after " << t + 1 << " bases, k " << k;
      EXPECT_EQ(use.open_bytes, planned.open_bytes) << "after " << t + 1 << " bases, k " << k;
    }
  }
}

TEST_F(BaseTablesTest, SavedAndLoadedAdaptersAndStreamsGoOnAlike) {
  const at::NoGradGuard guard;
  const auto backbone = small_model(at::kFloat);
  const CompressedModel model(backbone, testing::perturbed_adapter(*backbone, config(2, 2)));
  const Tensor tokens = random_bases(1, 90, 9);
  CompressedStream stream;
  model.forward(tokens.narrow(1, 0, 41), stream);
  CompressedStream loaded;
  loaded.bases = stream.bases;
  loaded.backbone.position = stream.backbone.position;
  loaded.backbone.layers = model.new_layers();
  for (std::size_t i = 0; i < loaded.backbone.layers.size(); ++i)
    loaded.backbone.layers[i]->load(stream.backbone.layers[i]->save(), at::kCPU);
  EXPECT_TRUE(at::equal(model.forward(tokens.narrow(1, 41, 49), loaded).bases,
                        model.forward(tokens.narrow(1, 41, 49), stream).bases));
}

TEST_F(BaseTablesTest, SettingsWithoutMeaningAreRefused) {
  MemoryConfig c = config(4, 4);
  c.focus.stream = Stream::inline_tokens;
  EXPECT_THROW(c.validate(), ConfigError);
  c = config(4, 4);
  c.focus.sinks = 3;
  EXPECT_THROW(c.validate(), ConfigError);
  c = config(4, 4);
  c.focus.share = Share::all;
  EXPECT_THROW(c.validate(), ConfigError);
  c = config(4, 4);
  c.storage.dtype = StorageType::bf16;
  EXPECT_THROW(c.validate(), ConfigError);
  c = config(8, 1);
  EXPECT_THROW(c.validate(), ConfigError) << "a regression of 65,537 rows";
  c = MemoryConfig{};
  c.tables.offsets = {0};
  EXPECT_THROW(c.validate(), ConfigError);
}

}  // namespace
}  // namespace focus::compress
