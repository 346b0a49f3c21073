#include "focus/compress/policy.h"
#include "focus/core/error.h"

namespace focus::compress {
namespace {

using at::Tensor;

/// The span's raw bases [begin, end) as entries.
Entries raw(const ClosedSpan& span, int64_t begin, int64_t end) {
  return raw_entries(span.k, span.v, begin, end, span.window, span.first_base);
}

Entries pick(const ClosedSpan& span, const std::vector<int64_t>& bases) {
  const Tensor index = at::tensor(bases, at::TensorOptions().dtype(at::kLong)).to(span.k.device());
  Entries out;
  out.k = span.k.index_select(2, index);
  out.v = span.v.index_select(2, index);
  for (const int64_t base : bases) out.origin.push_back({span.window, span.first_base + base});
  return out;
}

int64_t raw_bytes(const ClosedSpan& span) {
  return bytes_per_entry(span.k.size(0), span.k.size(1), span.k.size(3), span.k.scalar_type(), /*with_beta=*/false);
}

}  // namespace

Tensor mean_matrix(const std::vector<Span>& kmers, int64_t num_bases, const at::TensorOptions& options) {
  Tensor out = at::zeros({static_cast<int64_t>(kmers.size()), num_bases}, at::TensorOptions().dtype(at::kFloat));
  for (std::size_t j = 0; j < kmers.size(); ++j) {
    out[static_cast<int64_t>(j)].narrow(0, kmers[j].begin, kmers[j].size()).fill_(1.0 / static_cast<double>(kmers[j].size()));
  }
  return out.to(options);
}

void FullPolicy::close(const ClosedSpan& span, Entries& retained) const { retained.append(raw(span, 0, span.num_bases())); }

void StateOnlyPolicy::close(const ClosedSpan&, Entries& retained) const { retained = {}; }

std::string SlidingPolicy::describe() const {
  return sinks_ > 0 ? concat("raw keys and values of the first ", sinks_, " bases and of the newest")
                    : "raw keys and values of the newest bases";
}

void SlidingPolicy::close(const ClosedSpan& span, Entries& retained) const {
  retained.append(raw(span, 0, span.num_bases()));
  const int64_t allowed = std::min(budget_.entries_after(span.window, raw_bytes(span)), retained.size());
  const int64_t sinks = std::min(sinks_, allowed);
  if (sinks == 0) {
    retained.keep(retained.size() - allowed, retained.size());
    return;
  }
  Entries kept = retained.slice(0, sinks);
  kept.append(retained.slice(retained.size() - (allowed - sinks), retained.size()));
  retained = kept.clone();
}

void StridedPolicy::close(const ClosedSpan& span, Entries& retained) const {
  const int64_t allowed = budget_.entries_after(span.window, raw_bytes(span)) - retained.size();
  const int64_t count = std::min(std::max<int64_t>(allowed, 0), span.num_bases());
  if (count == 0) return;
  std::vector<int64_t> bases;
  for (int64_t i = 1; i <= count; ++i) bases.push_back(i * span.num_bases() / count - 1);
  retained.append(pick(span, bases));
}

void MeanPoolPolicy::close(const ClosedSpan& span, Entries& retained) const {
  if (span.kmers.empty()) return;
  const auto wide = span.k.options().dtype(span.k.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  const Tensor mean = mean_matrix(span.kmers, span.num_bases(), wide);
  Entries out;
  out.k = at::matmul(mean, span.k.to(wide)).to(span.k.scalar_type());
  out.v = at::matmul(mean, span.v.to(wide)).to(span.v.scalar_type());
  std::vector<float> log_size;
  for (std::size_t j = 0; j < span.kmers.size(); ++j) {
    log_size.push_back(std::log(static_cast<float>(span.kmers[j].size())));
    out.origin.push_back({span.window, span.first_kmer + static_cast<int64_t>(j)});
  }
  if (with_beta_) out.beta = at::tensor(log_size).to(span.k.device()).expand({span.k.size(0), span.k.size(1), -1}).contiguous();
  retained.append(out);
}

const std::vector<std::string>& rival_names() {
  static const std::vector<std::string> names = {"full", "state_only", "sliding", "sinks", "strided", "mean_pool", "mean_pool_nobeta"};
  return names;
}

std::shared_ptr<RetentionPolicy> make_rival(const std::string& name, const Budget& budget) {
  constexpr int64_t kSinks = 4;
  if (name == "full") return std::make_shared<FullPolicy>();
  if (name == "state_only") return std::make_shared<StateOnlyPolicy>();
  if (name == "sliding") return std::make_shared<SlidingPolicy>(budget, 0);
  if (name == "sinks") return std::make_shared<SlidingPolicy>(budget, kSinks);
  if (name == "strided") return std::make_shared<StridedPolicy>(budget);
  if (name == "mean_pool") return std::make_shared<MeanPoolPolicy>(true);
  if (name == "mean_pool_nobeta") return std::make_shared<MeanPoolPolicy>(false);
  std::string known;
  for (const auto& n : rival_names()) known += (known.empty() ? "" : ", ") + n;
  fail<ConfigError>("unknown retention policy '", name, "'; known: ", known, ", focus");
}

}  // namespace focus::compress
