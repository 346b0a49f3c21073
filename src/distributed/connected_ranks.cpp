#include "connected_ranks.h"

#include <c10/util/Logging.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <future>
#include <thread>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#if defined(FOCUS_WITH_GLOO)
#define USE_C10D_GLOO
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#endif
#if defined(FOCUS_WITH_NCCL)
#define USE_C10D_NCCL
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif

#include "focus/core/error.h"
#include "focus/core/interrupt.h"
#include "focus/core/log.h"

namespace focus::distributed {
namespace {

using at::Tensor;
using Milliseconds = std::chrono::milliseconds;

constexpr int64_t kBucketBytes =
    int64_t{64} << 20;  // small gradients travel together, and no copy is larger than this or one tensor

/// The first line of what a process group complains about; the rest is its call stack.
std::string first_line(const std::exception& error) {
  const auto* torch_error = dynamic_cast<const c10::Error*>(&error);
  const std::string text = torch_error != nullptr ? torch_error->what_without_backtrace() : error.what();
  return text.substr(0, text.find('\n'));
}

class ConnectedRanks final : public Ranks {
 public:
  ConnectedRanks(c10::intrusive_ptr<c10d::Store> store, c10::intrusive_ptr<c10d::Backend> backend,
                 at::Device device, std::string advice)
      : store_(std::move(store)), backend_(std::move(backend)), device_(device), advice_(std::move(advice)) {}

  int64_t rank() const override { return backend_->getRank(); }
  int64_t size() const override { return backend_->getSize(); }

  void all_reduce_sum(const std::vector<Tensor>& tensors) override {
    in_buckets(tensors, [&](std::vector<Tensor>& flat) {
      wait([&] { return backend_->allreduce(flat, c10d::AllreduceOptions()); });
    });
  }
  void broadcast(const std::vector<Tensor>& tensors) override {
    in_buckets(tensors, [&](std::vector<Tensor>& flat) {
      wait([&] { return backend_->broadcast(flat, c10d::BroadcastOptions()); });
    });
  }
  void barrier() override { sum({1.0}); }

 private:
  template <class Start>
  void wait(const Start& start) {
    try {
      start()->wait();
    } catch (const std::exception& error) {
      fail<DeviceError>("rank ", rank(), " of ", size(), " lost the others: ", first_line(error),
                        ". A rank has stopped or does not answer; what it says last tells why. ", advice_);
    }
  }

  // bf16 and fp16 are added in fp32: with many ranks their own sums would lose digits.
  static at::ScalarType wire_dtype(const Tensor& tensor) {
    const bool is_short = tensor.scalar_type() == at::kBFloat16 || tensor.scalar_type() == at::kHalf;
    return is_short ? at::kFloat : tensor.scalar_type();
  }

  template <class Exchange>
  void in_buckets(const std::vector<Tensor>& tensors, const Exchange& exchange) {
    const at::NoGradGuard no_grad;
    for (std::size_t begin = 0; begin < tensors.size();) {
      const at::ScalarType dtype = wire_dtype(tensors[begin]);
      std::vector<Tensor> parts;
      int64_t bytes = 0;
      std::size_t end = begin;
      for (; end < tensors.size() && wire_dtype(tensors[end]) == dtype &&
             (end == begin || bytes < kBucketBytes);
           ++end) {
        parts.push_back(tensors[end].detach().reshape(-1).to(device_, dtype));
        bytes += static_cast<int64_t>(parts.back().nbytes());
      }
      std::vector<Tensor> flat = {at::cat(parts)};
      exchange(flat);
      int64_t at = 0;
      for (std::size_t i = begin; i < end; ++i) {
        tensors[i].detach().copy_(flat[0].narrow(0, at, tensors[i].numel()).view(tensors[i].sizes()));
        at += tensors[i].numel();
      }
      begin = end;
    }
  }

