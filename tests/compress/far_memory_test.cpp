// Far memory: what is fetched stands in for the summaries that it replaces, is the same however a sequence is
// cut, and lies where the settings say.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <filesystem>
#include <functional>
#include <tuple>

#include "far_store.h"
#include "focus/compress/memory/memory_factory.h"
#include "focus/core/error.h"
#include "support/small_model.h"
#include "support/temporary_folder.h"
#include "support/tensors.h"

namespace focus::compress {
namespace {

using at::Tensor;
using testing::max_difference;
using testing::random_bases;
using testing::small_model;

constexpr int64_t kLength = 75;

/// Seeds of two bases: in sequences this short, they are found everywhere.
MemoryConfig settings(int64_t kmers = 3) {
  MemoryConfig c;
  c.window.size = 16;
  c.focus.k = 5;
  c.focus.fitted.reference_stride = 2;
  c.focus.fitted.check = false;
  c.far.kmers = kmers;
  c.far.refresh = 4;
  c.far.seeds.seed = 2;
  return c;
}

/// Every k-mer of the past gets votes.
MemoryConfig all_fetched() {
  MemoryConfig c = settings(1000);
  c.far.seeds.seed = 1;
  c.far.seeds.most_hits = 1000;
  c.far.seeds.width = 16;
  return c;
}

Tensor streamed(const CompressedModel& model, const Tensor& tokens, int64_t chunk,
                const std::function<void(const CompressedStream&)>& after = {}) {
  CompressedStream stream;
  std::vector<Tensor> parts;
  for (int64_t begin = 0; begin < tokens.size(1); begin += chunk) {
    const int64_t count = std::min(chunk, tokens.size(1) - begin);
    parts.push_back(model.forward(tokens.narrow(1, begin, count), stream).bases);
    if (after) after(stream);
  }
  return at::cat(parts, 1);
}

Tensor streamed(const std::string& memory, const MemoryConfig& config, const Tensor& tokens,
                int64_t chunk = 16) {
  return streamed(*make_memory(memory, small_model(at::kDouble), config), tokens, chunk);
}

class FarMemoryTest : public ::testing::Test {
 protected:
  at::NoGradGuard guard_;
  Tensor tokens_ = random_bases(1, kLength, 3);
};

TEST_F(FarMemoryTest, FetchingEveryKmerIsFullMemory) {
  const Tensor full = streamed("full", settings(), tokens_);
  EXPECT_GT(max_difference(streamed("state_only", settings(), tokens_), full), 1e-4);
  for (const char* memory : {"far_state_only", "far_fitted", "far_kv_quant_int4", "far_mixture"})
    EXPECT_LT(max_difference(streamed(memory, all_fetched(), tokens_), full), 1e-10) << memory;
}

TEST_F(FarMemoryTest, WhereNothingIsFoundItIsTheMemoryItStandsOn) {
  MemoryConfig c = settings();
  c.far.seeds.seed = 31;
  for (const char* memory : {"state_only", "fitted", "kv_quant_int4", "mixture"})
    EXPECT_EQ(max_difference(streamed(concat("far_", memory), c, tokens_), streamed(memory, c, tokens_)), 0)
        << memory;
  c.far.seeds.seed = 2;
  EXPECT_GT(max_difference(streamed("far_fitted", c, tokens_), streamed("fitted", c, tokens_)), 1e-6);
}

TEST_F(FarMemoryTest, EveryStoreAndPlaceAgreesInChunksAndAtOnce) {
  const testing::TemporaryFolder folder;
  for (const FarStoreType store :
       {FarStoreType::model, FarStoreType::bf16, FarStoreType::int8, FarStoreType::int4}) {
    for (const FarPlace place : {FarPlace::model, FarPlace::file}) {
      MemoryConfig c = settings();
      c.far.store = store;
      c.far.place = place;
      if (store == FarStoreType::bf16 || place != FarPlace::model) c.far.hot = 2;
      if (place == FarPlace::file) c.far.folder = folder.path().string();
      for (const char* memory : {"far_fitted", "far_mixture"}) {
        const auto model = make_memory(memory, small_model(at::kDouble), c);
        const Tensor whole = model->parallel(tokens_).bases;
        for (const int64_t chunk : {1, 7, 75})
          EXPECT_LT(max_difference(streamed(*model, tokens_, chunk), whole), 1e-11)
              << memory << " " << config::to_json(c.far) << " chunk " << chunk;
      }
    }
  }
}

TEST_F(FarMemoryTest, StoresRoundByHalfAStepAtMost) {
  const Tensor k = at::randn({2, 3, 7, 8}), v = at::randn({2, 3, 7, 8});
  for (const auto& [store, steps] : {std::pair{FarStoreType::int8, 255.0}, {FarStoreType::int4, 15.0}}) {
    FarConfig config;
    config.store = store;
    FarStore held(config);
    held.append({{k, v}});
    const ops::MemoryPart codes = held.read(0, k), read = codes.decoded(at::kFloat);
    EXPECT_EQ(codes.k_codes.codes.storage().data(), held.read(0, k).v_codes.low.storage().data());
    // Keys step by channel, values by base; low and step are fp16.
    const Tensor step_k = (k.amax(2, true) - k.amin(2, true)) / steps,
                 step_v = (v.amax(3, true) - v.amin(3, true)) / steps;
    EXPECT_TRUE((read.k - k).abs().le(step_k / 2 + 4e-3).all().item<bool>());
    EXPECT_TRUE((read.v - v).abs().le(step_v / 2 + 4e-3).all().item<bool>());
    EXPECT_GT((read.k - k).abs().max().item<double>(), 0);
    EXPECT_EQ(held.num_bytes(), 2 * FarStore::kmer_bytes(store, 7, 3, 8, at::kFloat));
  }
}

TEST_F(FarMemoryTest, ABatchFetchesForEachOfItsSequences) {
  const Tensor two = at::cat({tokens_, random_bases(1, kLength, 9)}, 0);
  for (const int64_t gate : {0, 2}) {
    MemoryConfig c = settings();
    c.far.gate = gate;
    const Tensor both = streamed("far_fitted", c, two);
    for (int64_t b = 0; b < 2; ++b)
      EXPECT_LT(max_difference(both.narrow(0, b, 1), streamed("far_fitted", c, two.narrow(0, b, 1))), 1e-11);
  }
}

TEST_F(FarMemoryTest, TheGateHidesSummariesWhereVotesAreMany) {
  MemoryConfig c = settings();
  c.far.seeds.seed = 1;  // every tile fetches
  c.far.gate = 1;
  EXPECT_LT(max_difference(streamed("far_fitted", c, tokens_), streamed("far_state_only", c, tokens_)),
            1e-11);
  // The newest bases are no summaries.
  const Tensor newest = streamed("far_kv_quant_int4", c, tokens_);
  c.far.gate = 0;
  EXPECT_EQ(max_difference(streamed("far_kv_quant_int4", c, tokens_), newest), 0);
  c.far.gate = 1000;
  const Tensor open = streamed("far_fitted", c, tokens_);
  EXPECT_GT(max_difference(open, streamed("far_state_only", c, tokens_)), 1e-6);
  c.far.gate = 0;
  EXPECT_EQ(max_difference(open, streamed("far_fitted", c, tokens_)), 0);
}

TEST_F(FarMemoryTest, OlderBasesAreGivenUp) {
  MemoryConfig c = all_fetched();
  c.far.keep = 20;
  const auto model = make_memory("far_fitted", small_model(at::kDouble), c);
  const WindowPlan& plan = model->plan();
  int64_t most = 0;
  const Tensor out = streamed(*model, tokens_, 5, [&](const CompressedStream& stream) {
    const MemoryUse use = model->memory_use(stream);
    const int64_t stored = use.far_bytes - stream.far->num_bytes();
    EXPECT_EQ(stored, model->planned_use(stream.bases).far_bytes -
                          FarChooser::planned_bytes(c.far, plan, stream.bases));
    most = std::max(most, stored);
  });
  // Two layers of two heads of 8 channels; what has just left is given up when the next tile begins.
  EXPECT_LE(most, 2 * FarStore::kmer_bytes(FarStoreType::model, 20 + plan.window_bases(), 2, 8, at::kDouble));
  EXPECT_LT(max_difference(out, model->parallel(tokens_).bases), 1e-11);
  c.far.keep = 0;
  EXPECT_GT(max_difference(out, streamed("far_fitted", c, tokens_)), 1e-6);
}

TEST_F(FarMemoryTest, WhatWasUsedLongestAgoIsGivenUp) {
  const WindowPlan plan({.size = 16}, 5);  // k-mers of 5, 5, 5 and 1 bases
  RecentlyUsed used(plan, 27);
  const auto fetched = [&](std::size_t sequence, std::vector<int64_t> kmers, int64_t now) {
    FarChoice choice{.kmers = std::move(kmers)};
    used.fetch(sequence, choice, now);
    return choice.kmers;
  };
  EXPECT_EQ(used.held(), nullptr);
  used.close(2, 4, 16);
  EXPECT_EQ(*used.held(), std::vector<bool>(4, true));
  EXPECT_EQ(fetched(0, {1, 3}, 20), (std::vector<int64_t>{1, 3}));
  EXPECT_EQ(fetched(1, {0}, 20), std::vector<int64_t>{0});
  // Five bases too many: the oldest k-mer of those that only closed goes, in each sequence its own.
  used.close(2, 8, 32);
  EXPECT_EQ(fetched(0, {0, 1}, 32), std::vector<int64_t>{1});
  EXPECT_EQ(fetched(1, {0, 1}, 36), std::vector<int64_t>{0});
  EXPECT_EQ(*used.held(), std::vector<bool>(8, true)) << "one of the two holds each";
  used.close(2, 12, 48);
  EXPECT_EQ(fetched(0, {0, 1, 2, 3, 4, 5, 6, 7, 8}, 48), (std::vector<int64_t>{5, 6, 7, 8}));
  EXPECT_EQ(fetched(1, {0, 1, 2, 3, 4, 5, 6, 7, 8}, 48), (std::vector<int64_t>{0, 6, 7, 8}));
  std::vector<bool> held(12, true);
  for (const std::size_t gone : {1, 2, 3, 4}) held[gone] = false;
  EXPECT_EQ(*used.held(), held);
}

TEST_F(FarMemoryTest, EvictionByUseIsTheSameHoweverASequenceIsCut) {
  const Tensor two = at::cat({tokens_, random_bases(1, kLength, 9)}, 0);
  for (const FarScore score : {FarScore::seeds, FarScore::oracle}) {
    MemoryConfig c = settings(1);
    c.far.score = score;
    if (score != FarScore::seeds) c.far.seeds = {};
    c.far.keep = 40;
    const auto with = [&](FarEvict evict) {
      c.far.evict = evict;
      return make_memory("far_fitted", small_model(at::kDouble), c);
    };
    const Tensor by_age = with(FarEvict::age)->parallel(two).bases;
    const auto model = with(FarEvict::use);
    const Tensor whole = model->parallel(two).bases;
    EXPECT_GT(max_difference(whole, by_age), 1e-6) << static_cast<int>(score);
    for (const int64_t chunk : {1, 7, 75})
      EXPECT_LT(max_difference(streamed(*model, two, chunk), whole), 1e-10) << static_cast<int>(score);
    EXPECT_LT(max_difference(streamed(*model, tokens_, 5), whole.narrow(0, 0, 1)), 1e-10);
  }
}

TEST_F(FarMemoryTest, StreamsForkGoBackAndAreSaved) {
  const testing::TemporaryFolder folder;
  using Case = std::tuple<FarPlace, int64_t, FarEvict>;
  for (const auto& [place, keep, evict] :
       {Case{FarPlace::model, 0, FarEvict::age}, Case{FarPlace::file, 0, FarEvict::age},
        Case{FarPlace::model, 24, FarEvict::use}, Case{FarPlace::file, 24, FarEvict::use},
        Case{FarPlace::model, 3, FarEvict::age}}) {  // the last: less than a k-mer, so none
    MemoryConfig c = settings();
    c.far.store = FarStoreType::int4;
    c.far.place = place;
    c.far.keep = keep;
    c.far.evict = evict;
    if (place == FarPlace::file) c.far.folder = folder.path().string();
    const auto model = make_memory("far_fitted", small_model(at::kDouble), c);
    const Tensor other = random_bases(1, 20, 11);
    CompressedStream stream;
    model->forward(tokens_.narrow(1, 0, 41), stream);
    const auto rest = [&](CompressedStream& from) {
      return model->forward(tokens_.narrow(1, 41, kLength - 41), from).bases;
    };

    CompressedStream fork = stream.clone(), past = stream.snapshot(), loaded;
    loaded.backbone.layers = model->new_layers();
    for (std::size_t i = 0; i < loaded.backbone.layers.size(); ++i) {
      cache::TensorMap saved = stream.backbone.layers[i]->save();
      if (const auto shape = saved.find("far.shape"); shape != saved.end()) {
        const at::Tensor whole = shape->second;  // its last number tells the order of the bytes
        shape->second = whole.narrow(0, 0, whole.size(0) - 1);
        EXPECT_THROW(loaded.backbone.layers[i]->load(saved, at::kCPU), CheckpointError);
        shape->second = whole;
      }
      loaded.backbone.layers[i]->load(saved, at::kCPU);
    }
    loaded.backbone.position = stream.backbone.position;
    loaded.bases = stream.bases;
    cache::TensorMap letters;
    stream.far->save(letters);
    loaded.far = model->new_chooser();
    loaded.far->load(letters, stream.bases);

    model->forward(other, stream);
    const Tensor expected = rest(fork);
    EXPECT_EQ(max_difference(rest(past), expected), 0);
    EXPECT_EQ(max_difference(rest(loaded), expected), 0);
    EXPECT_LT(max_difference(expected, model->parallel(tokens_).bases.narrow(1, 41, kLength - 41)), 1e-11);
    EXPECT_TRUE(std::filesystem::is_empty(folder.path())) << "the file of a killed process would stay";
  }
}

TEST_F(FarMemoryTest, AFullDiskOrAMissingFolderIsOneClearError) {
  const auto message = [](const std::function<void()>& f) {
    try {
      f();
    } catch (const DataError& e) {
      return std::string(e.what());
    }
    return std::string("none");
  };
  EXPECT_NE(message([] { UnnamedFile file("/nowhere"); }).find("far.folder '/nowhere'"), std::string::npos);

  const testing::TemporaryFolder folder;
  UnnamedFile file(folder.path().string());
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const rlimit small{4096, before.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &small);
  std::vector<char> bytes(4000, 'x');
  EXPECT_EQ(file.append({{bytes.data(), 1500}, {bytes.data() + 1500, 2500}}), 0);
  // The first part fits, and goes again with the others.
  const std::string full = message([&] { file.append({{bytes.data(), 50}, {bytes.data(), 4000}}); });
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_NE(full.find("cannot write"), std::string::npos) << full;
  EXPECT_NE(full.find(folder.path().string()), std::string::npos) << full;
  // What was written before is still there.
  std::vector<char> read(4000);
  file.read(0, read.data(), 4000);
  EXPECT_EQ(read, bytes);
  EXPECT_EQ(file.append({{bytes.data(), 7}}), 4000);
}

TEST_F(FarMemoryTest, CopiesShareAFileWhoseSpaceComesBack) {
  const testing::TemporaryFolder folder;
  FarConfig config;
  config.place = FarPlace::file;
  config.folder = folder.path().string();
  const auto kmer = [](double i) {
    return FarKmer{at::full({1, 2, 64, 512}, i), at::full({1, 2, 64, 512}, -i)};
  };
  // What files of this folder take of the disk, though they have no name.
  const auto disk = [&] {
    int64_t bytes = 0;
    for (const auto& open : std::filesystem::directory_iterator("/proc/self/fd")) {
      struct stat about{};
      std::error_code closed;
      const std::string file = std::filesystem::read_symlink(open.path(), closed).string();
      if (!closed && file.starts_with(folder.path().string()) && ::stat(open.path().c_str(), &about) == 0)
        bytes += 512 * about.st_blocks;
    }
    return bytes;
  };
  const auto expect = [](FarStore& store, int64_t i, double value) {
    const ops::MemoryPart read = store.read(i, at::empty({0}));
    EXPECT_TRUE(read.k.eq(value).all().item<bool>() && read.v.eq(-value).all().item<bool>()) << i;
  };
  FarStore store(config);
  for (int64_t i = 0; i < 64; i += 2)
    store.append({kmer(static_cast<double>(i)), kmer(static_cast<double>(i + 1))});
  const int64_t all = store.num_bytes();
  EXPECT_EQ(all, 64 * FarStore::kmer_bytes(FarStoreType::model, 64, 2, 512, at::kFloat));
  EXPECT_GE(disk(), all);
  {
    FarStore fork = store;
    store.append({kmer(64)});
    fork.append({kmer(-64)});
    store.drop_before(60);
    EXPECT_EQ(fork.num_bytes(), all + all / 64);
    for (int64_t i = 0; i < 64; ++i) expect(fork, i, static_cast<double>(i));
    expect(fork, 64, -64);
    for (int64_t i = 60; i <= 64; ++i) expect(store, i, static_cast<double>(i));
    EXPECT_EQ(store.num_bytes(), 5 * all / 64);
    EXPECT_GE(disk(), all) << "the fork reads it";
  }
  expect(store, 63, 63);
  EXPECT_LT(disk(), all / 4) << "without the fork nobody does";
  store.drop_before(67);
  EXPECT_EQ(store.num_bytes(), 0);
  EXPECT_LT(disk(), 65536);
  for (int64_t i = 65; i < 68; ++i) store.append({kmer(static_cast<double>(i))});
  EXPECT_EQ(store.num_bytes(), all / 64) << "what comes later than it was given up is not kept";
  expect(store, 67, 67);

  // What is given up between others comes back too.
  config.keep = 64;
  config.evict = FarEvict::use;
  FarStore holes(config);
  for (int64_t i = 0; i < 64; ++i) holes.append({kmer(static_cast<double>(i))});
  std::vector<bool> held(63);
  for (std::size_t i = 0; i < held.size(); ++i) held[i] = i % 8 == 3;
  holes.drop_unless(std::make_shared<const std::vector<bool>>(held));
  EXPECT_EQ(holes.num_bytes(), 9 * all / 64);
  EXPECT_LT(disk(), all / 4);
  for (const int64_t i : {3, 11, 59, 63}) expect(holes, i, static_cast<double>(i));
  EXPECT_THROW(holes.read(4, at::empty({0})), Error);
}

TEST_F(FarMemoryTest, RefusesWhatItCannotStandOn) {
  const auto backbone = small_model(at::kFloat);
  MemoryConfig c = settings();
  c.far.place = FarPlace::host;
  EXPECT_THROW(make_memory("far_fitted", backbone, c), ConfigError);
  c = settings();
  c.kind = MemoryKind::tables;
  EXPECT_THROW(c.validate(), ConfigError);
  c = settings();
  c.focus.schedule.push_back({.from = 2, .to = 2, .k = 4});
  EXPECT_THROW(c.validate(), ConfigError);
  c.focus.schedule[0].far = false;
  EXPECT_NO_THROW(c.validate());
  c.far = {};
  EXPECT_THROW(c.validate(), ConfigError) << "off without an effect";
  c = {};
  c.far.gate = 3;
  EXPECT_THROW(c.validate(), ConfigError) << "without an effect";
}

TEST(FarMemoryGradientTest, IntegersHaveNone) {
  MemoryConfig c = settings();
  c.far.store = FarStoreType::int4;
  const auto backbone = small_model(at::kDouble);
  const CompressedModel model(backbone, testing::perturbed_adapter(*backbone, c));
  EXPECT_THROW(model.parallel(random_bases(1, kLength, 3)), ConfigError);
  const at::NoGradGuard guard;
  EXPECT_NO_THROW(model.parallel(random_bases(1, kLength, 3)));
}

MemoryConfig by_keys(FarScore score) {
  MemoryConfig c = settings(2);
  c.far.seeds = {};
  c.far.score = score;
  if (score == FarScore::sketch) c.far.rank = 4;
  return c;
}

constexpr FarScore kByKeys[] = {FarScore::oracle, FarScore::fitted, FarScore::bits1, FarScore::bits2,
                                FarScore::sketch};

TEST_F(FarMemoryTest, KeysChooseTheSameInChunksAndAtOnce) {
  for (const FarScore score : kByKeys) {
    for (const auto& [eviction, tail] :
         {std::pair{Eviction::window, 0}, {Eviction::window, 5}, {Eviction::rolling, 0}}) {
      MemoryConfig c = by_keys(score);
      c.focus.eviction = eviction;
      c.focus.tail = tail;
      const auto model = make_memory("far_fitted", small_model(at::kDouble), c);
      const Tensor two = at::cat({tokens_, random_bases(1, kLength, 9)}, 0),
                   whole = model->parallel(two).bases;
      EXPECT_GT(max_difference(whole, streamed("fitted", c, two)), 1e-6);
      for (const int64_t chunk : {1, 7, 75})
        EXPECT_LT(max_difference(streamed(*model, two, chunk), whole), 1e-10)
            << config::to_json(c.far) << " tail " << tail << " chunk " << chunk;
    }
  }
}

TEST_F(FarMemoryTest, ChoosersByKeysAreSavedCopiedAndCounted) {
  for (const auto& [score, keep] : {std::pair{FarScore::oracle, 0},
                                    {FarScore::fitted, 0},
                                    {FarScore::bits1, 0},
                                    {FarScore::bits2, 0},
                                    {FarScore::sketch, 0},
                                    {FarScore::sketch, 24}}) {
    MemoryConfig c = by_keys(score);
    c.far.keep = keep;
    c.far.evict = keep > 0 ? FarEvict::use : FarEvict::age;
    const auto model = make_memory("far_fitted", small_model(at::kFloat), c);
    const auto go_on = [&](CompressedStream& stream) {
      return model->forward(tokens_.narrow(1, 42, 20), stream).bases;  // from within a tile
    };
    CompressedStream stream;
    (void)model->forward(tokens_.narrow(1, 0, 42), stream);
    const MemoryUse use = model->memory_use(stream);
    EXPECT_EQ(use.retained_bytes, model->planned_use(42).retained_bytes) << static_cast<int>(score);
    CompressedStream loaded;
    loaded.backbone.layers = model->new_layers();
    loaded.backbone.position = stream.backbone.position;
    loaded.bases = 42;
    loaded.far = model->new_chooser();
    loaded.far->load({}, 42);
    for (std::size_t i = 0; i < loaded.backbone.layers.size(); ++i)
      loaded.backbone.layers[i]->load(stream.backbone.layers[i]->save(), at::kCPU);
    CompressedStream fork = stream.clone(), back = stream.snapshot();
    const Tensor first = go_on(stream);
    EXPECT_EQ(max_difference(go_on(fork), first), 0);
    EXPECT_EQ(max_difference(go_on(loaded), first), 0);
    EXPECT_EQ(max_difference(go_on(back), first), 0);
  }
}

TEST_F(FarMemoryTest, ChoosersSayWhatDoesNotFit) {
  EXPECT_THROW(streamed("far_state_only", by_keys(FarScore::fitted), tokens_), ConfigError);
  MemoryConfig c = by_keys(FarScore::sketch);
  c.far.rank = 64;
  EXPECT_THROW(streamed("far_fitted", c, tokens_), ConfigError);
}

TEST_F(FarMemoryTest, ChanceChoosesTooAndTheSameForAll) {
  const MemoryConfig c = by_keys(FarScore::random);
  const auto model = make_memory("far_fitted", small_model(at::kDouble), c);
  const Tensor whole = model->parallel(tokens_).bases;
  EXPECT_GT(max_difference(whole, streamed("fitted", c, tokens_)), 1e-6);
  EXPECT_LT(max_difference(streamed(*model, tokens_, 7), whole), 1e-11);
}

}  // namespace
}  // namespace focus::compress
