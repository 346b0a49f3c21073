#include "rank_options.h"

#include <ATen/detail/CUDAHooksInterface.h>

#include <algorithm>
#include <thread>

#include "focus/core/error.h"
#include "focus/core/log.h"
#include "focus/model/placement.h"

namespace focus::cli {

void apply_rank(const distributed::RankEnvironment& environment, int64_t& threads, std::string& device, CommonOptions& common) {
  if (environment.size == 1) return;
  if (environment.rank > 0) common.quiet = true;
  log::set_label(concat("rank ", environment.rank, ": "));
  if (threads == 0 && common.threads <= 0)
    threads = std::max<int64_t>(1, static_cast<int64_t>(std::thread::hardware_concurrency()) / environment.local_size);
  if (common.threads == 0) common.threads = -1;
  device = model::resolve_devices(device);
  // A launcher may show each rank one GPU only, which then is cuda:0 for all of them.
  const int64_t num_devices = at::detail::getCUDAHooks().deviceCount();
  if (device == "cuda:0" && num_devices > 1) device = concat("cuda:", environment.local_rank % num_devices);
}

}  // namespace focus::cli
