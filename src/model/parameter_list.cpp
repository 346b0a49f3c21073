#include "focus/model/parameter_list.h"

#include <utility>

#include "focus/core/error.h"

namespace focus::model {
namespace {

class Lister {
 public:
  explicit Lister(const ModelConfig& config) : c_(config) {
    FOCUS_CHECK(static_cast<int64_t>(c_.blocks.size()) == c_.num_layers, "a kind for each of ", c_.num_layers,
                " layers");
  }

  std::vector<ParameterSpec> run() {
    add("embedding_layer.weight", {c_.vocab_size, c_.hidden_size});
    for (std::size_t i = 0; i < c_.blocks.size(); ++i) {
      prefix_ = concat("blocks.", i, ".");
      block(c_.blocks[i]);
    }
    prefix_.clear();
    if (c_.final_norm) scale("norm");
    return std::move(out_);
  }

 private:
  void add(const std::string& name, std::vector<int64_t> shape) {
    out_.push_back({prefix_ + name, std::move(shape)});
  }
  void add_fp32(const std::string& name, std::vector<int64_t> shape, bool buffer = false) {
    out_.push_back({prefix_ + name, std::move(shape), true, buffer});
  }
  void scale(const std::string& name) { add_fp32(name + ".scale", {c_.hidden_size}); }
  void linear(const std::string& name, int64_t in, int64_t out, bool bias) {
    add(name + ".weight", {out, in});
    if (bias) add(name + ".bias", {out});
  }

  void block(BlockKind kind) {
    const int64_t width = c_.hidden_size;
    scale("pre_norm");
    scale("post_norm");
    linear("mlp.l1", width, c_.inner_mlp_size, false);
    linear("mlp.l2", width, c_.inner_mlp_size, false);
    linear("mlp.l3", c_.inner_mlp_size, width, false);
    if (kind == BlockKind::attention) {
      linear("inner_mha_cls.Wqkv", width, 3 * width, c_.qkv_bias);
      linear("inner_mha_cls.out_proj", width, width, c_.attention_out_bias);
      add_fp32("inner_mha_cls.rotary_emb.inv_freq", {width / c_.num_heads / 2}, true);
      return;
    }
    linear("projections", width, 3 * width, false);
    linear("out_filter_dense", width, width, c_.hyena_out_bias);
    add("filter.short_filter_weight", {3 * width, 1, c_.input_taps});
    if (kind == BlockKind::hcl) {
      add_fp32("filter.log_poles", {width, c_.state_size, 1});
      add_fp32("filter.residues", {width, c_.state_size});
    } else if (kind == BlockKind::hcm) {
      add("filter.h", {c_.hcm_groups, 1, c_.hcm_taps});
    } else {
      add("filter.h", {c_.hcs_groups, 1, c_.hcs_taps});
    }
    if (kind != BlockKind::hcs) add("filter.D", {width});
  }

  const ModelConfig& c_;
  std::string prefix_;
  std::vector<ParameterSpec> out_;
};

}  // namespace

int64_t ParameterSpec::num_elements() const {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return count;
}

std::vector<ParameterSpec> parameter_list(const ModelConfig& config) { return Lister(config).run(); }

}  // namespace focus::model
