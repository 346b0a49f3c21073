#include "focus/eval/calibrate.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <csignal>
#include <functional>
#include <limits>

#include "focus/compress/compressed_model.h"
#include "focus/compress/focus/adapter_file.h"
#include "focus/compress/tables/packed_bases.h"
#include "focus/core/error.h"
#include "focus/core/interrupt.h"
#include "focus/core/random.h"
#include "key_figures.h"
#include "layer_plan.h"
#include "workspace.h"

namespace focus::eval {
namespace {

using report::BlockCalibration;
using report::BlockMemory;
using report::CalibrationResult;

constexpr int64_t kAny = std::numeric_limits<int64_t>::max();
constexpr auto kKl = static_cast<std::size_t>(report::Measure::kl);

/// Options named nothing, little, much, all.
std::vector<BlockOptions> two_blocks() {
  return {{.forgetting = 8, .options = {{8, 0}, {4, 10}, {1, 100}, {0, 1000}}},
          {.forgetting = 2, .options = {{2, 0}, {1, 10}, {0.5, 100}, {0, 1000}}}};
}

TEST(LayerPlanTest, TakesWhatSavesMostPerByteAndNoMoreThanIsAskedFor) {
  using Chosen = std::vector<std::size_t>;
  const auto blocks = two_blocks();
  EXPECT_EQ(choose(blocks, 0, kAny), (Chosen{0, 0}));
  EXPECT_EQ(choose(blocks, 0.4, kAny), (Chosen{1, 0})) << "4 of 10 nats for 10 bytes";
  EXPECT_EQ(choose(blocks, 0.5, kAny), (Chosen{1, 1}));
  EXPECT_EQ(choose(blocks, 0.7, kAny), (Chosen{2, 0})) << "the second block's step is given back";
  EXPECT_EQ(choose(blocks, 1, kAny), (Chosen{3, 3}));
  EXPECT_EQ(choose(blocks, 1, 20), (Chosen{1, 1})) << "as much as fits";
  EXPECT_EQ(choose(blocks, 1, 0), (Chosen{0, 0}));
  EXPECT_EQ(total_bytes(blocks, {2, 1}), 110);
  EXPECT_DOUBLE_EQ(predicted_share(blocks, {2, 1}), 0.8);
  auto refused = blocks;
  refused[0].options[1].allowed = false;
  EXPECT_EQ(choose(refused, 0.4, kAny), (Chosen{2, 0}));
  EXPECT_THROW(choose({{.forgetting = 1, .options = {{0, 10}}}}, 0.5, 9), ConfigError);
}

TEST(LayerPlanTest, EveryNameIsAMemoryThatSettingsCanGiveToOneBlock) {
  const auto backbone = testing::small_model(at::kFloat);
  const auto blocks = backbone->attention_blocks();
  ASSERT_GE(blocks.size(), 2U);
  compress::MemoryConfig shared;
  shared.window.size = 64;
  shared.focus.k = 8;
  shared.tables.word = 2;
  shared.focus.fitted.ridge = 2;
  shared.quantised.key_group = 32;
  const auto use_of = [&](const std::string& first, const std::string& second) {
    const auto memory = with_memories(*backbone, shared, {{blocks[0], first}, {blocks[1], second}});
    compress::MemoryConfig again;
    config::read_text(config::to_json(memory), "written", {}, again);
    EXPECT_EQ(config::to_json(again), config::to_json(memory)) << first << ", " << second;
    EXPECT_EQ(memory.kind_at(blocks[1]) == compress::MemoryKind::full, second == "full") << first;
    const auto adapter = std::make_shared<compress::FocusAdapter>(*backbone, memory, 1);
    const compress::CompressedModel model(backbone, adapter);
    compress::MemoryUse use = model.planned_use(640);
    if (const bool fetches = first == "far_fitted" || second == "far_fitted"; fetches)
      use.far_bytes -= compress::FarChooser::planned_bytes(memory.far, model.plan(), 640);
    return std::pair(use.retained_bytes, use.far_bytes);
  };
  const auto full = use_of("full", "full");
  std::map<std::string, std::pair<int64_t, int64_t>> alone;
  for (const std::string& name : candidate_names()) alone[name] = use_of(name, "full");
  // Any two go together, and each block holds what its own memory does.
  for (const auto& [first, use] : alone) {
    for (const auto& [second, other] : alone) {
      const auto both = use_of(first, second);
      EXPECT_EQ(both.first, use.first + other.first - full.first) << first << ", " << second;
      EXPECT_EQ(both.second, use.second + other.second) << first << ", " << second;
    }
  }
  const auto bytes = [&](const char* name) { return alone.at(name).first; };
  EXPECT_LT(bytes("state_only"), bytes("tables"));
  EXPECT_LT(bytes("tables"), bytes("fitted"));
  EXPECT_LE(bytes("mixture"), bytes("fitted"));
  EXPECT_EQ(bytes("far_fitted"), bytes("fitted"));
  EXPECT_LT(bytes("quantised_int4"), bytes("quantised_int8"));
  EXPECT_LT(bytes("quantised_int8"), bytes("full"));
  EXPECT_GT(alone.at("far_fitted").second, 0);
}

/// Plain attention that keeps the normed input of one block.
class Input final : public model::AttentionHook {
 public:
  explicit Input(int64_t block) : block_(block) {}
  std::unique_ptr<cache::LayerState> make_state(int64_t) override { return nullptr; }
  at::Tensor mix(const model::AttentionCall& call) override {
    if (call.block == block_) u_BLD = call.u_BLD;
    return model::attend(call.attention, call.u_BLD, call.position, nullptr);
  }
  at::Tensor u_BLD;

