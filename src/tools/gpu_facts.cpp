#include <dlfcn.h>

#include <array>
#include <cstdlib>
#include <memory>

#include "machine_facts.h"

namespace focus::tools {
namespace {

/// NVIDIA's management library, which comes with the driver. Loaded by name: a build without CUDA knows no header of it.
class Nvml {
 public:
  Nvml() : handle_(::dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL)) {
    const auto init = function<int()>("nvmlInit_v2");
    ready_ = init != nullptr && init() == 0;
  }
  ~Nvml() {
    if (const auto shutdown = function<int()>("nvmlShutdown"); ready_ && shutdown != nullptr) shutdown();
    if (handle_ != nullptr) ::dlclose(handle_);
  }
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;
  bool found() const { return handle_ != nullptr; }
  bool ready() const { return ready_; }

  template <class Signature>
  Signature* function(const char* name) const {
    return handle_ != nullptr ? reinterpret_cast<Signature*>(::dlsym(handle_, name)) : nullptr;
  }

 private:
  void* handle_;
  bool ready_ = false;
};

struct Memory {
  unsigned long long total = 0, free = 0, used = 0;
};

Facts device_facts(const Nvml& nvml, unsigned index) {
  Facts out = {{"index", index}};
  void* device = nullptr;
  const auto by_index = nvml.function<int(unsigned, void**)>("nvmlDeviceGetHandleByIndex_v2");
  if (by_index == nullptr || by_index(index, &device) != 0) {
    out["error"] = "the driver does not answer for this device";
    return out;
  }
  std::array<char, 96> name{};
  if (const auto get = nvml.function<int(void*, char*, unsigned)>("nvmlDeviceGetName");
      get != nullptr && get(device, name.data(), name.size()) == 0)
    out["name"] = name.data();
  int major = 0, minor = 0;
  if (const auto get = nvml.function<int(void*, int*, int*)>("nvmlDeviceGetCudaComputeCapability");
      get != nullptr && get(device, &major, &minor) == 0)
    out["compute_capability"] = std::to_string(major) + "." + std::to_string(minor);
  Memory memory;
  if (const auto get = nvml.function<int(void*, Memory*)>("nvmlDeviceGetMemoryInfo"); get != nullptr && get(device, &memory) == 0) {
    out["memory_bytes"] = memory.total;
    out["memory_free_bytes"] = memory.free;
  }
  return out;
}

}  // namespace

Facts gpu_facts() {
  Facts out = {{"driver", nullptr}, {"devices", Facts::array()}};
  if (const char* visible = std::getenv("CUDA_VISIBLE_DEVICES")) out["CUDA_VISIBLE_DEVICES"] = visible;
  const Nvml nvml;
  if (!nvml.ready()) {
    out["note"] = nvml.found() ? "NVIDIA's libraries are here, but its driver does not answer (libnvidia-ml.so.1 cannot start)"
                               : "no NVIDIA driver on this machine (no libnvidia-ml.so.1)";
    return out;
  }
  std::array<char, 96> driver{};
  if (const auto get = nvml.function<int(char*, unsigned)>("nvmlSystemGetDriverVersion");
      get != nullptr && get(driver.data(), driver.size()) == 0)
    out["driver"] = driver.data();
  int cuda = 0;
  if (const auto get = nvml.function<int(int*)>("nvmlSystemGetCudaDriverVersion_v2"); get != nullptr && get(&cuda) == 0)
    out["driver_supports_cuda"] = std::to_string(cuda / 1000) + "." + std::to_string(cuda % 1000 / 10);
  unsigned count = 0;
  if (const auto get = nvml.function<int(unsigned*)>("nvmlDeviceGetCount_v2"); get != nullptr) get(&count);
  for (unsigned i = 0; i < count; ++i) out["devices"].push_back(device_facts(nvml, i));
  if (count == 0) out["note"] = "a driver without a device";
  return out;
}

}  // namespace focus::tools
