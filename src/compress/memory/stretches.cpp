#include "stretches.h"

#include <algorithm>
#include <vector>

#include "window_recompute.h"

namespace focus::compress {
namespace {

using at::Tensor;

/// A tensor cut along the sequence once, so that the gradients of its many overlapping stretches are put
/// together once.
class Pieces {
 public:
  /// `cuts` ascending, from 0 to the length.
  Pieces(const Tensor& whole, const std::vector<int64_t>& cuts, int64_t dim)
      : whole_(whole), cuts_(cuts), dim_(dim) {
    if (!whole.requires_grad() || !at::GradMode::is_enabled()) return;
    std::vector<int64_t> sizes;
    for (std::size_t i = 0; i + 1 < cuts.size(); ++i) sizes.push_back(cuts[i + 1] - cuts[i]);
    parts_ = whole.split_with_sizes(sizes, dim);
  }
  /// [begin, end), both of them cuts.
  Tensor range(int64_t begin, int64_t end) const {
    if (parts_.empty()) return whole_.narrow(dim_, begin, end - begin);
    const auto first = std::lower_bound(cuts_.begin(), cuts_.end(), begin) - cuts_.begin();
    const auto last = std::lower_bound(cuts_.begin(), cuts_.end(), end) - cuts_.begin();
    if (last - first == 1) return parts_[static_cast<std::size_t>(first)];
    return at::cat(std::vector<Tensor>(parts_.begin() + first, parts_.begin() + last), dim_);
  }

 private:
  Tensor whole_;
  std::vector<Tensor> parts_;
  std::vector<int64_t> cuts_;
  int64_t dim_;
};

}  // namespace

Tensor attend_stretches(const LayerRules& rules, const nn::Projection& bases,
                        const std::function<ops::Memory(const LayerRules::Visible&)>& shown, bool recompute,
                        FarLayer* far) {
  const int64_t length = bases.q.size(2);
  std::vector<Span> stretches;
  std::vector<LayerRules::Visible> seen;
  std::vector<int64_t> cuts = {0, length};
  for (int64_t t = 0; t < length; t = stretches.back().end) {
    const int64_t same = far != nullptr ? far->stretch_end(t) : length;
    stretches.push_back({t, std::min({rules.next_change(t), same, length})});
    seen.push_back(rules.visible(t));
    cuts.push_back(t);
    cuts.push_back(seen.back().raw_begin);
  }
  std::sort(cuts.begin(), cuts.end());
  cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
  if (far != nullptr) far->show(bases.k, bases.v);
  const Pieces q(bases.q, cuts, 2), k(bases.k, cuts, 2), v(bases.v, cuts, 2);
  std::vector<Tensor> out;
  for (std::size_t i = 0; i < stretches.size(); ++i) {
    const auto [begin, end] = stretches[i];
    const int64_t raw = seen[i].raw_begin;
    const nn::Projection now{q.range(begin, end), k.range(raw, end), v.range(raw, end)};
    const ops::Memory past = shown(seen[i]);
    out.push_back(far == nullptr
                      ? attend(now.q, past, now.k, now.v, recompute)
                      : far->attend(begin, far_view(rules, begin, past.size()), past, now, recompute));
  }
  return out.size() == 1 ? out[0] : at::cat(out, 2);
}

}  // namespace focus::compress
