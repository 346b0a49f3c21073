// All that needs CUDA's own headers: streams, graphs, memory, and the entry into the table of kernels.
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "cuda_kernels.h"
#include "focus/core/error.h"

namespace focus::ops {
namespace {

constexpr auto kAll = static_cast<std::size_t>(c10::CachingAllocator::StatType::AGGREGATE);

class CudaGraph final : public RecordedWork {
 public:
  explicit CudaGraph(const at::Device& device)
      : stream_(c10::cuda::getStreamFromPool(/*isHighPriority=*/false, device.index())),
        pool_(at::cuda::graph_pool_handle()) {}

  void record(const std::function<void()>& work) override {
    // The recording before holds the pool open, so that its memory is used again, and is not replayed any
    // more.
    auto next = std::make_unique<at::cuda::CUDAGraph>();
    {
      const c10::cuda::CUDAStreamGuard guard(stream_);
      next->capture_begin(pool_, cudaStreamCaptureModeThreadLocal);
      try {
        work();
      } catch (...) {
        graph_.reset();
        abandon(*next);
        throw;
      }
      next->capture_end();
    }
    graph_ = std::move(next);
  }
  void replay() override {
    FOCUS_CHECK(graph_ != nullptr, "nothing is recorded");
    const c10::cuda::CUDAGuard guard(stream_.device_index());
    graph_->replay();
  }

 private:
  static void abandon(at::cuda::CUDAGraph& graph) {
    try {
      graph.capture_end();
    } catch (const c10::Error&) {
      // What made the work throw has ended the recording as well.
      static_cast<void>(cudaGetLastError());
    }
  }

  c10::cuda::CUDAStream stream_;  // one for all recordings: LibTorch keeps working memory for each
  c10::MempoolId_t pool_;
  std::unique_ptr<at::cuda::CUDAGraph> graph_;
};

}  // namespace

void* current_stream(const at::Device& device) {
  return c10::cuda::getCurrentCUDAStream(device.index()).stream();
}

// Ada (8.9), Hopper and later.
bool CudaKernels::multiplies_e4m3(const at::Device& device) const {
  int major = 0, minor = 0;
  const int index = device.has_index() ? device.index() : c10::cuda::current_device();
  if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index) != cudaSuccess ||
      cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, index) != cudaSuccess)
    fail<DeviceError>(device.str(), " does not tell its compute capability");
  return major * 10 + minor >= 89;
}

std::unique_ptr<RecordedWork> CudaKernels::recorded_work(const at::Device& device) const {
  return std::make_unique<CudaGraph>(device);
}

int64_t CudaKernels::free_bytes(const at::Device& device) const {
  const c10::cuda::CUDAGuard guard(device);
  std::size_t free_bytes = 0, total_bytes = 0;
  if (cudaMemGetInfo(&free_bytes, &total_bytes) != cudaSuccess)
    fail<DeviceError>(device.str(), " does not tell how much memory it has");
  const auto statistics = c10::cuda::CUDACachingAllocator::getDeviceStats(device.index());
  return static_cast<int64_t>(free_bytes) + statistics.reserved_bytes[kAll].current -
         statistics.allocated_bytes[kAll].current;
}

int64_t CudaKernels::peak_bytes(const at::Device& device) const {
  return c10::cuda::CUDACachingAllocator::getDeviceStats(device.index()).allocated_bytes[kAll].peak;
}

}  // namespace focus::ops

// Programs ask the linker for this name, so that the entry into the table is not left out of them.
extern "C" const bool focus_cuda_kernels_entered;
const bool focus_cuda_kernels_entered = [] {
  static const focus::ops::CudaKernels kernels;
  focus::ops::set_device_kernels(at::kCUDA, &kernels);
  return true;
}();
