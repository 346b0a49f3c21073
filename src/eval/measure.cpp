#include "measure.h"

#include <ATen/Parallel.h>

#include <algorithm>

#include "focus/core/error.h"
#include "focus/data/letters.h"
#include "focus/metrics/divergence.h"

namespace focus::eval {

using report::Measure;

namespace {

/// The whole vocabulary and A, C, G, T of one row.
struct Row {
  metrics::Distribution all, acgt;
  void assign(std::span<const float> logits, std::span<const int32_t> bases) {
    all.assign(logits);
    acgt.assign(logits, bases);
  }
};

}  // namespace

void measure(const at::Tensor& full_LV, int64_t begin, const at::Tensor& logits_LV, const Input& input,
             const std::string& where, report::PositionValues& out) {
  const auto vocabulary = static_cast<std::size_t>(full_LV.size(1));
  // Nothing follows the last token.
  const int64_t end = std::min(begin + logits_LV.size(0), static_cast<int64_t>(input.tokens.size()) - 1);
  const float *full = full_LV.const_data_ptr<float>(), *own = logits_LV.const_data_ptr<float>();
  at::parallel_for(begin, end, 64, [&](int64_t from, int64_t to) {
    Row p, q;
    for (int64_t i = from; i < to; ++i) {
      const auto set = [&](Measure m, double value) {
        out.values[static_cast<std::size_t>(m)][static_cast<std::size_t>(i)] = static_cast<float>(value);
      };
      const auto next = static_cast<std::size_t>(i) + 1;
      if (!data::is_acgt(input.letters[next])) continue;
      const std::span<const float> full_row(full + static_cast<std::size_t>(i) * vocabulary, vocabulary),
          row(own + static_cast<std::size_t>(i - begin) * vocabulary, vocabulary);
      const bool same = row.data() == full_row.data();  // full memory's own, at no distance
      try {
        p.assign(full_row, input.bases);
        if (!same) q.assign(row, input.bases);
      } catch (const CheckFailed& e) {
        fail<CheckFailed>(where, ", position ", i + 1, ": ", e.what());
      }
      const metrics::Divergences all = same ? metrics::Divergences() : metrics::compare(p.all, q.all);
      set(Measure::kl, all.kl);
      set(Measure::l1, all.l1);
      set(Measure::l2, all.l2);
      set(Measure::hellinger, all.hellinger);
      set(Measure::js, all.js);
      set(Measure::cross_entropy, (same ? p : q).all.log_sum_exp() -
                                      static_cast<double>(row[static_cast<std::size_t>(input.tokens[next])]));
      set(Measure::kl_acgt, same ? 0.0 : metrics::compare(p.acgt, q.acgt).kl);
      set(Measure::top1_agreement, same || p.all.top1() == q.all.top1() ? 1.0 : 0.0);
    }
  });
}

}  // namespace focus::eval
