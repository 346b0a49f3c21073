#include "heap_meter.h"

#include <sanitizer/allocator_interface.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace focus::formats::fuzz {
namespace {

// The smallest pickle opcode, one byte, makes a node of 80 bytes in a vector that doubles. The rest is
// messages and the zip's names.
constexpr std::ptrdiff_t kBytesPerInputByte = 400;
constexpr std::ptrdiff_t kFixedBytes = 256 << 10;

std::ptrdiff_t live_bytes = 0, peak_bytes = 0;

void on_malloc(const volatile void*, std::size_t num_bytes) {
  live_bytes += static_cast<std::ptrdiff_t>(num_bytes);
  peak_bytes = std::max(peak_bytes, live_bytes);
}
void on_free(const volatile void* address) {
  if (address != nullptr)
    live_bytes -=
        static_cast<std::ptrdiff_t>(__sanitizer_get_allocated_size(const_cast<const void*>(address)));
}

}  // namespace

HeapMeter::HeapMeter() {
  static const int installed = __sanitizer_install_malloc_and_free_hooks(on_malloc, on_free);
  if (installed == 0) std::abort();
  live_bytes = peak_bytes = 0;
}

void HeapMeter::check(std::size_t input_bytes) const {
  const std::ptrdiff_t limit = kFixedBytes + kBytesPerInputByte * static_cast<std::ptrdiff_t>(input_bytes);
  if (peak_bytes <= limit) return;
  std::fprintf(stderr, "an input of %zu bytes took %td bytes of heap, expected at most %td\n", input_bytes,
               peak_bytes, limit);
  std::abort();
}

}  // namespace focus::formats::fuzz
