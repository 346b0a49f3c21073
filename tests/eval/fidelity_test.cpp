#include "focus/eval/fidelity.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <csignal>
#include <cstring>

#include "focus/compress/focus/adapter_file.h"
#include "focus/core/error.h"
#include "focus/core/interrupt.h"
#include "focus/core/random.h"
#include "focus/report/fidelity_report.h"
#include "focus/report/fidelity_table.h"
#include "workspace.h"

namespace focus::eval {

using report::FidelityResult;
using report::Measure;
using report::MethodResult;

namespace {

constexpr int64_t kLayers = 2, kWidth = 16, kHeads = 2;
constexpr int64_t kRawBytes = 2 * kWidth * 4;            // key and value of a base at one layer
constexpr int64_t kFocusBytes = kRawBytes + kHeads * 4;  // and beta

std::string letters(int64_t length, uint64_t seed = 1) {
  Random random(seed, 0);
  std::string out;
  for (int64_t i = 0; i < length; ++i) out += "ACGT"[random.uniform_integer(4)];
  return out;
}

class FidelityTest : public ::testing::Test {
 protected:
  FidelityTest() {
    at::set_num_threads(1);  // the tensors are too small to share
    testing::write_small_model(space_.path());
  }
  static Measured run(const FidelityConfig& config) { return measured(config); }
  static const MethodResult& method(const FidelityResult& result, const std::string& name) {
    for (const auto& m : result.methods) {
      if (m.name == name) return m;
    }
    throw std::runtime_error("no method " + name);
  }
  static const std::vector<float>& values(const Measured& result, const std::string& name, Measure measure) {
    return values_of(result, name, measure);
  }
  static double largest(const std::vector<float>& v) {
    double out = 0;
    for (const float x : v) out = std::isnan(x) ? out : std::max(out, static_cast<double>(std::fabs(x)));
    return out;
  }
  /// Over the positions of all segments from `first` on.
  static double mean(const Measured& result, const std::string& name, int64_t first) {
    double total = 0;
    int64_t count = 0;
    const auto& v = values(result, name, Measure::kl);
    for (std::size_t i = 0; i < v.size(); ++i) {
      if (static_cast<int64_t>(i) % result.positions < first || std::isnan(v[i])) continue;
      total += v[i];
      ++count;
    }
    return total / static_cast<double>(count);
  }
  /// A trained adapter's file: noise on every parameter.
  std::string adapter(const compress::MemoryConfig& memory, const std::string& name) const {
    const auto loaded = weights::load_model((space_ / "small.yml").string(), (space_ / "small.pt").string(),
                                            at::kFloat, "cpu");
    const auto trained = testing::perturbed_adapter(*loaded.model, memory);
    const std::string path = (space_ / name).string();
    compress::save_adapter(*trained, {loaded.model, {}, {}}, loaded.digest, path);
    return path;
  }