 private:
  int64_t block_;
};

TEST(KeyFiguresTest, AreThoseOfEveryScoreBehindABoundary) {
  const at::NoGradGuard guard;
  const auto backbone = testing::small_model(at::kFloat);
  compress::MemoryConfig memory;
  memory.kind = compress::MemoryKind::tables;
  memory.tables = {.word = 2, .offsets = {0, 2}};
  const auto tables = testing::perturbed_adapter(*backbone, memory);
  const compress::WindowPlan plan({.size = 16}, 4);
  const at::Tensor tokens = testing::random_bases(1, 50, 3);
  KeyFigures figures(*backbone, plan, tables);
  figures.add(*backbone, tokens);
  figures.add(*backbone, tokens);  // twice the same changes no mean
  for (const int64_t block : backbone->attention_blocks()) {
    report::BlockCalibration got{.block = block};
    figures.write(got);
    Input input(block);
    backbone->forward_embedded(backbone->embed(tokens), nullptr, &input);
    const nn::Attention& attention = *backbone->block(block).attention();
    const at::Tensor positions = at::arange(50);
    const nn::Projection all = attention.project(input.u_BLD, positions);
    const at::Tensor predicted = attention.rotate(
        tables->tables(block)->predict(compress::base_codes(tokens, backbone->vocabulary()), 50).first,
        positions);
    const auto scores = [&](const at::Tensor& k) {
      return at::matmul(all.q, k.transpose(2, 3))[0].to(at::kDouble) / std::sqrt(8.0);  // [H, L, L]
    };
    const at::Tensor past =
        (positions / 16).to(at::kLong).unsqueeze(1) > (positions / 16).to(at::kLong).unsqueeze(0);
    double error = 0, variance = 0;
    for (int64_t head = 0; head < 2; ++head) {
      const at::Tensor seen = scores(all.k)[head].masked_select(past),
                       missed = scores(all.k - predicted)[head].masked_select(past);
      error += missed.pow(2).sum().item<double>();
      variance += (seen - seen.mean()).pow(2).sum().item<double>();
    }
    const double count = 2 * past.sum().item<double>();
    EXPECT_NEAR(got.residual, std::sqrt(error / count), 1e-4 * got.residual) << block;
    EXPECT_NEAR(got.explained, 1 - error / variance, 1e-4 * std::abs(got.explained) + 1e-4) << block;
    const at::Tensor k = all.k[0][0];
    const at::Tensor eigen = at::linalg_eigvalsh(at::cov(k.transpose(0, 1)).to(at::kDouble));
    const at::Tensor other = at::linalg_eigvalsh(at::cov(all.k[0][1].transpose(0, 1)).to(at::kDouble));
    const auto participation = [](const at::Tensor& e) {
      return (e.sum().pow(2) / e.pow(2).sum()).item<double>();
    };
    EXPECT_NEAR(got.after.participation, (participation(eigen) + participation(other)) / 2, 1e-3);
  }
}

std::string letters(int64_t length, uint64_t seed) {
  Random random(seed, 0);
  std::string out;
  for (int64_t i = 0; i < length; ++i) out += "ACGT"[random.uniform_integer(4)];
  return out;
}

class CalibrateTest : public ::testing::Test {
 protected:
  CalibrateTest() {
    at::set_num_threads(1);  // the tensors are too small to share
    testing::write_small_model(space_.path());
  }
  CalibrateConfig config() const {
    CalibrateConfig c;
    c.run = space_.config(letters(4000, 1), 300);
    c.memory = c.run.memory;
    c.run.memory = {};
    c.run.bootstrap_draws = 50;
    c.memory.tables = {.word = 2, .offsets = {0, 2}, .fit_sequences = 4, .fit_length = 256};
    c.data.sources.resize(1);
    c.data.sources[0].fasta = space_.text("train.fa", ">t\n" + letters(4000, 2) + "\n");
    return c;
  }
  static Calibration run(const CalibrateConfig& c) {
    return run_calibrate(c, "cpu", at::kFloat, *distributed::one_rank());
  }
  static const BlockMemory& memory(const BlockCalibration& block, const std::string& name) {
    for (const auto& m : block.memories) {
      if (m.name == name) return m;
    }
    throw std::runtime_error("no memory " + name);
  }
  static std::string chosen(const BlockCalibration& block) {
    for (const auto& m : block.memories) {
      if (m.chosen) return m.name;
    }
    return "";
  }
  const Workspace space_;
};

TEST_F(CalibrateTest, MeasuresEveryMemoryInEachBlockAlone) {
  const CalibrateConfig c = config();
  const CalibrationResult result = run(c).result;
  ASSERT_EQ(result.blocks.size(), 2U);
  for (const BlockCalibration& block : result.blocks) {
    ASSERT_EQ(block.memories.size(), candidate_names().size());
    EXPECT_GT(block.forgetting.kl, 0);
    EXPECT_EQ(memory(block, "state_only").figures.recovered.share, 0.0);
    EXPECT_EQ(memory(block, "state_only").kept_bytes, 0);
    EXPECT_EQ(memory(block, "full").figures.recovered.share, 1.0);
    EXPECT_GT(memory(block, "quantised_int8").figures.recovered.share, 0.9);
    EXPECT_EQ(memory(block, "full").kept_bytes, 256 * 2 * 16 * 4) << "4 windows of keys and values";
    EXPECT_EQ(memory(block, "fitted").kept_bytes, 4 * 8 * (2 * 16 * 4 + 2 * 4));
    EXPECT_GT(memory(block, "far_fitted").far_bytes, 0);
    for (const report::KeyRank& rank : {block.before, block.after}) {
      EXPECT_GE(rank.participation, 1);
      EXPECT_LE(rank.participation, rank.for_99 + 1);
      EXPECT_LE(rank.for_90, rank.for_99);
      EXPECT_LE(rank.for_99, 8) << "dimensions of a head";
    }
    EXPECT_LE(block.explained, 1);
    EXPECT_GT(block.residual, 0);
  }
  // The same block forgetting under fidelity's schedule, on all segments: both halves of them lie around it.
  FidelityConfig by_schedule = c.run;
  by_schedule.memory = c.memory;
  by_schedule.memory.tables = {};
  by_schedule.segments = 4;
  by_schedule.methods = {"state_only", "fitted"};
  by_schedule.memory.focus.schedule = {
      {.from = 0, .to = 99, .memory = compress::MemoryKind::full},
      {.from = result.blocks[0].block, .to = result.blocks[0].block, .memory = compress::MemoryKind::focus}};
  const auto fidelity = run_fidelity(by_schedule, "cpu", at::kFloat);
  metrics::Total choosing;
  for (const std::size_t s : {0U, 2U}) choosing.add(fidelity.methods[2].segments[s].columns[kKl].behind);
  EXPECT_NEAR(memory(result.blocks[0], "fitted").figures.kl, choosing.mean(), 1e-9 + 1e-5 * choosing.mean());
}

TEST_F(CalibrateTest, ThePlanIsAnAdapterThatFidelityMeasuresTheSame) {
  CalibrateConfig c = config();
  c.goal.min_r = 0.8;
  const Calibration calibration = run(c);
  const CalibrationResult& result = calibration.result;
  EXPECT_GE(result.choosing.plan.recovered.share, 0.8);
  std::filesystem::create_directory(space_ / "plan");
  write_calibration(calibration, space_ / "plan");
  for (const char* file : {"summary.json", "summary.tsv", "blocks.tsv", "report.html", "memory.json"})
    EXPECT_TRUE(std::filesystem::exists(space_ / "plan" / file)) << file;
  compress::MemoryConfig plan;
  config::read_file((space_ / "plan" / "memory.json").string(), {}, plan);
  const auto file = compress::adapter_file(space_ / "plan");
  EXPECT_EQ(config::to_json(compress::read_adapter_config(file)), config::to_json(plan));

  FidelityConfig again = c.run;
  again.adapter = file.string();
  again.segments = 4;
  again.methods = {"state_only", "focus"};
  const auto fidelity = run_fidelity(again, "cpu", at::kFloat);
  metrics::Total judging;
  for (const std::size_t s : {1U, 3U}) judging.add(fidelity.methods[2].segments[s].columns[kKl].behind);
  EXPECT_NEAR(result.judging.plan.kl, judging.mean(), 1e-9 + 1e-5 * judging.mean());
  EXPECT_EQ(fidelity.methods[2].kept_bytes + fidelity.methods[2].far_bytes,
            result.kept_bytes + result.far_bytes);
}

TEST_F(CalibrateTest, BaseMemoryIsRefusedWhereTheResidualSaysNo) {
  CalibrateConfig c = config();
  c.memories = {"tables"};
  c.goal.min_r = 0;
  c.goal.max_bytes = 0;
  c.largest_residual = 1e6;
  for (const BlockCalibration& block : run(c).result.blocks) EXPECT_EQ(memory(block, "tables").refused, "");
  // Whatever is kept is enough: only tables would be left to choose, were they allowed.
  c.memories = {"tables", "full"};
  c.goal.min_r = 0.01;
  c.largest_residual = 0;
  const Calibration refused = run(c);
  for (const BlockCalibration& block : refused.result.blocks) {
    EXPECT_NE(memory(block, "tables").refused.find("nats"), std::string::npos);
    EXPECT_FALSE(memory(block, "tables").chosen);
    EXPECT_NE(memory(block, "tables").figures.kl, 0) << "measured all the same";
  }
  EXPECT_FALSE(refused.plan->config().uses(compress::MemoryKind::tables));
}

TEST_F(CalibrateTest, BytesBoundThePlan) {
  CalibrateConfig c = config();
  c.memories = {"quantised_int4", "full"};
  c.data = {};
  c.memory.tables = {};
  c.goal.min_r = 1;
  const CalibrationResult all = run(c).result;
  for (const auto& block : all.blocks) EXPECT_EQ(chosen(block), "full");
  const int64_t bytes = all.kept_bytes + all.open_bytes;
  c.goal.max_bytes = bytes - 1;
  const CalibrationResult less = run(c).result;
  EXPECT_LT(less.kept_bytes + less.open_bytes, bytes);
  EXPECT_GT(less.choosing.plan.recovered.share, 0.5);
  c.goal.max_bytes = 0;
  c.goal.max_bytes_per_base = static_cast<double>(bytes - 1) / 300;
  EXPECT_EQ(run(c).result.kept_bytes, less.kept_bytes);
  c.goal.max_bytes_per_base = 1;
  EXPECT_THROW(run(c), ConfigError) << "less than the open window";
  // More bases, the same plan: bytes grow, and the bound with them.
  c.goal.max_bytes_per_base = 0;
  c.at_length = 3000;
  EXPECT_EQ(run(c).result.at_length, 3000);
  EXPECT_GT(run(c).result.kept_bytes, 5 * all.kept_bytes);
}

TEST_F(CalibrateTest, RefusesWhatMakesNoSense) {
  const auto says = [&](const std::function<void(CalibrateConfig&)>& change, const std::string& part) {
    CalibrateConfig c = config();
    change(c);
    try {
      c.validate();
      ADD_FAILURE() << "accepted: " << part;
    } catch (const ConfigError& e) {
      EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << e.what();
    }
  };
  EXPECT_NO_THROW(config().validate());
  says([](auto& c) { c.memories = {"fited"}; }, "did you mean 'fitted'");
  says([](auto& c) { c.memories = {"fitted", "fitted"}; }, "twice");
  says([](auto& c) { c.data.sources.clear(), c.memory.tables = {}, c.memories = {"tables"}; },
       "data.sources");
  says([](auto& c) { c.data.sources.clear(); }, "tables");
  says([](auto& c) { c.memories = {"full"}, c.memory.far.kmers = 4; }, "far");
  says([](auto& c) { c.run.length = 64; }, "longer");
  says([](auto& c) { c.data.copy_weight = 2; }, "copies");
  says([](auto& c) { c.run.fasta.clear(); }, "fasta");
  CalibrateConfig none = config();
  none.data.sources.clear();
  none.memory.tables = {};
  for (const std::string& name : calibrated_memories(none)) EXPECT_NE(name, "tables");
  CalibrateConfig written = config(), again;
  config::read_text(config::to_json(written), "written", {}, again);
  EXPECT_EQ(config::to_json(again), config::to_json(written));
}

TEST_F(CalibrateTest, StopsAtASignal) {
  const CalibrateConfig c = config();
  request_interrupt(SIGINT);
  EXPECT_THROW(run(c), Interrupted);
  reset_interrupt();
}

}  // namespace
}  // namespace focus::eval
