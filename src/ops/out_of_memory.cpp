#include "focus/ops/out_of_memory.h"

#include <string>

namespace focus::ops {

bool is_out_of_memory(const c10::Error& error) {
  if (dynamic_cast<const c10::OutOfMemoryError*>(&error) != nullptr) return true;
  const std::string what = error.what_without_backtrace();
  const auto says = [&](const char* words) { return what.find(words) != std::string::npos; };
  // The CPU's allocator; the CUDA runtime where no allocator stands between; its libraries.
  return (says("alloc") && says("memory")) || says("out of memory") || says("_ALLOC_FAILED");
}

}  // namespace focus::ops
