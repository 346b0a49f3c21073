#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "focus/compress/focus/adapter_file.h"
#include "focus/compress/memory/memory_factory.h"
#include "focus/core/error.h"
#include "focus/eval/fidelity.h"
#include "focus/eval/sweep.h"
#include "support/idle_settings.h"
#include "workspace.h"

namespace focus::eval {
namespace {

FidelityConfig valid() {
  FidelityConfig c;
  c.model_config = "m.yml";
  c.model_checkpoint = "m.pt";
  c.fasta = "x.fa";
  return c;
}

std::string refusal(const std::function<void(FidelityConfig&)>& change) {
  FidelityConfig c = valid();
  change(c);
  try {
    c.validate();
  } catch (const ConfigError& e) {
    return e.what();
  }
  return "accepted";
}

TEST(FidelityConfigTest, ShippedConfigurationsAreValid) {
  for (const char* name : {"quickstart_eval.json", "eval_repeats.json"}) {
    FidelityConfig c;
    config::read_file(std::string(FOCUS_SOURCE_DIR) + "/configs/" + name, {}, c);
    EXPECT_NO_THROW(c.validate()) << name;
    EXPECT_TRUE(std::filesystem::exists(std::filesystem::path(FOCUS_SOURCE_DIR) / c.fasta)) << name;
    EXPECT_TRUE(std::filesystem::exists(std::filesystem::path(FOCUS_SOURCE_DIR) / c.model_config)) << name;
  }
}

TEST(SweepConfigTest, ShippedProtocolsAreValid) {
  const std::filesystem::path root = FOCUS_SOURCE_DIR;
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(root / "configs/protocols")) {
    if (entry.path().extension() != ".json") continue;
    ++count;
    const SweepConfig c = read_sweep_config(entry.path().string(), {});
    EXPECT_FALSE(c.axes.empty()) << entry.path();
    for (const SweepAxis& axis : c.axes) {
      for (const auto& value : axis.values) {
        if (!c.train.config.empty()) continue;  // its settings are the training's
        FidelityConfig cell;
        std::vector<std::string> settings;
        for (std::size_t i = 0; i < axis.keys.size(); ++i) settings.push_back(axis.keys[i] + "=" + value[i]);
        config::read_text(config::to_json(c.evaluation), entry.path().string(), settings, cell);
        EXPECT_NO_THROW(cell.validate()) << entry.path();
        EXPECT_TRUE(std::filesystem::exists(root / cell.fasta)) << entry.path();
        EXPECT_TRUE(std::filesystem::exists(root / cell.model_checkpoint)) << entry.path();
      }
    }
  }
  EXPECT_GE(count, 10);
}

TEST(FidelityConfigTest, SurvivesWritingAndReading) {
  FidelityConfig c = valid(), again;
  c.methods = {"full", "sliding"};
  c.plan.k = 50;
  config::read_text(config::to_json(c), "written", {}, again);
  EXPECT_EQ(config::to_json(again), config::to_json(c));
}

TEST(FidelityConfigTest, MethodsThatApplyAreTheDefault) {
  FidelityConfig c = valid();
  std::vector<std::string> untrained = compress::memory_names();
  ASSERT_EQ(untrained.front(), "full");
  untrained.insert(untrained.begin() + 1, "noise_floor");
  const auto on_far = std::erase_if(untrained, compress::stands_on_far);
  ASSERT_GT(on_far, 0U);
  untrained.insert(std::find(untrained.begin(), untrained.end(), "fitted"), "adaptive_entropy");
  EXPECT_EQ(fidelity_methods(c), untrained);
  c.memory.storage.dtype = compress::StorageType::bf16;
  EXPECT_EQ(fidelity_methods(c).size(), untrained.size() - 4) << "quantising rivals store their own way";
  c.memory.storage = {};
  c.memory.far.kmers = 4;
  EXPECT_EQ(fidelity_methods(c).size(), untrained.size() + on_far);
  c.memory.far = {};
  c.adapter = std::string("a.safetensors");
  c.adapters["paper"] = "b.safetensors";
  EXPECT_EQ(fidelity_methods(c).size(), untrained.size() + 2);
  c.methods = {"sliding", "full", "focus", "paper"};
  EXPECT_EQ(fidelity_methods(c), (std::vector<std::string>{"full", "sliding", "focus", "paper"}));
}

TEST(FidelityConfigTest, RefusesWhatMakesNoSense) {
  const auto says = [](const std::function<void(FidelityConfig&)>& change, const std::string& part) {
    const std::string message = refusal(change);
    EXPECT_NE(message.find(part), std::string::npos) << message;
  };
  EXPECT_EQ(refusal([](auto&) {}), "accepted");
  says([](auto& c) { c.model_config.clear(); }, "model_config");
  says([](auto& c) { c.model_checkpoint.clear(); }, "model_checkpoint");
  says([](auto& c) { c.fasta.clear(); }, "fasta");
  says([](auto& c) { c.methods = {"slidding"}; }, "did you mean 'sliding'");
  says([](auto& c) { c.methods = {"sliding", "sliding"}; }, "twice");
  says([](auto& c) { c.methods = {"focus"}; }, "adapter");
  says([](auto& c) { c.methods = {"paper"}; }, "unknown method 'paper'");
  says([](auto& c) { c.adapters["paper"] = "b", c.methods = {"full"}; }, "adapters.paper has no effect");
  says([](auto& c) { c.adapters["fitted"] = "b"; }, "the name of another method");
  says([](auto& c) { c.adapters["my adapter"] = "b"; }, "use a short word");
  says([](auto& c) { c.adapter = std::string("a"), c.memory.focus.rank = 50; },
       "focus.rank has no effect unless adapter is empty");
  says([](auto& c) { c.memory.focus.unit = compress::UnitKind::paper; }, "name that as adapter");
  says([](auto& c) { c.plan.k = 2000; }, "larger than window.size");
}

TEST(FidelityConfigTest, SettingsWithoutEffectAreRefused) {
  testing::expect_idle_settings_refused<FidelityConfig>({{},
                                                         {"planted.size=10", "planted.distance=20"},
                                                         {"needles.size=24"},
                                                         {"far.kmers=4"},
                                                         {"far.kmers=4", "far.place=file"},
                                                         {"far.kmers=4", "far.score=sketch"},
                                                         {"adapter=a"},
                                                         {"methods=[\"full\"]"},
                                                         {"focus.unit=paper"},
                                                         {"focus.schedule=[{\"memory\": \"tables\"}]"},
                                                         {"focus.fitted.corrections=false"},
                                                         {"focus.local=kmer"},
                                                         {"focus.eviction=rolling"},
                                                         {"focus.schedule=[{\"memory\": \"full\"}]"}});
}

TEST(FidelityConfigTest, ZeroLeavesThePlanAsItIs) {
  FidelityConfig c;
  config::read_text(R"({"window": {"size": 0}, "focus": {"k": 0}, "adapter": "a"})", "test", {"focus.k=7"},
                    c);
  EXPECT_FALSE(c.plan.window);
  EXPECT_EQ(c.plan.k, 7);
  const compress::MemoryConfig memory = c.plan.on({});
  EXPECT_EQ(memory.window.size, compress::WindowConfig{}.size);
  EXPECT_EQ(memory.focus.k, 7);
}

TEST(FidelityConfigTest, AdapterMayBeNamedByItsRunFolder) {
  const Workspace folder;
  EXPECT_THROW(compress::adapter_file((folder / "").string()), CheckpointError);
  EXPECT_THROW(compress::adapter_file((folder / "nothing").string()), CheckpointError);
  const std::string file = folder.text("adapter.safetensors", "x");
  EXPECT_EQ(compress::adapter_file((folder / "").string()).string(), file);
  EXPECT_EQ(compress::adapter_file(file).string(), file);
}

}  // namespace
}  // namespace focus::eval
