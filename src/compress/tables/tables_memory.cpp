#include "tables_memory.h"

#include "call_walk.h"
#include "focus/core/error.h"
#include "stretches.h"

namespace focus::compress {

using at::Tensor;

std::unique_ptr<cache::LayerState> TablesState::clone() const {
  auto out = std::make_unique<TablesState>();
  out->codes = codes.clone();
  out->open = open.clone();
  return out;
}

cache::TensorMap TablesState::save() const {
  cache::TensorMap out;
  if (codes.size() > 0) {
    out.emplace("letters", cache::saved_tensor(codes.saved()));
    out.emplace("letters.count", at::full({1}, codes.size(), at::kLong));
  }
  open.save(out);
  return out;
}

void TablesState::load(const cache::TensorMap& saved, const at::Device& device) {
  if (saved.contains("letters"))
    codes.load(cache::loaded_tensor(saved, "letters", device),
               cache::loaded_tensor(saved, "letters.count", at::kCPU).item<int64_t>());
  open.load(saved, device);
}

class TablesMemory::Walk final : public CallWalk {
 public:
  Walk(const TablesMemory& memory, const model::AttentionCall& layer, const ModelCall& call)
      : CallWalk(layer, call, memory.rules_.plan(), /*inline_stream=*/false),
        memory_(memory),
        state_(state_of<TablesState>(layer)) {
    state_.codes.append(call.codes.to(layer.u_BLD.device()));
  }

 private:
  int64_t next_change(int64_t base) const override { return memory_.rules_.next_change(base); }
  // Rolling eviction waits for the next base; a window that ends takes its raw bases with it.
  void begin(int64_t base) override {
    if (memory_.rules_.rolling()) forget_before(base);
  }
  void end(int64_t base) override {
    if (!memory_.rules_.rolling()) forget_before(base);
  }
  Tensor bases(int64_t row, int64_t base, int64_t count) override {
    const auto rows = [&](const Tensor& t) { return t.narrow(2, row, count); };
    const int64_t past = base - state_.open.size();
    state_.open.append(rows(now_.k), rows(now_.v), {}, {}, positions_.narrow(0, row, count));
    return layer_.attention.output(attend_letters(rows(now_.q), layer_.attention, *memory_.tables_,
                                                  state_.codes, past, state_.open.k(), state_.open.v()));
  }
  Tensor focus_token(int64_t, int64_t) override {
    FOCUS_CHECK(false, "base tables have no Focus tokens");
    return {};
  }
  /// Raw bases that `base` does not see; their letters stay.
  void forget_before(int64_t base) {
    const int64_t raw = base - memory_.rules_.visible(base).raw_begin;
    if (raw < state_.open.size()) state_.open.keep(raw, 0);
  }

  const TablesMemory& memory_;
  TablesState& state_;
};

TablesMemory::TablesMemory(LayerRules rules, std::shared_ptr<const BaseTables> tables,
                           const model::Backbone& backbone)
    : rules_(std::move(rules)), tables_(std::move(tables)) {
  const auto& shape = backbone.shape();
  open_bytes_ =
      bytes_per_entry(1, shape.num_kv_heads, shape.head_dim, backbone.dtype(), /*with_beta=*/false) +
      static_cast<int64_t>(sizeof(int64_t));
}

Tensor TablesMemory::stream(const model::AttentionCall& layer, ModelCall& call) const {
  return Walk(*this, layer, call).run();
}

Tensor TablesMemory::parallel(const model::AttentionCall& layer, ModelCall& call) const {
  const int64_t length = layer.u_BLD.size(1);
  const Tensor positions = positions_of(layer);
  const nn::Projection all = layer.attention.project(layer.u_BLD, positions);
  // An entry for every base.
  const auto [key, value] = tables_->predict(call.codes.to(layer.u_BLD.device()), length);
  Entries entries;
  entries.k = layer.attention.rotate(key, positions).to(all.k.scalar_type());
  entries.v = value.to(all.v.scalar_type());
  entries.beta = tables_->beta.to(key.scalar_type())
                     .unsqueeze(-1)
                     .unsqueeze(0)
                     .expand({key.size(0), key.size(1), length});
  entries.origin.resize(static_cast<std::size_t>(length));
  const auto shown = [&](const LayerRules::Visible& seen) {
    return ops::Memory(entries.slice(0, seen.raw_begin).memory());
  };
  return layer.attention.output(attend_stretches(rules_, all, shown, call.recompute));
}

MemoryUse TablesMemory::planned(int64_t num_bases) const {
  if (num_bases == 0) return {};
  const int64_t oldest = rules_.rolling() ? rules_.visible(num_bases - 1).raw_begin
                                          : rules_.tail_begin(rules_.plan().window_of(num_bases));
  return {oldest, PackedBases::bytes_of(1, num_bases), (num_bases - oldest) * open_bytes_};
}

std::string TablesMemory::describe() const {
  const FocusConfig& f = rules_.focus();
  return concat("base memory: letters, and tables of ", tables_->config().offsets.size(), " words of ",
                tables_->config().word, f.eviction == Eviction::rolling ? ", rolling eviction" : "",
                f.tail > 0 ? concat(", raw tail of ", f.tail) : std::string());
}

}  // namespace focus::compress
