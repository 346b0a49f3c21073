#include "focus/ops/out_of_memory.h"

#include <gtest/gtest.h>

#include <string>

namespace focus::ops {
namespace {

bool is_one(const std::string& what) { return is_out_of_memory(c10::Error({__func__, __FILE__, 0}, what)); }

TEST(OutOfMemoryTest, KnowsWhatAllocatorsAndLibrariesSay) {
  EXPECT_TRUE(is_out_of_memory(c10::OutOfMemoryError({__func__, __FILE__, 0}, "anything")));
  EXPECT_TRUE(
      is_one("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: "
             "you tried to allocate 40 bytes"));
  EXPECT_TRUE(is_one("CUDA error: out of memory\nCUDA kernel errors might be reported later"));
  EXPECT_TRUE(is_one("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"));
  EXPECT_FALSE(is_one("CUDA error: an illegal memory access was encountered"));
  EXPECT_FALSE(is_one("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED"));
  EXPECT_FALSE(is_one("the shapes do not fit"));
}

}  // namespace
}  // namespace focus::ops
