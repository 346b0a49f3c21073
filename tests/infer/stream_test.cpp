#include "focus/infer/stream.h"

#include <c10/core/CPUAllocator.h>
#include <gtest/gtest.h>
#include <malloc.h>

#include <filesystem>

#include "focus/compress/memory/memory_factory.h"
#include "focus/core/error.h"
#include "focus/core/file.h"
#include "focus/infer/memory_plan.h"
#include "focus/infer/score.h"
#include "support/small_model.h"
#include "support/tensors.h"

namespace focus::infer {
namespace {

using at::Tensor;
using focus::testing::max_difference;
using focus::testing::random_bases;
using focus::testing::small_model;

compress::MemoryConfig memory_config() {
  compress::MemoryConfig config;
  config.window.size = 32;
  config.focus.k = 8;
  return config;
}

const StreamOrigin kOrigin = {"small", "digest", "fp32", ""};

struct Kind {
  std::string name;
  StreamFactory begin;
  std::shared_ptr<model::StripedHyena> model;
};

class StreamKinds : public ::testing::TestWithParam<std::string> {
 protected:
  Kind kind() const {
    const auto model = small_model(at::kFloat);
    if (GetParam() == "full") return {"full", plain_stream(*model), model};
    auto config = memory_config();
    if (GetParam() == "inline") config.focus.stream = compress::Stream::inline_tokens;
    if (GetParam() == "state_only") {
      return {"state_only",
              compressed_stream(compress::make_memory("state_only", model, config), "state_only"), model};
    }
    return {"focus",
            compressed_stream(std::make_shared<compress::CompressedModel>(
                                  model, testing::perturbed_adapter(*model, config)),
                              "focus"),
            model};
  }
  std::string path(const std::string& name) const {
    return (std::filesystem::path(::testing::TempDir()) / (GetParam() + name)).string();
  }
  at::NoGradGuard guard_;
};

TEST_P(StreamKinds, ASnapshotGoesBackAndAForkGoesItsOwnWay) {
  const Kind k = kind();
  const Tensor first = random_bases(1, 45, 1), second = random_bases(1, 40, 2),
               other = random_bases(1, 40, 3);
  auto stream = k.begin(0);
  stream->forward(first);
  auto before = stream->snapshot();
  const auto fork = stream->fork();
  const Tensor expected = stream->forward(second);
  before->forward(second);  // advances beyond the mark in the shared memory
  EXPECT_EQ(before->bases(), 85);
  EXPECT_GT(max_difference(fork->forward(other), expected), 1e-4);
  auto again = k.begin(0);
  again->forward(first);
  auto mark = again->snapshot();
  again->forward(other);
  again = std::move(mark);
  EXPECT_TRUE(at::equal(again->forward(second), expected));
}

TEST_P(StreamKinds, SavedAndLoadedItGoesOnAsIfNothingHadHappened) {
  const Kind k = kind();
  const Tensor first = random_bases(1, 77, 1), second = random_bases(1, 50, 2);
  auto stream = k.begin(0);
  const Tensor hidden = stream->forward(first);
  save_stream(*stream, hidden.narrow(1, 76, 1), kOrigin, {"chr1", 177, "ACGT"}, path(".safetensors"));
  auto loaded = k.begin(0);
  const Tensor last =
      load_stream(*loaded, kOrigin, StreamPlace{"chr1", 177, "ACGT"}, at::kCPU, path(".safetensors"));
  EXPECT_TRUE(at::equal(last, hidden.narrow(1, 76, 1)));
  EXPECT_EQ(loaded->bases(), 77);
  EXPECT_EQ(loaded->memory().total_bytes() > 0, true);
  EXPECT_EQ(loaded->memory().kept_bytes,
            k.name == "full" ? loaded->memory().kept_bytes : stream->memory().kept_bytes);
  EXPECT_TRUE(at::equal(loaded->forward(second), stream->forward(second)));
}

TEST_P(StreamKinds, ScoresOfPartsAddUp) {
  const Kind k = kind();
  std::vector<uint8_t> tokens;
  const Tensor bases = random_bases(1, 130, 5)[0];
  for (int64_t i = 0; i < bases.size(0); ++i)
    tokens.push_back(static_cast<uint8_t>(bases[i].item<int64_t>()));
  const std::vector<float> weights(tokens.size(), 1.0F);
  ScoreOptions options;
  options.chunk = 17;
  const Scorer scorer(*k.model, k.begin, options);
  const RecordScore whole = scorer.score(tokens, weights, "whole");
  auto stream = k.begin(0);
  Tensor last;
  const std::span all(tokens);
  const std::span all_weights(weights);
  const auto a = scorer.score(all.first(60), all_weights.first(60), "a", stream, last);
  const auto b = scorer.score(all.subspan(60), all_weights.subspan(60), "b", stream, last);
  EXPECT_EQ(a.scored, 59);
  EXPECT_EQ(b.scored, 70);
  EXPECT_NEAR(a.sum_log_likelihood + b.sum_log_likelihood, whole.sum_log_likelihood, 1e-3);
  EXPECT_EQ(whole.memory.kept_bytes > 0, k.name != "state_only");
}

INSTANTIATE_TEST_SUITE_P(Kinds, StreamKinds, ::testing::Values("full", "focus", "inline", "state_only"),
                         [](const auto& p) { return p.param; });

TEST(StreamFileTest, AnotherMemoryIsRefused) {
  const at::NoGradGuard guard;
  const auto model = small_model(at::kFloat);
  auto stream = plain_stream(*model)(0);
  const Tensor hidden = stream->forward(random_bases(1, 5, 1));
  const std::string path = ::testing::TempDir() + "/other.safetensors";
  save_stream(*stream, hidden.narrow(1, 4, 1), kOrigin, {"chr1", 5, ""}, path);
  auto focus = compressed_stream(
      std::make_shared<compress::CompressedModel>(model, testing::perturbed_adapter(*model, memory_config())),
      "focus W=32 k=8")(0);
  try {
    load_stream(*focus, kOrigin, {}, at::kCPU, path);
    FAIL() << "accepted";
  } catch (const CheckpointError& e) {
    EXPECT_NE(std::string(e.what()).find("full memory"), std::string::npos) << e.what();
  }
}

/// A state of five bases of chr1, and what is said when it is to go on elsewhere.
class SavedStateTest : public ::testing::Test {
 protected:
  SavedStateTest() {
    auto stream = plain_stream(*model_)(0);
    const Tensor hidden = stream->forward(random_bases(1, 5, 1));
    save_stream(*stream, hidden.narrow(1, 4, 1), kOrigin, {"chr1", 105, "ACGT"}, path_);
  }
  std::string said(const StreamOrigin& origin,
                   const std::optional<StreamPlace>& place = StreamPlace{"chr1", 105, "ACGT"}) const {
    auto stream = plain_stream(*model_)(0);
    try {
      load_stream(*stream, origin, place, at::kCPU, path_);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }
  const at::NoGradGuard guard_;
  const std::shared_ptr<model::StripedHyena> model_ = small_model(at::kFloat);
  const std::string path_ = ::testing::TempDir() + "/state";
};

TEST_F(SavedStateTest, GoesOnWhereItBelongsAlone) {
  EXPECT_EQ(said(kOrigin), "");
  EXPECT_EQ(said(kOrigin, std::nullopt), "");
  const auto has = [](const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
  };
  for (const StreamPlace& place :
       {StreamPlace{"chr1", 104, "ACGT"}, StreamPlace{"chr1", 0, ""}, StreamPlace{"chr2", 105, "ACGT"}}) {
    EXPECT_TRUE(has(said(kOrigin, place), "goes on at base 106 of 'chr1'")) << said(kOrigin, place);
    EXPECT_TRUE(has(said(kOrigin, place), "--continue-anyway"));
  }
  EXPECT_TRUE(has(said(kOrigin, StreamPlace{"chr1", 105, "ACGA"}), "another sequence of that name"));
  StreamOrigin other = kOrigin;
  other.digest = "another";
  EXPECT_TRUE(has(said(other), "another model")) << said(other);
  other = kOrigin;
  other.precision = "bf16";
  EXPECT_TRUE(has(said(other), "saved in fp32, this run is bf16")) << said(other);
  other = kOrigin;
  other.adapter = "0123456789abcdef0123";
  EXPECT_TRUE(has(said(other),
                  "without an adapter, this run goes on under the adapter of digest 0123456789abcdef..."))
      << said(other);
}

TEST_F(SavedStateTest, EveryChangedByteIsNoticed) {
  const std::string whole = read_file(path_);
  for (std::size_t at = 0; at < whole.size(); at += at < 2000 ? 7 : 331) {
    std::string changed = whole;
    changed[at] = static_cast<char>(changed[at] ^ 0x10);
    write_file(path_, changed);
    EXPECT_NE(said(kOrigin).find("saved state"), std::string::npos) << "byte " << at;
  }
  for (const std::size_t size : {std::size_t{0}, std::size_t{7}, whole.size() / 2, whole.size() - 1}) {
    write_file(path_, whole.substr(0, size));
    EXPECT_NE(said(kOrigin).find("saved state"), std::string::npos) << size << " bytes";
  }
  write_file(path_, whole);
  EXPECT_EQ(said(kOrigin), "");
}

/// Fails as LibTorch does when more than `limit` bytes are asked for at once.
class Limited final : public Stream {
 public:
  Limited(std::unique_ptr<Stream> inner, int64_t limit) : inner_(std::move(inner)), limit_(limit) {}
  Tensor forward(const Tensor& tokens) override {
    const Tensor hidden = inner_->forward(tokens);  // the state has moved on when the failure comes
    if (tokens.size(1) > limit_)
      TORCH_CHECK(false, "DefaultCPUAllocator: not enough memory: you tried to allocate 99 bytes.");
    return hidden;
  }
  std::unique_ptr<Stream> fork() const override { return std::make_unique<Limited>(inner_->fork(), limit_); }
  std::unique_ptr<Stream> snapshot() const override {
    return std::make_unique<Limited>(inner_->snapshot(), limit_);
  }
  int64_t bases() const override { return inner_->bases(); }
  int64_t position() const override { return inner_->position(); }
  StreamMemory memory() const override { return inner_->memory(); }
  std::string description() const override { return inner_->description(); }
  cache::TensorMap save() const override { return inner_->save(); }
  void load(const cache::TensorMap& t, int64_t position, int64_t bases) override {
    inner_->load(t, position, bases);
  }