  const Workspace space_;
};

TEST_F(FidelityTest, FullMemoryIsAtNoDistanceFromItselfAndRoundingIsAllTheNoiseFloorShows) {
  FidelityConfig config = space_.config(letters(2000), 300);
  config.methods = {"noise_floor", "state_only"};
  const Measured result = run(config);
  ASSERT_EQ(result.methods[0].name, "full");
  for (const Measure m :
       {Measure::kl, Measure::l1, Measure::l2, Measure::hellinger, Measure::js, Measure::kl_acgt})
    EXPECT_EQ(largest(values(result, "full", m)), 0.0);
  for (const float same : values(result, "full", Measure::top1_agreement)) EXPECT_EQ(same, 1.0F);
  EXPECT_LT(largest(values(result, "noise_floor", Measure::l1)), 1e-4);
  EXPECT_LT(largest(values(result, "noise_floor", Measure::kl)), 1e-7);
  EXPECT_GT(mean(result, "state_only", 64), 1e3 * mean(result, "noise_floor", 64));
}

TEST_F(FidelityTest, NothingDiffersBeforeTheFirstBoundary) {
  const Measured result = run(space_.config(letters(2000), 300));
  for (const auto& m : result.methods) {
    for (int64_t p = 0; p < 64; ++p)
      EXPECT_LT(values(result, m.name, Measure::l1)[static_cast<std::size_t>(p)], 1e-4)
          << m.name << " position " << p;
  }
  // The base right behind a window's end is predicted from the first base of the next.
  EXPECT_GT(values(result, "state_only", Measure::l1)[64], 1e-4);
}

TEST_F(FidelityTest, FittedEntriesOfOneBaseAreThatBase) {
  FidelityConfig config = space_.config(letters(2000), 300);
  config.plan.k = 1;
  config.methods = {"fitted"};
  EXPECT_LT(largest(values(run(config), "fitted", Measure::l1)), 1e-4);
}

TEST_F(FidelityTest, BytesAreThoseReallyHeld) {
  const FidelityConfig config = space_.config(letters(2000), 330);  // 5 windows and 10 bases
  const Measured result = run(config);
  const int64_t entries = 5 * 8, budget = kLayers * entries * kFocusBytes;
  EXPECT_EQ(method(result, "fitted").kept_entries, entries);
  EXPECT_EQ(method(result, "fitted").kept_bytes, budget);
  EXPECT_EQ(method(result, "mean_pool").kept_bytes, budget);
  EXPECT_EQ(method(result, "mean_pool_nobeta").kept_bytes, kLayers * entries * kRawBytes);
  EXPECT_EQ(method(result, "full").kept_entries, 320);
  EXPECT_EQ(method(result, "full").kept_bytes, kLayers * 320 * kRawBytes);
  EXPECT_EQ(method(result, "noise_floor").kept_entries, 330);
  EXPECT_EQ(method(result, "noise_floor").kept_bytes, kLayers * 330 * kRawBytes);
  EXPECT_EQ(method(result, "state_only").kept_entries, 0);
  EXPECT_EQ(method(result, "state_only").kept_bytes, 0);
  for (const char* name : {"sliding", "sinks", "strided"}) {
    EXPECT_LE(method(result, name).kept_bytes, budget) << name;
    EXPECT_GT(method(result, name).kept_bytes, budget * 9 / 10) << name;
  }
  // One base short of a whole window: keys, values and positions; the fitted unit also needs queries and
  // inputs.
  EXPECT_EQ(method(result, "sliding").open_bytes, kLayers * 63 * (kRawBytes + 8));
  EXPECT_EQ(method(result, "fitted").open_bytes, kLayers * 63 * (2 * kRawBytes + 8));
  for (const auto& m : result.methods) EXPECT_GT(m.seconds, 0) << m.name;
}

TEST_F(FidelityTest, PositionsBeforeOtherLettersAreNotMeasured) {
  std::string sequence = letters(300);
  sequence[100] = 'N';
  sequence[200] = 'R';
  sequence[150] = 'a';
  FidelityConfig config = space_.config(sequence, 300);
  config.segments = 1;
  const Measured result = run(config);
  ASSERT_EQ(result.segments.size(), 1U);
  for (std::size_t m = 0; m < result.methods.size(); ++m) {
    for (const auto& v : result.values[m].values) {
      for (std::size_t p = 0; p < v.size(); ++p)
        EXPECT_EQ(std::isnan(v[p]), p == 99 || p == 199) << result.methods[m].name << " " << p;
    }
  }
}

TEST_F(FidelityTest, ChunksChangeNothingButRounding) {
  FidelityConfig config = space_.config(letters(2000), 300);
  const Measured by_window = run(config);
  config.chunk = 100;
  const Measured by_hundred = run(config);
  for (const auto& m : by_window.methods) {
    const auto& a = values(by_window, m.name, Measure::cross_entropy);
    const auto& b = values(by_hundred, m.name, Measure::cross_entropy);
    // Rounding may tip a quantised value over to the next step: seldom, and by no more than the step.
    const bool quantised = m.name.find("quant") != std::string::npos;
    std::size_t tipped = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
      ASSERT_NEAR(a[i], b[i], quantised ? 5e-3 : 1e-3) << m.name << " " << i;
      tipped += std::abs(a[i] - b[i]) > 1e-3;
    }
    EXPECT_LE(tipped, quantised ? a.size() / 100 : 0) << m.name;
    EXPECT_EQ(m.kept_bytes, method(by_hundred, m.name).kept_bytes) << m.name;
  }
}

TEST_F(FidelityTest, SameSeedSameResultOtherSeedOtherSegments) {
  FidelityConfig config = space_.config(letters(4000), 200);
  config.methods = {"sliding"};
  const Measured a = run(config), b = run(config);
  config.seed = 43;
  const Measured c = run(config);
  for (std::size_t m = 0; m < a.methods.size(); ++m) {
    for (std::size_t i = 0; i < a.values[m].values.size(); ++i) {
      const auto &x = a.values[m].values[i], &y = b.values[m].values[i];
      EXPECT_EQ(std::memcmp(x.data(), y.data(), x.size() * sizeof(float)), 0);
    }
  }
  EXPECT_NE(a.segments[0].begin, c.segments[0].begin);
}

TEST_F(FidelityTest, WindowAndKOverrideMemory) {
  FidelityConfig config = space_.config(letters(2000), 300);
  config.methods = {"fitted", "state_only"};
  const Measured base = run(config);
  config.plan.k = 4;
  const Measured finer = run(config);
  EXPECT_EQ(finer.kmer, 4);
  EXPECT_EQ(method(finer, "fitted").kept_entries, 2 * method(base, "fitted").kept_entries);
  EXPECT_NE(mean(finer, "fitted", 64), mean(base, "fitted", 64));
  EXPECT_EQ(mean(finer, "state_only", 64), mean(base, "state_only", 64));
  config.plan.window = 128;
  const Measured wider = run(config);
  EXPECT_EQ(wider.window, 128);
  EXPECT_LT(largest({values(wider, "state_only", Measure::l1).begin(),
                     values(wider, "state_only", Measure::l1).begin() + 128}),
            1e-4);
}

TEST_F(FidelityTest, AdaptersBringTheirOwnMemory) {
  FidelityConfig config = space_.config(letters(2000), 300);
  compress::MemoryConfig memory;
  memory.window.size = 32;
  memory.focus.k = 8;
  memory.focus.rank = 4;
  compress::MemoryConfig paper = memory;
  paper.focus.unit = compress::UnitKind::paper;
  config.memory = {};
  config.adapter = adapter(memory, "adapter.safetensors");
  config.adapters["paper"] = adapter(paper, "paper.safetensors");
  config.methods = {"fitted", "focus", "paper", "sliding"};
  const Measured base = run(config);
  EXPECT_EQ(base.window, 32);
  EXPECT_EQ(base.kmer, 8);
  for (const char* name : {"fitted", "focus", "paper"}) {
    EXPECT_EQ(method(base, name).kept_entries, 9 * 4) << name;
    EXPECT_EQ(method(base, name).kept_bytes, kLayers * 9 * 4 * kFocusBytes) << name;
    EXPECT_GT(mean(base, name, 32), 1e-9) << name;
  }
  EXPECT_NE(mean(base, "fitted", 32), mean(base, "focus", 32));
  EXPECT_FALSE(base.provenance.at("adapter_digest").empty());
  EXPECT_FALSE(base.provenance.at("adapters.paper_digest").empty());

  config.adapter = (space_ / "").string();  // the run's folder
  EXPECT_EQ(mean(run(config), "focus", 32), mean(base, "focus", 32));
  config.plan.k = 4;
  config.plan.window = 64;
  const Measured other = run(config);
  EXPECT_EQ(other.window, 64);
  EXPECT_EQ(method(other, "focus").kept_entries, 4 * 16);
  EXPECT_EQ(method(other, "paper").kept_entries, 4 * 16);
  EXPECT_NE(mean(other, "focus", 64), mean(base, "focus", 64));
  // Overridden to what it was trained with: the same numbers as without an override.
  config.plan.k = 8;
  config.plan.window = 32;
  EXPECT_EQ(mean(run(config), "focus", 32), mean(base, "focus", 32));
}

TEST_F(FidelityTest, ALabelThatNamesAUnitIsHeldToIt) {
  FidelityConfig config = space_.config(letters(2000), 300);
  const std::string fitted = adapter(config.memory, "fitted.safetensors");
  for (const char* label : {"paper", "PAPER", "the-paper", "paper_2025"}) {
    config.adapters = {{label, fitted}};
    config.methods = {label};
    EXPECT_THROW(run(config), ConfigError) << label;
  }
  config.adapters = {{"newspaper", fitted}, {"my-fitted", fitted}};
  config.methods = {"newspaper", "my-fitted"};
  const Measured result = run(config);
  EXPECT_EQ(mean(result, "newspaper", 64), mean(result, "my-fitted", 64));
}

TEST_F(FidelityTest, AdaptersWithDifferentWindowsDoNotMix) {
  FidelityConfig config = space_.config(letters(2000), 300);
  config.methods = {"paper"};
  compress::MemoryConfig paper = config.memory;
  paper.focus.unit = compress::UnitKind::paper;
  paper.focus.k = 16;
  config.adapters["paper"] = adapter(paper, "paper.safetensors");
  EXPECT_THROW(run(config), ConfigError);
  config.plan.k = 16;
  EXPECT_EQ(method(run(config), "paper").kept_entries, 4 * 4);
}

TEST_F(FidelityTest, AnAdapterOfAnotherModelIsRefused) {
  FidelityConfig config = space_.config(letters(2000), 300);
  const compress::MemoryConfig memory = config.memory;
  config.memory = {};
  config.adapter = (space_ / "adapter.safetensors").string();
  const auto backbone = testing::small_model(at::kFloat);
  compress::save_adapter(*testing::perturbed_adapter(*backbone, memory), {backbone, {}, {}},
                         std::string(64, 'f'), config.adapter);
  EXPECT_THROW(run(config), CheckpointError);
}

TEST_F(FidelityTest, ASegmentWithinOneWindowWarnsAndShowsNoDifference) {
  FidelityConfig config = space_.config(letters(2000), 65);
  ::testing::internal::CaptureStderr();
  const Measured result = run(config);
  EXPECT_NE(::testing::internal::GetCapturedStderr().find("NO BOUNDARY IS CROSSED"), std::string::npos);
  for (const auto& m : result.methods)
    EXPECT_LT(largest(values(result, m.name, Measure::l1)), 1e-4) << m.name;
  EXPECT_NE(fidelity_table(result).find("NO BOUNDARY WAS CROSSED"), std::string::npos);
  config.length = 66;
  ::testing::internal::CaptureStderr();
  EXPECT_GT(largest(values(run(config), "state_only", Measure::l1)), 1e-4);
  EXPECT_EQ(::testing::internal::GetCapturedStderr().find("NO BOUNDARY"), std::string::npos);
}

TEST_F(FidelityTest, RepeatShareIsThatOfFarRepeats) {
  const std::string unit = letters(150);
  FidelityConfig config = space_.config(unit + unit, 300);
  config.segments = 1;
  config.methods = {"full"};
  EXPECT_NEAR(run(config).segments[0].repeat, (150.0 - 32) / 300, 0.02);
}

TEST_F(FidelityTest, BadInputIsNamed) {
  FidelityConfig config = space_.config(letters(200), 300);
  EXPECT_THROW(run(config), DataError);  // no record is long enough
  config.fasta = (space_ / "missing.fa").string();
  EXPECT_THROW(run(config), DataError);
  config = space_.config(letters(2000), 300);
  config.model_checkpoint = (space_ / "missing.pt").string();
  EXPECT_THROW(run(config), Error);
}

TEST_F(FidelityTest, AnInterruptEndsTheRun) {
  const FidelityConfig config = space_.config(letters(2000), 300);
  install_interrupt_handlers();
  std::raise(SIGTERM);
  EXPECT_THROW(run(config), Interrupted);
  reset_interrupt();
  std::signal(SIGTERM, SIG_DFL);
  std::signal(SIGINT, SIG_DFL);
}

TEST_F(FidelityTest, ReportIsComplete) {
  FidelityConfig config = space_.config(letters(2000), 300);
  config.bootstrap_draws = 50;
  const Measured result = run(config);
  for (const char* key :
       {"version", "git", "model", "model_digest", "fasta", "fasta_digest", "device", "dtype", "seed"})
    EXPECT_FALSE(result.provenance.at(key).empty()) << key;
  EXPECT_EQ(result.bootstrap_draws, 50);
  FidelityConfig again;
  config::read_text(result.config_json, "report", {}, again);
  EXPECT_NO_THROW(again.validate());
  EXPECT_EQ(again.methods.size(), result.methods.size());
  write_fidelity_report(result, space_ / "report");
  for (const char* name :
       {"summary.tsv", "by_position.tsv", "by_offset.tsv", "segments.tsv", "summary.json", "report.html"})
    EXPECT_GT(std::filesystem::file_size(space_ / (std::string("report/") + name)), 100U) << name;
}

}  // namespace
}  // namespace focus::eval