  c10::intrusive_ptr<c10d::Store> store_;
  c10::intrusive_ptr<c10d::Backend> backend_;
  at::Device device_;  // where exchanged tensors lie
  std::string advice_;
};

c10::intrusive_ptr<c10d::Store> open_store(const RankEnvironment& environment, Milliseconds timeout) {
  c10d::TCPStoreOptions options;
  options.port = static_cast<std::uint16_t>(environment.port);
  options.isServer = environment.rank == 0 && !environment.store_is_running;
  options.numWorkers = static_cast<std::size_t>(environment.size);
  options.waitWorkers = !environment.store_is_running;
  options.timeout = timeout;
  c10::intrusive_ptr<c10d::Store> store = c10::make_intrusive<c10d::TCPStore>(environment.address, options);
  if (!environment.key_prefix.empty())
    store = c10::make_intrusive<c10d::PrefixStore>(environment.key_prefix, store);
  return store;
}

std::string shown_place(const RankEnvironment& environment) {
  return concat("rank ", environment.rank, " of ", environment.size, ", rank 0 at ", environment.address, ":",
                environment.port);
}

std::unique_ptr<Ranks> meet(const RankEnvironment& environment, const at::Device& device,
                            const JoinOptions& join) {
  const Milliseconds timeout = std::chrono::seconds(join.answer_seconds);
  const int rank = static_cast<int>(environment.rank), size = static_cast<int>(environment.size);
  const std::string shown = shown_place(environment);
  // What fails is said once, as an exception; LibTorch would log it with its call stack too.
  constexpr int kFatal = 3;
  if (std::getenv("TORCH_CPP_LOG_LEVEL") == nullptr)
    FLAGS_caffe2_log_level = std::max(FLAGS_caffe2_log_level, kFatal);
  try {
    auto store = open_store(environment, std::chrono::seconds(join.meet_seconds));
#if defined(FOCUS_WITH_NCCL)
    if (device.is_cuda()) {
      ::setenv("TORCH_NCCL_BLOCKING_WAIT", "1",
               0);  // a lost rank then is an exception here, not the end of the process
      auto options = c10d::ProcessGroupNCCL::Options::create();
      options->timeout = timeout;
      auto group = c10::make_intrusive<c10d::ProcessGroupNCCL>(store, rank, size, options);
      log::info(concat("ranks over NCCL: ", shown));
      return std::make_unique<ConnectedRanks>(store, group, device, join.advice);
    }
#endif
#if defined(FOCUS_WITH_GLOO)
    (void)device;
    auto options = c10d::ProcessGroupGloo::Options::create(timeout);
    const char* interface = std::getenv("GLOO_SOCKET_IFNAME");
    if (interface != nullptr && *interface != '\0') {
      options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForInterface(interface));
    } else if (environment.size == environment.local_size) {
      options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname("127.0.0.1"));
    } else {
      options->devices.push_back(c10d::ProcessGroupGloo::createDefaultDevice());
    }
    auto group = c10::make_intrusive<c10d::ProcessGroupGloo>(store, rank, size, options);
    log::info(concat("ranks over Gloo: ", shown));
    return std::make_unique<ConnectedRanks>(store, group, at::kCPU, join.advice);
#else
    fail<DeviceError>(
        "this build connects ranks on GPUs only; install libgloo-dev, configure and build again for others");
#endif
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    fail<DeviceError>("cannot meet the other ranks (", shown, "): ", first_line(error), ". Check that all ",
                      size, " ranks were started and can reach that address, and that MASTER_PORT is free");
  }
}

}  // namespace

// LibTorch waits without end for a listener that accepts and says nothing, and tries on after its own
// timeout. So the ranks meet on a thread, which is left behind when the time is up.
std::unique_ptr<Ranks> connect_ranks(const RankEnvironment& environment, const at::Device& device,
                                     const JoinOptions& join) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(join.meet_seconds);
  auto met = std::make_shared<std::promise<std::unique_ptr<Ranks>>>();
  auto ranks = met->get_future();
  std::thread([environment, device, join, met] {
    try {
      met->set_value(meet(environment, device, join));
    } catch (...) {
      met->set_exception(std::current_exception());
    }
  }).detach();
  while (ranks.wait_for(Milliseconds(50)) != std::future_status::ready) {
    if (interrupt_requested()) fail<Interrupted>("interrupted while waiting for the other ranks");
    if (std::chrono::steady_clock::now() >= deadline)
      fail<DeviceError>(
          "cannot meet the other ranks (", shown_place(environment), "): waited ", join.meet_seconds,
          " s, and not all came, or another program answers there. Check that all ", environment.size,
          " ranks were started and can reach that address, and that MASTER_PORT is free");
  }
  return ranks.get();
}

}  // namespace focus::distributed
