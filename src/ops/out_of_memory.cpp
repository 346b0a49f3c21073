#include "focus/ops/out_of_memory.h"

#include <string>

namespace focus::ops {

bool is_out_of_memory(const c10::Error& error) {
  if (dynamic_cast<const c10::OutOfMemoryError*>(&error) != nullptr) return true;
  const std::string what = error.what_without_backtrace();
  return what.find("alloc") != std::string::npos && what.find("memory") != std::string::npos;
}

}  // namespace focus::ops
