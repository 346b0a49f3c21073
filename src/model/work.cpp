#include "focus/model/work.h"

#include <algorithm>

#include "focus/core/error.h"
#include "focus/model/parameter_list.h"

namespace focus::model {
namespace {

// A block of the blocked filter is one tile of a tensor-core instruction: the taps of 16 outputs span that
// many more.
constexpr double kTile = 16;
// Outputs of the scan are made in stretches from the states at their begins (kernels/cuda, modal_scan.h).
constexpr double kStretch = 256;
constexpr double kFp32 = 4;

bool is_matrix(const ParameterSpec& spec) { return spec.shape.size() == 2 && spec.name.ends_with(".weight"); }

/// Sums of operations by name, in the order in which they come first.
class Tally {
 public:
  void add(const std::string& name, Unit unit, double flop, double bytes) {
    const auto found = std::find_if(all_.begin(), all_.end(), [&](const auto& o) { return o.name == name; });
    Operation& o = found == all_.end() ? all_.emplace_back(Operation{name, unit}) : *found;
    FOCUS_CHECK(o.unit == unit, name, " by two units");
    o.flop += flop;
    o.bytes += bytes;
  }
  std::vector<Operation> take() { return std::move(all_); }

 private:
  std::vector<Operation> all_;
};

struct Sizes {
  Sizes(const ModelConfig& c, const Pass& p)
      : config(c),
        pass(p),
        rows(static_cast<double>(p.batch * p.length)),
        element(static_cast<double>(p.element)),
        calls(static_cast<double>(p.calls)),
        width(static_cast<double>(c.hidden_size)),
        inner(static_cast<double>(c.inner_mlp_size)) {}
  const ModelConfig& config;
  const Pass& pass;
  double rows, element, calls, width, inner;
  /// Bytes of `count` numbers for each row.
  double moved(double count) const { return rows * count * element; }
};

void product(Tally& out, const Sizes& s, const std::string& name, double in, double to) {
  out.add(name, Unit::gemm, 2 * s.rows * in * to, s.moved(in + to) + s.calls * in * to * s.element);
}

double modal_bytes(const Sizes& s) {
  const double states = static_cast<double>(s.config.state_size) * s.width * kFp32;
  // Written by the first pass, carried on, and read by the second.
  const double stretches = std::max(s.rows / kStretch, static_cast<double>(s.pass.batch) * s.calls);
  return 4 * states * stretches;
}

void hyena(Tally& out, const Sizes& s, BlockKind kind, const std::string& prefix) {
  const ModelConfig& c = s.config;
  const double front = 2 * 3 * static_cast<double>(c.input_taps) + 3;  // the input filter and both gates
  const std::string name = concat(prefix, name_of(kind), " mixer");
  switch (kind) {
    case BlockKind::hcs:  // one pass over memory: three projections in, one output
      return out.add(name, Unit::fp32, s.rows * s.width * (front + 2 * static_cast<double>(c.hcs_taps)),
                     s.moved(4 * s.width));
    case BlockKind::hcm:
      return out.add(name, Unit::mma,
                     s.rows * s.width * (front + 2 + 2 * (static_cast<double>(c.hcm_taps) + kTile)),
                     s.moved(4 * s.width));
    case BlockKind::hcl: {
      // Twice over the input: the states at the ends of stretches, then the outputs. A state's update is a
      // product with the pole in two parts, an output one more.
      const double modes = static_cast<double>(c.state_size);
      const bool once = s.pass.length <= static_cast<int64_t>(kStretch) * s.pass.calls;
      return out.add(name, Unit::fp32, s.rows * s.width * (2 * front + modes * (once ? 6 : 10)),
                     s.moved((once ? 4 : 7) * s.width) + modal_bytes(s));
    }
    case BlockKind::attention:
      break;
  }
  FOCUS_CHECK(false, "no Hyena block");
}

/// One block forward; `prefix` stands before the names.
void block(Tally& out, const Sizes& s, BlockKind kind, const std::string& prefix) {
  // Two norms, each reading and writing a row, and two sums.
  out.add(prefix + "norm and residual", Unit::fp32, s.rows * s.width * 10, s.moved(10 * s.width));
  if (kind == BlockKind::attention) {
    product(out, s, prefix + "attention projections", s.width, 3 * s.width);
    // Queries and keys are turned, keys and values go into the stream's buffers.
    out.add(prefix + "rotary and key buffers", Unit::fp32, s.rows * 2 * s.width * 3, s.moved(8 * s.width));
    out.add(prefix + "attention", Unit::mma, 4 * s.width * s.pass.pairs * static_cast<double>(s.pass.batch),
            s.moved(2 * s.width) + s.pass.key_bytes);
    product(out, s, prefix + "attention projections", s.width, s.width);
  } else {
    product(out, s, prefix + "Hyena projections", s.width, 3 * s.width);
    hyena(out, s, kind, prefix);
    product(out, s, prefix + "Hyena projections", s.width, s.width);
  }
  product(out, s, prefix + "MLP", s.width, 2 * s.inner);
  out.add(prefix + "MLP gate", Unit::fp32, s.rows * s.inner, s.moved(3 * s.inner));
  product(out, s, prefix + "MLP", s.inner, s.width);
}

void logits(Tally& out, const Sizes& s, bool backward) {
  const double rows = static_cast<double>(s.pass.batch * s.pass.predicted);
  if (rows == 0) return;
  const double vocabulary = static_cast<double>(s.config.vocab_size);
  const std::string prefix = backward ? "backward: " : "";
  out.add(prefix + "unembedding", Unit::gemm, 2 * rows * s.width * vocabulary,
          (rows * (s.width + vocabulary) + s.calls * s.width * vocabulary) * s.element);
  // Logits are widened and become log-probabilities, of which the loss reads one.
  out.add(prefix + "loss", Unit::fp32, rows * vocabulary * 4, rows * vocabulary * (s.element + 3 * kFp32));
}

std::size_t first_trained(const ModelConfig& c) {
  return static_cast<std::size_t>(std::find(c.blocks.begin(), c.blocks.end(), BlockKind::attention) -
                                  c.blocks.begin());
}

}  // namespace

const char* name_of(Unit unit) {
  switch (unit) {
    case Unit::gemm:
      return "gemm";
    case Unit::mma:
      return "mma";
    case Unit::fp32:
      return "fp32";
  }
  return "?";
}

double dense_flop(const ModelConfig& config) {
  double flop = 0;
  for (const ParameterSpec& spec : parameter_list(config)) {
    if (is_matrix(spec)) flop += 2 * static_cast<double>(spec.num_elements());
  }
  return flop;
}

std::vector<Operation> forward_work(const ModelConfig& config, const Pass& pass) {
  const Sizes s(config, pass);
  Tally out;
  out.add("embedding", Unit::fp32, 0, s.moved(2 * s.width));
  for (const BlockKind kind : config.blocks) block(out, s, kind, "");
  if (config.final_norm) out.add("norm and residual", Unit::fp32, s.rows * s.width * 4, s.moved(2 * s.width));
  logits(out, s, false);
  return out.take();
}

std::vector<Operation> backward_work(const ModelConfig& config, const Pass& pass, bool recompute) {
  const Sizes s(config, pass);
  const std::size_t first = first_trained(config);
  Tally out;
  for (std::size_t i = first; recompute && i < config.blocks.size(); ++i)
    block(out, s, config.blocks[i], "again: ");
  logits(out, s, true);
  const std::string prefix = "backward: ";
  for (std::size_t i = first; i < config.blocks.size(); ++i) {
    // Of a product with frozen weights only the gradient of its input is made.
    product(out, s, prefix + "MLP", s.width, s.inner);
    out.add(prefix + "MLP gate", Unit::fp32, s.rows * s.inner * 2, s.moved(5 * s.inner));
    product(out, s, prefix + "MLP", 2 * s.inner, s.width);
    out.add(prefix + "norm and residual", Unit::fp32, s.rows * s.width * 16, s.moved(12 * s.width));
    const BlockKind kind = config.blocks[i];
    if (kind == BlockKind::attention) {
      product(out, s, prefix + "attention projections", s.width, s.width);
      // Scores again, and the gradients of values, scores, queries and keys: five products for the two of the
      // forward pass. Reads q, k, v, out and its gradient twice, writes three gradients.
      out.add(prefix + "attention", Unit::mma, 10 * s.width * pass.pairs * static_cast<double>(pass.batch),
              s.moved(9 * s.width) + 2 * pass.key_bytes);
      out.add(prefix + "rotary and key buffers", Unit::fp32, s.rows * 2 * s.width * 3, s.moved(4 * s.width));
      product(out, s, prefix + "attention projections", 3 * s.width, s.width);
    } else {
      product(out, s, prefix + "Hyena projections", s.width, s.width);
      // The mixer's front again (3 projections and the gradient in, 2 out), the inner filter again (1, 1),
      // its transpose (1, 1), the gates (6 in, 3 out) and the input filter's transpose (3, 3).
      Tally again;
      hyena(again, s, kind, "");
      const Operation forward = again.take().front();
      out.add(concat(prefix, name_of(kind), " mixer"), forward.unit, 2.5 * forward.flop,
              s.moved(25 * s.width) + 2 * std::max(0.0, forward.bytes - s.moved(4 * s.width)));
      product(out, s, prefix + "Hyena projections", 3 * s.width, s.width);
    }
  }
  return out.take();
}

double saved_bytes(const ModelConfig& config, int64_t element, bool recompute) {
  const double width = static_cast<double>(config.hidden_size),
               inner = static_cast<double>(config.inner_mlp_size);
  double all = 0, largest = 0;
  for (std::size_t i = first_trained(config); i < config.blocks.size(); ++i) {
    // Inputs of both norms and of the gate; of attention queries, keys, values and output, of a mixer its
    // three projections.
    const double mixer = config.blocks[i] == BlockKind::attention ? 4 * width : 3 * width;
    const double saved = 2 * width + mixer + 2 * inner;
    largest = std::max(largest, saved);
    all += recompute ? width : saved;
  }
  return (all + (recompute ? largest : 0)) * static_cast<double>(element);
}

}  // namespace focus::model
