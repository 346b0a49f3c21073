#include "focus/distributed/ranks.h"

#include <algorithm>
#include <bit>

#include "connected_ranks.h"
#include "focus/core/error.h"
#include "focus/core/hash.h"

namespace focus::distributed {
namespace {

class OneRank final : public Ranks {
 public:
  int64_t rank() const override { return 0; }
  int64_t size() const override { return 1; }
  void all_reduce_sum(const std::vector<at::Tensor>&) override {}
  void broadcast(const std::vector<at::Tensor>&) override {}
  void barrier() override {}
};

template <class T, class Exchange>
std::vector<T> exchanged(const std::vector<T>& values, at::ScalarType dtype, const Exchange& exchange) {
  std::vector<T> out = values;
  if (!out.empty()) exchange(at::from_blob(out.data(), {static_cast<int64_t>(out.size())}, dtype));
  return out;
}

}  // namespace

std::vector<double> Ranks::sum(const std::vector<double>& values) {
  return exchanged(values, at::kDouble, [&](const at::Tensor& tensor) { all_reduce_sum({tensor}); });
}

std::vector<int64_t> Ranks::from_first(const std::vector<int64_t>& values) {
  return exchanged(values, at::kLong, [&](const at::Tensor& tensor) { broadcast({tensor}); });
}

std::vector<double> Ranks::from_first(const std::vector<double>& values) {
  return exchanged(values, at::kDouble, [&](const at::Tensor& tensor) { broadcast({tensor}); });
}

std::vector<double> Ranks::largest(const std::vector<double>& values) {
  // One part for each rank, which that rank alone fills.
  std::vector<double> all(values.size() * static_cast<std::size_t>(size()));
  std::copy(values.begin(), values.end(), all.begin() + static_cast<std::ptrdiff_t>(values.size()) * rank());
  all = sum(all);
  std::vector<double> out(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(values.size()));
  for (std::size_t i = values.size(); i < all.size(); ++i)
    out[i % values.size()] = std::max(out[i % values.size()], all[i]);
  return out;
}

std::vector<double> Ranks::count_differing(const std::vector<int64_t>& values) {
  const std::vector<int64_t> first = from_first(values);
  std::vector<double> differs;
  for (std::size_t i = 0; i < values.size(); ++i) differs.push_back(values[i] == first[i] ? 0.0 : 1.0);
  return sum(differs);
}

void require_agreement(Ranks& ranks, const std::vector<Shared>& shared) {
  if (ranks.size() == 1) return;
  std::vector<int64_t> own;
  for (const Shared& part : shared)
    own.push_back(std::bit_cast<int64_t>(fnv1a(part.second.data(), part.second.size())));
  const std::vector<double> differs = ranks.count_differing(own);
  for (std::size_t i = 0; i < own.size(); ++i) {
    if (differs[i] > 0)
      fail<ConfigError>(differs[i], " of ", ranks.size(), " ranks have another ", shared[i].first,
                        " than rank 0; start all with the same command and the same files");
  }
}

std::unique_ptr<Ranks> one_rank() { return std::make_unique<OneRank>(); }

std::unique_ptr<Ranks> join_ranks(const RankEnvironment& environment, const at::Device& device,
                                  const JoinOptions& options) {
  if (environment.size == 1) return one_rank();
#if defined(FOCUS_WITH_GLOO) || defined(FOCUS_WITH_NCCL)
  return connect_ranks(environment, device, options);
#else
  (void)device, (void)options;
  fail<DeviceError>(environment.launcher, " started ", environment.size,
                    " ranks, but this build cannot connect them: install libgloo-dev, configure and build "
                    "again, or start one process");
#endif
}

}  // namespace focus::distributed
