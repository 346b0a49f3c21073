// Launches as a CUDA graph notes them down: with the very values of their arguments.
#pragma once

#include <functional>
#include <vector>

namespace emu {

/// Where this thread's launches are noted down, beside being done; null: nowhere.
inline thread_local std::vector<std::function<void()>>* recording = nullptr;

}  // namespace emu