 private:
  std::unique_ptr<Stream> inner_;
  int64_t limit_;
};

TEST(OutOfMemoryTest, GoesOnInSmallerChunksWithTheSameResult) {
  const auto model = small_model(at::kFloat);
  const std::vector<uint8_t> tokens(300, 'G');
  const std::vector<float> weights(tokens.size(), 1.0F);
  ScoreOptions options;
  options.chunk = 256;
  const RecordScore expected = Scorer(*model, plain_stream(*model), options).score(tokens, weights, "r");
  const auto limited = [&](int64_t limit) -> StreamFactory {
    return [&model, limit](int64_t n) { return std::make_unique<Limited>(plain_stream(*model)(n), limit); };
  };
  const RecordScore got = Scorer(*model, limited(70), options).score(tokens, weights, "r");
  EXPECT_EQ(got.chunk, 64);
  EXPECT_EQ(got.scored, expected.scored);
  EXPECT_NEAR(got.sum_log_likelihood, expected.sum_log_likelihood, 1e-3);
  try {
    Scorer(*model, limited(3), options).score(tokens, weights, "r");
    FAIL() << "no error";
  } catch (const MemoryError& e) {
    EXPECT_NE(std::string(e.what()).find("16 bases at a time"), std::string::npos) << e.what();
  }
}

/// Counts what LibTorch allocates on the CPU.
class CountingAllocator final : public c10::Allocator {
 public:
  at::DataPtr allocate(std::size_t n) override {
    if (n == 0) return {nullptr, nullptr, &release, at::kCPU};
    void* memory = std::aligned_alloc(64, (n + 63) / 64 * 64);
    now += static_cast<int64_t>(malloc_usable_size(memory));
    peak = std::max(peak, now);
    return {memory, memory, &release, at::kCPU};
  }
  at::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, std::size_t n) const override { default_copy_data(to, from, n); }
  inline static int64_t now = 0, peak = 0;

