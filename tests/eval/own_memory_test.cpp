// A memory of one's own: the class and the registration below are all it takes to be a method of evaluation,
// a memory to score with and a name in every list. It keeps every seventh base of the closed windows.
#include <gtest/gtest.h>

#include <algorithm>

#include "focus/compress/memory/memory_factory.h"
#include "focus/core/error.h"
#include "focus/eval/fidelity.h"
#include "focus/ops/attention.h"
#include "workspace.h"

namespace focus::eval {
namespace {

using at::Tensor;
using compress::LayerContext;
using compress::MemoryUse;
using compress::ModelCall;

constexpr int64_t kStep = 7;

struct SeventhState final : compress::MemoryState {
  std::unique_ptr<cache::LayerState> clone() const override {
    return std::make_unique<SeventhState>(*this);
  }  // nothing is changed in place
  std::unique_ptr<cache::LayerState> snapshot() const override { return clone(); }
  cache::TensorMap save() const override {
    cache::TensorMap out;
    for (const auto& [name, t] :
         {std::pair("kept.k", kept_k), std::pair("kept.v", kept_v), std::pair("k", k), std::pair("v", v)}) {
      if (t.defined()) out.emplace(name, cache::saved_tensor(t));
    }
    return out;
  }
  void load(const cache::TensorMap& saved, const at::Device& device) override {
    for (const auto& [name, t] : {std::pair("kept.k", &kept_k), std::pair("kept.v", &kept_v),
                                  std::pair("k", &k), std::pair("v", &v)}) {
      if (saved.contains(name)) *t = cache::loaded_tensor(saved, name, device);
    }
  }
  void detach() override {}
  MemoryUse use() const override {
    const auto bytes = [](const Tensor& a, const Tensor& b) {
      return cache::storage_bytes(a) + cache::storage_bytes(b);
    };
    return {kept_k.defined() ? kept_k.size(2) : 0, bytes(kept_k, kept_v), bytes(k, v)};
  }
  Tensor kept_k, kept_v, k, v;  // [B, G, n, E]
};

class EverySeventh final : public compress::LayerMemory {
 public:
  explicit EverySeventh(const LayerContext& c)
      : plan_(c.config.window, c.config.focus.k),
        base_bytes_(2 * c.backbone.shape().width * at::elementSize(c.backbone.dtype())) {}
  std::string describe() const override { return "every 7th base of closed windows"; }
  std::unique_ptr<compress::MemoryState> make_state() const override {
    return std::make_unique<SeventhState>();
  }
  Tensor stream(const model::AttentionCall& layer, ModelCall& call) const override {
    auto& state = dynamic_cast<SeventhState&>(*layer.state);
    const int64_t length = layer.u_BLD.size(1);
    const auto now =
        layer.attention.project(layer.u_BLD, at::arange(layer.position, layer.position + length));
    const auto join = [](const Tensor& a, const Tensor& b) {
      return a.defined() ? at::cat({a, b}, 2) : b.clone();
    };
    std::vector<Tensor> out;
    for (int64_t row = 0; row < length;) {
      const int64_t base = call.first_base + row, end = plan_.window(plan_.window_of(base)).end;
      const int64_t count = std::min(end - base, length - row);
      state.k = join(state.k, now.k.narrow(2, row, count));
      state.v = join(state.v, now.v.narrow(2, row, count));
      out.push_back(ops::memory_attention(now.q.narrow(2, row, count), {{state.kept_k, state.kept_v, {}}},
                                          state.k, state.v));
      row += count;
      if (base + count < end) continue;
      const Tensor kept =
          at::arange((kStep - (end - state.k.size(2)) % kStep) % kStep, state.k.size(2), kStep);
      state.kept_k = join(state.kept_k, state.k.index_select(2, kept));
      state.kept_v = join(state.kept_v, state.v.index_select(2, kept));
      state.k = state.v = Tensor();
    }
    return layer.attention.output(at::cat(out, 2));
  }
  MemoryUse planned(int64_t num_bases) const override {
    const int64_t open_begin = plan_.window(plan_.window_of(num_bases)).begin,
                  kept = (open_begin + kStep - 1) / kStep;
    return {kept, kept * base_bytes_, (num_bases - open_begin) * base_bytes_};
  }

 private:
  compress::WindowPlan plan_;
  int64_t base_bytes_;
};

const bool kRegistered = compress::register_memory(
    "every_seventh", [](const LayerContext& c) { return std::make_shared<EverySeventh>(c); });

TEST(OwnMemoryTest, IsAMethodOfEvaluation) {
  const Workspace space;
  testing::write_small_model(space.path());
  ASSERT_TRUE(kRegistered);
  FidelityConfig config =
      space.config(std::string(1000, 'A') + "CGTACCATGATTACA" + std::string(985, 'C'), 400);
  config.methods = {"state_only", "every_seventh"};
  const report::FidelityResult result = run_fidelity(config, "cpu", at::kFloat);
  const auto& method = result.methods.back();
  EXPECT_EQ(method.name, "every_seventh");
  EXPECT_EQ(method.description, "every 7th base of closed windows");
  EXPECT_EQ(method.kept_entries, 55) << "bases 0, 7, ... 378 of the six closed windows of 64";
  const auto names = compress::memory_names();
  EXPECT_EQ(names.back(), "every_seventh");
  EXPECT_THROW(compress::register_memory("every_seventh", {}), ConfigError);
}

TEST(OwnMemoryTest, HoldsWhatItPlansInCallsOfAnySize) {
  const at::NoGradGuard guard;
  const auto backbone = testing::small_model(at::kFloat);
  compress::MemoryConfig config;
  config.window.size = 20;
  config.focus.k = 5;
  const auto model = compress::make_memory("every_seventh", backbone, config);
  const Tensor tokens = testing::random_bases(1, 90, 1);
  compress::CompressedStream whole;
  const Tensor expected = model->forward(tokens, whole).bases;
  EXPECT_EQ(model->memory_use(whole).entries, 12);  // bases 0, 7, ... 77
  for (const int64_t chunk : {1, 13}) {
    compress::CompressedStream stream;
    std::vector<Tensor> parts;
    for (int64_t t = 0; t < 90; t += chunk) {
      parts.push_back(model->forward(tokens.narrow(1, t, std::min<int64_t>(chunk, 90 - t)), stream).bases);
      const MemoryUse use = model->memory_use(stream), planned = model->planned_use(stream.bases);
      EXPECT_EQ(use.entries, planned.entries) << stream.bases;
      EXPECT_EQ(use.retained_bytes, planned.retained_bytes) << stream.bases;
      EXPECT_EQ(use.open_bytes, planned.open_bytes) << stream.bases;
    }
    EXPECT_LT((at::cat(parts, 1) - expected).abs().max().item<double>(), 1e-5);
  }
  EXPECT_THROW(model->parallel(tokens), ConfigError);
}

}  // namespace
}  // namespace focus::eval
