#include "focus/train/ranks.h"

#include "connected_ranks.h"
#include "focus/core/error.h"

namespace focus::train {
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

std::unique_ptr<Ranks> join_ranks(const RankEnvironment& environment, const at::Device& device, int64_t timeout_seconds) {
  if (environment.size == 1) return std::make_unique<OneRank>();
#if defined(FOCUS_WITH_GLOO) || defined(FOCUS_WITH_NCCL)
  return connect_ranks(environment, device, timeout_seconds);
#else
  (void)device, (void)timeout_seconds;
  fail<DeviceError>(environment.launcher, " started ", environment.size,
                    " ranks, but this build cannot connect them: install libgloo-dev, configure and build again, or start one process");
#endif
}

}  // namespace focus::train
