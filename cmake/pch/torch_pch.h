// The shared precompiled header of all rooms that use LibTorch. What it holds costs time in every file,
// because templates that its inline functions use are instantiated at the end of each: only what nearly all
// of them need is here.
#pragma once
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/nn/module.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>
