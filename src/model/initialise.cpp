#include "focus/model/initialise.h"

#include <ATen/CPUGeneratorImpl.h>

#include <cmath>

#include "focus/core/error.h"
#include "focus/nn/linear.h"

namespace focus::model {
namespace {

using at::Tensor;

class Initialiser {
 public:
  Initialiser(StripedHyena& model, const InitConfig& config)
      : model_(model),
        config_(config),
        generator_(at::make_generator<at::CPUGeneratorImpl>(static_cast<uint64_t>(config.seed))) {}

  void run() {
    fill(model_.embedding_layer->weight,
         normal(model_.embedding_layer->weight.sizes(), config_.embedding_std));
    if (model_.norm) model_.norm->scale.fill_(config_.final_norm_scale);
    for (auto& block : model_.blocks->items) init_block(*block);
    if (config_.delay_pair) {
      StripedHyenaBlock* last = nullptr;  // with a filter, since the last attention
      for (auto& block : model_.blocks->items) {
        if (block->kind() == BlockKind::attention) {
          if (last) pair(*last, *block);
          last = nullptr;
        } else if (!last || block->kind() != BlockKind::hcl) {
          last = block.get();
        }
      }
    }
    if (config_.nucleotide_gap > 0) separate_nucleotides();
  }

 private:
  Tensor normal(at::IntArrayRef sizes, double std) { return at::randn(sizes, generator_) * std; }
  static void fill(Tensor& parameter, const Tensor& value) { parameter.copy_(value); }
  void matrix(nn::Linear& linear, double gain) {
    fill(linear.weight,
         normal(linear.weight.sizes(), gain / std::sqrt(static_cast<double>(linear.weight.size(1)))));
    if (linear.bias.defined()) linear.bias.zero_();
  }

  void init_block(StripedHyenaBlock& block) {
    block.pre_norm->scale.fill_(1.0);
    block.post_norm->scale.fill_(1.0);
    const bool attention = block.kind() == BlockKind::attention;
    const double gain = attention ? config_.attention_gain : config_.output_gain;
    matrix(*block.mlp->l1, 1.0);
    matrix(*block.mlp->l2, 1.0);
    matrix(*block.mlp->l3, 0.3 * gain);
    if (attention) {
      matrix(*block.inner_mha_cls->Wqkv, 1.0);
      matrix(*block.inner_mha_cls->out_proj, gain);
      return;
    }
    matrix(*block.projections, 1.0);
    matrix(*block.out_filter_dense, gain);
    auto& filter = *block.filter;
    Tensor fir = normal(filter.short_filter_weight.sizes(), 0.3);
    fir.select(-1, -1).add_(1.0);
    fill(filter.short_filter_weight, fir);
    if (filter.D.defined()) filter.D.fill_(0.5);
    if (block.kind() == BlockKind::hcs) {
      Tensor h = normal(filter.h.sizes(), 1.0 / std::sqrt(static_cast<double>(filter.h.size(-1))));
      h.select(-1, -1).add_(0.5);  // hcs has no D: its share of the newest base
      fill(filter.h, h);
    } else if (block.kind() == BlockKind::hcm) {
      // Each filter decays at a rate of its own, from a hundredth per base to a half.
      const Tensor rate = at::logspace(-2, -0.3, filter.h.size(0)).view({-1, 1, 1});
      const Tensor lag = at::arange(filter.h.size(-1), at::kFloat);
      fill(filter.h, normal(filter.h.sizes(), 1.0) * (-lag * rate).exp() * rate.sqrt());
    } else {
      const Tensor log_rate =
          at::logspace(-4, 0, filter.residues.size(1)).log() + normal(filter.residues.sizes(), 0.1);
      fill(filter.log_poles, -log_rate.exp().unsqueeze(-1));
      fill(filter.residues, normal(filter.residues.sizes(), 0.25) * log_rate.exp().sqrt());
    }
  }

