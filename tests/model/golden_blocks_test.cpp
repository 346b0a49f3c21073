// What happens between the blocks and inside one block of each kind, against the reference's recordings.
#include <functional>
#include <set>

#include "focus/nn/hyena.h"
#include "focus/ops/attention.h"
#include "focus/ops/fir.h"
#include "focus/ops/modal_scan.h"
#include "support/golden.h"

namespace focus::testing {
namespace {

using at::Tensor;
using model::BlockKind;

class GoldenBlocksTest : public GoldenTest {};
class GoldenInsideTest : public GoldenTest {};

/// [1, L, C] at the recorded positions: [P, C].
Tensor rows(const Tensor& x, const Tensor& positions) { return x[0].index_select(0, positions); }

nn::HyenaMixer mixer_of(const model::StripedHyenaBlock& block, const model::ModelConfig& c) {
  nn::HyenaOptions options{.width = c.hidden_size, .input_taps = c.input_taps, .modes = c.state_size};
  options.kind = block.kind() == BlockKind::hcs   ? nn::HyenaKind::hcs
                 : block.kind() == BlockKind::hcm ? nn::HyenaKind::hcm
                                                  : nn::HyenaKind::hcl;
  options.taps = block.kind() == BlockKind::hcs ? c.hcs_taps : c.hcm_taps;
  options.groups = block.kind() == BlockKind::hcs ? c.hcs_groups : c.hcm_groups;
  return {options, block.filter};
}

TEST_P(GoldenBlocksTest, HiddenStatesAfterEveryBlock) {
  const Golden golden = recorded("hidden");
  const Tensor expected = golden["hidden"], positions = golden["pos"];
  ASSERT_EQ(expected.size(0), model_->config().num_layers + 2);
  Tensor x = model_->embed(golden["tokens"]);
  int64_t row = 0;
  const auto check_row = [&](const Tensor& got) {
    check_("hidden/" + std::to_string(row), rows(got, positions), expected[row]);
    ++row;
  };
  check_row(x);
  for (const auto& block : model_->blocks->items) {
    x = block->forward(x, 0, nullptr, nullptr);
    check_row(x);
  }
  check_row(model_->norm->forward(x));
}

/// Runs one block step by step and hands every intermediate to `see`. Returns the block's output.
Tensor walk(model::StripedHyenaBlock& block, const model::ModelConfig& config, const Tensor& x,
            const std::function<void(const std::string&, const Tensor&)>& see) {
  const auto type = x.scalar_type();
  const Tensor u = block.pre_norm->forward(x);
  see("in", x);
  see("pre_norm", u);
  Tensor out;
  if (block.kind() == BlockKind::attention) {
    const auto& attention = *block.inner_mha_cls;
    const Tensor qkv = attention.Wqkv->forward(u);
    const auto flat = [](const Tensor& heads_BHLE) { return heads_BHLE.transpose(1, 2).flatten(2); };
    const auto parts = attention.split(qkv);
    see("qkv",
        at::cat({flat(parts.q), flat(parts.k), flat(parts.v)}, -1));  // the recording has them in this order
    const auto p = attention.project(u, at::arange(x.size(1)));
    see("q_rope", flat(p.q));
    see("k_rope", flat(p.k));
    const Tensor context = ops::causal_attention(p.q, p.k, p.v);
    see("context", flat(context));
    out = attention.output(context);
  } else {
    const Tensor z = block.projections->forward(u);
    see("projections", z);
    const auto& filter = *block.filter;
    const int64_t width = x.size(2), context = filter.short_filter_weight.size(-1) - 1;
    const Tensor fir = ops::causal_fir(at::constant_pad_nd(z.to(at::kFloat), {0, 0, context, 0}),
                                       filter.short_filter_weight.squeeze(1).t().to(at::kFloat))
                           .to(type);
    see("fir", fir);
    const Tensor channels = fir.unflatten(-1, {width, 3});
    const Tensor p = (channels.select(-1, 1) * channels.select(-1, 2)).to(at::kFloat);
    if (block.kind() == BlockKind::hcl) {
      see("inner_conv", ops::modal_scan(p, filter.log_poles.squeeze(-1), filter.residues, Tensor()).first);
    } else {
      Tensor taps = filter.h.squeeze(1).to(at::kFloat);
      if (block.kind() == BlockKind::hcm) taps = taps.flip(-1);
      taps = taps.repeat_interleave(width / taps.size(0), 0).t();
      see("inner_conv", ops::causal_fir(at::constant_pad_nd(p, {0, 0, taps.size(0) - 1, 0}), taps));
    }
    const Tensor gated = mixer_of(block, config).forward(z, nullptr);
    see("gated", gated);
    out = block.out_filter_dense->forward(gated);
  }
  see("out_proj", out);
  const Tensor mid = x + out, normed = block.post_norm->forward(mid), added = block.mlp->forward(normed);
  see("mid", mid);
  see("post_norm", normed);
  see("mlp", added);
  return mid + added;
}

TEST_P(GoldenInsideTest, OneBlockOfEachKind) {
  const Golden golden = recorded("blocks");
  const Tensor positions = golden["pos"];
  std::set<std::string> seen = {"pos"};
  Tensor x = model_->embed(recorded("hidden")["tokens"]);
  for (std::size_t i = 0; i < 4; ++i) {
    auto& block = *model_->blocks->items[i];
    const auto see = [&](const std::string& what, const Tensor& got) {
      const std::string tensor = std::to_string(i) + "." + what;
      check_("blocks/" + tensor, rows(got, positions), golden[tensor]);
      seen.insert(tensor);
    };
    const Tensor stepwise = walk(block, model_->config(), x, see);
    x = block.forward(x, 0, nullptr, nullptr);
    EXPECT_TRUE(at::equal(stepwise, x)) << "block " << i << " does something else than its steps";
    see("out", x);
  }
  const auto names = golden.names();
  EXPECT_EQ(seen, std::set<std::string>(names.begin(), names.end()));
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenBlocksTest, golden_models(), golden_test_name);
INSTANTIATE_TEST_SUITE_P(Models, GoldenInsideTest, golden_models({"tiny7b"}),
                         golden_test_name);  // recorded for this one only

}  // namespace
}  // namespace focus::testing
