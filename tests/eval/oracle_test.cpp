// Entries optimised for the sequence that is measured.
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <csignal>

#include "focus/core/error.h"
#include "focus/core/interrupt.h"
#include "focus/core/random.h"
#include "workspace.h"

namespace focus::eval {

using report::FidelityResult;
using report::Measure;
using report::MethodResult;

namespace {

std::string letters(int64_t length) {
  Random random(1, 0);
  std::string out;
  for (int64_t i = 0; i < length; ++i) out += "ACGT"[random.uniform_integer(4)];
  return out;
}

class OracleTest : public ::testing::Test {
 protected:
  OracleTest() {
    at::set_num_threads(1);
    testing::write_small_model(space_.path());
  }
  FidelityConfig config() const {
    FidelityConfig c = space_.config(letters(2000), 300);
    c.methods = {"state_only", "fitted", "oracle"};
    c.oracle.steps = 30;
    return c;
  }
  static Measured run(const FidelityConfig& config) { return measured(config); }
  static const MethodResult& method(const FidelityResult& result, const std::string& name) {
    for (const auto& m : result.methods) {
      if (m.name == name) return m;
    }
    throw std::runtime_error("no method " + name);
  }
  /// Of one segment, behind the first window.
  static double mean(const Measured& result, const std::string& name, int64_t segment) {
    double total = 0;
    int64_t count = 0;
    const auto& v = values_of(result, name, Measure::kl);
    for (int64_t p = result.window; p < result.positions; ++p) {
      const float x = v[static_cast<std::size_t>(segment * result.positions + p)];
      if (std::isnan(x)) continue;
      total += x;
      ++count;
    }
    return total / static_cast<double>(count);
  }
  static std::string refusal(const FidelityConfig& config) {
    try {
      run(config);
    } catch (const ConfigError& e) {
      return e.what();
    }
    return "accepted";
  }
  const Workspace space_;
};

TEST_F(OracleTest, RecoversMoreThanTheFitOnEverySegmentWithTheSameBytes) {
  const Measured result = run(config());
  for (const int64_t segment : {0, 1})
    EXPECT_LT(mean(result, "oracle", segment), 0.8 * mean(result, "fitted", segment)) << segment;
  const MethodResult &oracle = method(result, "oracle"), &fitted = method(result, "fitted");
  EXPECT_EQ(oracle.kept_entries, fitted.kept_entries);
  EXPECT_EQ(oracle.kept_bytes, fitted.kept_bytes);
  EXPECT_EQ(oracle.open_bytes, fitted.open_bytes);
  EXPECT_NE(oracle.description.find("looks at the sequence that is measured"), std::string::npos)
      << oracle.description;
  for (int64_t p = 0; p < 64; ++p)
    EXPECT_LT(values_of(result, "oracle", Measure::l1)[static_cast<std::size_t>(p)], 1e-4)
        << "nothing is compressed yet";
}

TEST_F(OracleTest, MoreStepsRecoverMoreAndTheBestIterateIsKept) {
  FidelityConfig c = config();
  const Measured thirty = run(c);
  c.oracle.steps = 90;
  EXPECT_LT(mean(run(c), "oracle", 0), mean(thirty, "oracle", 0));
  // Steps far too large ruin every entry: what is left is the start.
  c.oracle = {.steps = 2, .lr = 10};
  const Measured ruined = run(c);
  EXPECT_LE(mean(ruined, "oracle", 0), mean(ruined, "fitted", 0) * 1.001);
}

TEST_F(OracleTest, FollowsTheRunsMemory) {
  FidelityConfig c = config();
  c.methods = {"fitted", "oracle"};
  c.oracle.steps = 5;
  c.memory.focus.eviction = compress::Eviction::rolling;
  c.memory.focus.sinks = 8;
  c.memory.storage.dtype = compress::StorageType::bf16;
  const Measured result = run(c);
  EXPECT_EQ(method(result, "oracle").kept_bytes, method(result, "fitted").kept_bytes);
  EXPECT_LT(mean(result, "oracle", 0), mean(result, "fitted", 0));
}

TEST_F(OracleTest, ASegmentWithinOneWindowHasNothingToOptimise) {
  FidelityConfig c = config();
  c.length = 65;
  const Measured result = run(c);
  for (const float l1 : values_of(result, "oracle", Measure::l1)) EXPECT_LT(l1, 1e-4);
}

TEST_F(OracleTest, OnlyWhenAskedForAndOnlyWhereItCanWork) {
  FidelityConfig c = config();
  c.methods.clear();
  c.oracle = {};
  for (const std::string& name : fidelity_methods(c)) EXPECT_NE(name, "oracle");
  c.oracle.steps = 7;
  EXPECT_NE(refusal(c).find("oracle.steps has no effect unless methods names 'oracle'"), std::string::npos)
      << refusal(c);
  c = config();
  c.memory.storage.dtype = compress::StorageType::int8;
  EXPECT_NE(refusal(c).find("int8"), std::string::npos) << refusal(c);
  c = config();
  c.memory.focus.history = compress::History::none;
  EXPECT_NE(refusal(c).find("no entry that a base sees"), std::string::npos) << refusal(c);
  for (const char* text :
       {R"({"oracle": {"steps": 0}})", R"({"oracle": {"lr": 0}})", R"({"oracle": {"rate": 1}})"}) {
    FidelityConfig read;
    EXPECT_THROW(config::read_text(text, "test", {}, read), ConfigError) << text;
  }
}

TEST_F(OracleTest, AnInterruptEndsIt) {
  FidelityConfig c = config();
  c.methods = {"oracle"};
  c.segments = 1;
  c.oracle.steps = 1 << 20;
  install_interrupt_handlers();
  std::raise(SIGTERM);
  EXPECT_THROW(run(c), Interrupted);
  reset_interrupt();
  std::signal(SIGTERM, SIG_DFL);
  std::signal(SIGINT, SIG_DFL);
}

}  // namespace
}  // namespace focus::eval
