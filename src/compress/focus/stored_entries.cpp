#include "focus/compress/focus/stored_entries.h"

#include "focus/compress/compressed_model.h"
#include "focus/core/error.h"

namespace focus::compress {
namespace {

using at::Tensor;

/// Passes on what another unit makes and keeps it.
class RecordingUnit final : public FocusUnit {
 public:
  RecordingUnit(std::shared_ptr<const FocusUnit> unit, SequenceEntries& out)
      : unit_(std::move(unit)), out_(out) {}
  Summary summarise(const ClosedSpan& span, const Entries& history) const override {
    Summary made = unit_->summarise(span, history);
    const int64_t begin = out_.all.size();
    out_.all.append(made.entries);
    const bool is_new = out_.of_span.emplace(span.first_kmer, Span{begin, out_.all.size()}).second;
    FOCUS_CHECK(is_new, "the span of k-mer ", span.first_kmer, " closed twice");
    return made;
  }
  bool updates_focus_state() const override { return unit_->updates_focus_state(); }
  bool reads_history() const override { return unit_->reads_history(); }

 private:
  std::shared_ptr<const FocusUnit> unit_;
  SequenceEntries& out_;
};

}  // namespace

StoredUnit::StoredUnit(SequenceEntries entries) : entries_(std::move(entries)) {
  if (entries_.all.empty()) return;
  // In fp32 whatever the model's precision: small steps would be lost in bf16.
  const auto own = [](const Tensor& t) {
    return t.detach().to(t.scalar_type() == at::kDouble ? at::kDouble : at::kFloat, /*non_blocking=*/false,
                         /*copy=*/true);
  };
  key = register_parameter("key", own(entries_.all.k));
  value = register_parameter("value", own(entries_.all.v));
  if (entries_.all.beta.defined()) beta = register_parameter("beta", own(entries_.all.beta));
  entries_.all.k = entries_.all.v = entries_.all.beta = Tensor();
}

Summary StoredUnit::summarise(const ClosedSpan& span, const Entries&) const {
  const auto found = entries_.of_span.find(span.first_kmer);
  FOCUS_CHECK(found != entries_.of_span.end(), "no entries are stored for the span of k-mer ",
              span.first_kmer, ": another sequence?");
  FOCUS_CHECK(span.k.size(0) == key.size(0), "entries are stored for a batch of ", key.size(0), ", not ",
              span.k.size(0));
  const auto [begin, end] = found->second;
  Summary out;
  out.entries.k = key.narrow(2, begin, end - begin).to(span.k.scalar_type());
  out.entries.v = value.narrow(2, begin, end - begin).to(span.v.scalar_type());
  if (beta.defined()) out.entries.beta = beta.narrow(2, begin, end - begin);
  out.entries.origin.assign(entries_.all.origin.begin() + begin, entries_.all.origin.begin() + end);
  return out;
}

std::shared_ptr<FocusAdapter> store_entries(const std::shared_ptr<model::Backbone>& backbone,
                                            const FocusAdapter& source, const Tensor& tokens_BL) {
  const at::NoGradGuard guard;
  std::map<int64_t, SequenceEntries> made;
  std::map<int64_t, std::shared_ptr<FocusUnit>> recording, stored;
  for (const int64_t block : backbone->attention_blocks()) {
    if (const auto unit = source.unit(block))
      recording.emplace(block, std::make_shared<RecordingUnit>(unit, made[block]));
  }
  const CompressedModel model(backbone,
                              std::make_shared<FocusAdapter>(source.config(), std::move(recording)));
  model.parallel(tokens_BL);
  for (auto& [block, entries] : made) stored.emplace(block, std::make_shared<StoredUnit>(std::move(entries)));
  return std::make_shared<FocusAdapter>(source.config(), std::move(stored));
}

}  // namespace focus::compress