  // The last channel tells A, C, G and T from all other bytes, reaches the tied unembedding untouched and
  // keeps those bytes improbable from the first step. Without it the first steps only learn, at full rate and
  // through every weight, that 508 bytes never occur, and undo whatever the weights started with.
  void separate_nucleotides() {
    if (!model_.norm || model_.config().vocab_size <= 'T') return;
    const int64_t channel = model_.config().hidden_size - 1;
    Tensor column = model_.embedding_layer->weight.select(1, channel);
    column.fill_(-1.0);
    for (const char letter : {'A', 'C', 'G', 'T'}) column[letter] = 1.0;
    for (auto& block : model_.blocks->items) {
      block->mlp->l3->weight.select(0, channel).zero_();
      (block->kind() == BlockKind::attention ? block->inner_mha_cls->out_proj : block->out_filter_dense)
          ->weight.select(0, channel)
          .zero_();
    }
    model_.norm->scale[channel] = config_.nucleotide_gap;
  }

  void pair(StripedHyenaBlock& hyena, StripedHyenaBlock& attention) {
    const int64_t width = model_.config().hidden_size, half = width / 2;
    const auto lower = [&](const Tensor& t) { return t.narrow(0, 0, t.size(0) / 2); };
    const auto upper = [&](const Tensor& t) { return t.narrow(0, t.size(0) / 2, t.size(0) / 2); };
    // Interleaved rows keep a channel's x2, x1, v together, so halves of the rows are halves of the channels.
    upper(hyena.projections->weight).copy_(lower(hyena.projections->weight));
    Tensor fir = hyena.filter->short_filter_weight;  // [3D, 1, taps], last tap newest
    const int64_t taps = fir.size(-1);
    lower(fir).select(-1, 0).zero_();
    upper(fir).narrow(-1, 0, taps - 1).copy_(lower(fir).narrow(-1, 1, taps - 1).clone());
    upper(fir).select(-1, taps - 1).zero_();
    for (Tensor* t :
         {&hyena.filter->h, &hyena.filter->D, &hyena.filter->log_poles, &hyena.filter->residues}) {
      if (!t->defined()) continue;
      if (t->size(0) % 2 != 0)
        fail<ConfigError>("delay_pair needs an even number of filter groups, got ", t->size(0));
      upper(*t).copy_(lower(*t));
    }
    const double scale = 1.0 / std::sqrt(static_cast<double>(half));
    const Tensor mix = normal({half, half}, config_.delay_pair_output * scale);
    Tensor out = hyena.out_filter_dense->weight;
    out.zero_();
    out.narrow(0, 0, half).narrow(1, 0, half).copy_(mix);
    out.narrow(0, half, half).narrow(1, half, half).copy_(mix);
    const Tensor search = normal({width, half}, config_.delay_pair_gain * scale);
    const auto& options = attention.inner_mha_cls->options();
    const int64_t heads = options.heads, dim = width / heads;
    Tensor weight = attention.inner_mha_cls->Wqkv->weight;
    const auto rows = [&](int64_t part) {
      return options.column_split ? weight.view({heads, 3, dim, width}).select(1, part)
                                  : weight.view({3, heads, dim, width}).select(0, part);
    };
    Tensor q = rows(0), k = rows(1);
    q.zero_();
    k.zero_();
    q.narrow(2, 0, half).copy_(search.view({heads, dim, half}));
    k.narrow(2, half, half).copy_(search.view({heads, dim, half}));
  }

  StripedHyena& model_;
  const InitConfig& config_;
  at::Generator generator_;
};

}  // namespace

void InitConfig::visit(config::Fields& f) {
  f.number("embedding_std", embedding_std, {0, 10}, "standard deviation of the embedding");
  f.number("final_norm_scale", final_norm_scale, {0, 10},
           "scale of the final norm: sets the size of the first logits");
  f.number("output_gain", output_gain, {0, 10},
           "gain of the output projections of Hyena blocks (the MLP's has 0.3 times that)");
  f.number("attention_gain", attention_gain, {0, 10}, "the same of attention blocks");
  f.boolean("delay_pair", delay_pair,
            "start attention as a search for the base that followed the same context");
  f.number("delay_pair_gain", delay_pair_gain, {0, 100}, "gain of the shared query/key matrix");
  f.number("delay_pair_output", delay_pair_output, {0, 100},
           "gain of the output projection of the block that delays");
  f.number("nucleotide_gap", nucleotide_gap, {0, 100},
           "how improbable bytes other than A, C, G, T start; 0 = as probable");
  f.integer("seed", seed, {0, std::numeric_limits<int64_t>::max()}, "seed of the initial weights");
}

void initialise(StripedHyena& model, const InitConfig& config) {
  at::NoGradGuard guard;
  Initialiser(model, config).run();
}

}  // namespace focus::model
