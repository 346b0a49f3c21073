#include "library_facts.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <dlfcn.h>
#include <hdf5.h>
#include <htslib/hts.h>
#include <torch/version.h>

#include <cstdlib>
#include <string>

#include "focus/core/version.h"

namespace focus::tools {
namespace {

/// "2.11.0" from "..., TORCH_VERSION=2.11.0, ..." in the library's own description.
std::string running_torch_version() {
  const std::string config = at::show_config(), key = "TORCH_VERSION=";
  const std::size_t at = config.find(key);
  if (at == std::string::npos) return "unknown";
  const std::size_t begin = at + key.size();
  return config.substr(begin, config.find_first_of(", \n", begin) - begin);
}

std::string file_of(const void* symbol) {
  Dl_info info{};
  return ::dladdr(symbol, &info) != 0 && info.dli_fname != nullptr ? info.dli_fname : "unknown";
}

/// The first line, without the commit in brackets at its end.
std::string short_line(std::string text) {
  text.erase(std::min(text.find('\n'), text.size()));
  return text.substr(0, text.find(" (Git Hash"));
}

}  // namespace

Facts build_facts() {
  return {{"version", version()}, {"commit", git_hash()}, {"compiler", FOCUS_COMPILER}, {"build_type", FOCUS_BUILD_TYPE}};
}

Facts torch_facts() {
  const std::string built = TORCH_VERSION, running = running_torch_version();
  Facts out = {{"version_at_build", built},
               {"version_running", running},
               {"library", file_of(reinterpret_cast<const void*>(&at::show_config))},
               {"found_by", FOCUS_TORCH_ORIGIN},
               {"mkl", at::hasMKL() ? Facts(short_line(at::get_mkl_version())) : Facts(nullptr)},
               {"onednn", at::globalContext().hasMKLDNN() ? Facts(short_line(at::get_mkldnn_version())) : Facts(nullptr)},
               {"instruction_set", at::get_cpu_capability()}};
  if (built != running) out["note"] = "built against another version than it runs with: build again";
  return out;
}

Facts thread_facts() {
  Facts out = {{"torch_threads", at::get_num_threads()}, {"openmp", short_line(at::get_openmp_version())}};
  for (const char* name :
       {"OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_PROC_BIND", "KMP_AFFINITY", "FOCUS_CPU_ISA"}) {
    if (const char* value = std::getenv(name)) out[name] = value;
  }
  return out;
}

Facts cuda_facts() {
  Facts out = {{"built_with_cuda", FOCUS_BUILT_WITH_CUDA != 0}, {"usable_devices", 0}};
  // A device may be there and still be unusable, for example by a driver that is too old for LibTorch; its reason is worth having.
  if (FOCUS_BUILT_WITH_CUDA != 0 && c10::impl::hasDeviceGuardImpl(at::kCUDA))
    out["usable_devices"] = static_cast<int64_t>(c10::impl::getDeviceGuardImpl(at::kCUDA)->deviceCount());
  out.update(gpu_facts());
  if (FOCUS_BUILT_WITH_CUDA == 0 && !out["devices"].empty())
    out["note"] = "this build has no CUDA; build the preset cuda-release to use these devices";
  if (FOCUS_BUILT_WITH_CUDA != 0 && !out["devices"].empty() && out["usable_devices"] == 0)
    out["note"] =
        "LibTorch can use none of these devices; compare the driver with the CUDA version of LibTorch, and look at CUDA_VISIBLE_DEVICES";
  return out;
}

Facts file_library_facts() {
  unsigned major = 0, minor = 0, release = 0;
  H5get_libversion(&major, &minor, &release);
  return {{"htslib", hts_version()}, {"hdf5", std::to_string(major) + "." + std::to_string(minor) + "." + std::to_string(release)}};
}

}  // namespace focus::tools