 private:
  static void release(void* memory) {
    if (memory != nullptr) now -= static_cast<int64_t>(malloc_usable_size(memory));
    std::free(memory);
  }
};

TEST(MemoryPlanTest, CoversWhatAStreamReallyAllocates) {
  const at::NoGradGuard guard;
  const auto model = small_model(at::kFloat);
  const auto compressed =
      std::make_shared<compress::CompressedModel>(model, testing::perturbed_adapter(*model, memory_config()));
  uint8_t priority = 0;  // a later one must not be lower
  for (const bool full : {true, false}) {
    for (const int64_t chunk : {64, 512}) {
      constexpr int64_t kLength = 4096;
      const MemoryPlan plan =
          plan_memory(*model, full ? nullptr : compressed.get(), kLength, chunk, int64_t{1} << 40);
      const std::vector<uint8_t> tokens(kLength, 'C');
      const std::vector<float> weights(kLength, 1.0F);
      ScoreOptions options;
      options.chunk = chunk;
      static CountingAllocator counting;
      c10::Allocator* before = c10::GetCPUAllocator();
      c10::SetCPUAllocator(&counting, ++priority);
      CountingAllocator::peak = CountingAllocator::now = 0;
      const auto result =
          Scorer(*model, full ? plain_stream(*model) : compressed_stream(compressed, "focus"), options)
              .score(tokens, weights, "r");
      c10::SetCPUAllocator(before, ++priority);
      EXPECT_LE(CountingAllocator::peak, plan.needed_bytes()) << "full " << full << " chunk " << chunk;
      EXPECT_GE(CountingAllocator::peak, plan.needed_bytes() / 5) << "full " << full << " chunk " << chunk;
      EXPECT_EQ(result.memory.kept_bytes, plan.kept_bytes) << "full " << full;
    }
  }
}

TEST(MemoryPlanTest, TheChunkFollowsTheFreeMemory) {
  const auto model = small_model(at::kFloat);
  EXPECT_EQ(plan_memory(*model, nullptr, 1 << 20, 0, int64_t{1} << 40).chunk, 8192);
  EXPECT_EQ(plan_memory(*model, nullptr, 1 << 20, 0, int64_t{1} << 40, largest_chunk(*model)).chunk, 1024);
  const int64_t kept = plan_memory(*model, nullptr, 1 << 20, 0, int64_t{1} << 40).kept_bytes;
  const int64_t tight = plan_memory(*model, nullptr, 1 << 20, 0, kept + (4 << 20)).chunk;
  EXPECT_LT(tight, 8192);
  EXPECT_GT(tight, 16);
  EXPECT_EQ(plan_memory(*model, nullptr, 1 << 20, 0, 0).chunk, 16);
  EXPECT_EQ(plan_memory(*model, nullptr, 100, 0, int64_t{1} << 40).chunk, 128);
  EXPECT_GT(available_memory(at::kCPU), 1 << 20);
}

}  // namespace
}  // namespace focus::infer
