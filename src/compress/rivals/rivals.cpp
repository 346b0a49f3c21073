#include "focus/compress/rivals/rivals.h"

#include "adaptive.h"
#include "attention_match.h"
#include "fitted_rivals.h"
#include "focus/core/error.h"
#include "key_selection.h"
#include "kv_quant.h"
#include "simple_rivals.h"
#include "span_entries.h"

namespace focus::compress {

using at::Tensor;

namespace {

constexpr int64_t kSinks = 4;

struct Rival {
  const char* name;
  std::shared_ptr<RetentionPolicy> (*make)(const Budget& budget);
};

template <class Policy>
std::shared_ptr<RetentionPolicy> with_budget(const Budget& budget) {
  return std::make_shared<Policy>(budget);
}

// The one list of rivals: names on command lines, in configurations and in reports all come from here.
const Rival kRivals[] = {
    {"full", [](const Budget&) -> std::shared_ptr<RetentionPolicy> { return std::make_shared<FullPolicy>(); }},
    {"state_only", [](const Budget&) -> std::shared_ptr<RetentionPolicy> { return std::make_shared<StateOnlyPolicy>(); }},
    {"sliding", [](const Budget& b) -> std::shared_ptr<RetentionPolicy> { return std::make_shared<SlidingPolicy>(b, 0); }},
    {"sinks", [](const Budget& b) -> std::shared_ptr<RetentionPolicy> { return std::make_shared<SlidingPolicy>(b, kSinks); }},
    {"strided", with_budget<StridedPolicy>},
    {"random", with_budget<RandomPolicy>},
    {"snapkv", with_budget<SnapKvPolicy>},
    {"expected_attention", with_budget<ExpectedAttentionPolicy>},
    {"heavy", with_budget<HeavyPolicy>},
    {"kv_quant_int8", [](const Budget& b) -> std::shared_ptr<RetentionPolicy> { return std::make_shared<KvQuantPolicy>(8, b); }},
    {"kv_quant_int4", [](const Budget& b) -> std::shared_ptr<RetentionPolicy> { return std::make_shared<KvQuantPolicy>(4, b); }},
    {"kv_quant_int8_full",
     [](const Budget&) -> std::shared_ptr<RetentionPolicy> { return std::make_shared<KvQuantPolicy>(8, std::nullopt); }},
    {"kv_quant_int4_full",
     [](const Budget&) -> std::shared_ptr<RetentionPolicy> { return std::make_shared<KvQuantPolicy>(4, std::nullopt); }},
    {"mean_pool", [](const Budget&) -> std::shared_ptr<RetentionPolicy> { return std::make_shared<MeanPoolPolicy>(true); }},
    {"mean_pool_nobeta", [](const Budget&) -> std::shared_ptr<RetentionPolicy> { return std::make_shared<MeanPoolPolicy>(false); }},
    {"window_mass", with_budget<WindowMassPolicy>},
    {"heavy_fitted", with_budget<HeavyFittedPolicy>},
    {"attention_match", with_budget<AttentionMatchPolicy>},
    {"adaptive", [](const Budget& b) -> std::shared_ptr<RetentionPolicy> { return std::make_shared<AdaptivePolicy>(b, at::Tensor()); }},
    {"multires", with_budget<MultiresPolicy>},
};

}  // namespace

std::shared_ptr<RetentionPolicy> make_adaptive_by(const Budget& budget, const Tensor& surprise_BL) {
  if (!surprise_BL.defined() || surprise_BL.dim() != 2 || surprise_BL.lt(0).any().item<bool>())
    fail<ShapeError>("adaptive k-mers: surprise must be one non-negative number for each base, [B, L]");
  return std::make_shared<AdaptivePolicy>(budget, surprise_BL);
}

const std::vector<std::string>& rival_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> out;
    for (const Rival& rival : kRivals) out.emplace_back(rival.name);
    return out;
  }();
  return names;
}

std::shared_ptr<RetentionPolicy> make_rival(const std::string& name, const Budget& budget) {
  std::string known;
  for (const Rival& rival : kRivals) {
    if (name == rival.name) return rival.make(budget);
    known += concat(known.empty() ? "" : ", ", rival.name);
  }
  fail<ConfigError>("unknown retention policy '", name, "'; known: ", known, ", focus");
}

}  // namespace focus::compress
