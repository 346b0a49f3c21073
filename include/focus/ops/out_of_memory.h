// Whether a failure of LibTorch means that memory ran out.
#pragma once

#include <c10/util/Exception.h>

namespace focus::ops {

/// On a device, or on the CPU, where LibTorch reports a failed allocation as a plain error.
bool is_out_of_memory(const c10::Error& error);

}  // namespace focus::ops
