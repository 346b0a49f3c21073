#include "focus/core/hash.h"

namespace focus {

uint64_t fnv1a(const void* bytes, std::size_t num_bytes) {
  uint64_t hash = 14695981039346656037U;
  for (std::size_t i = 0; i < num_bytes; ++i) hash = (hash ^ static_cast<const unsigned char*>(bytes)[i]) * 1099511628211U;
  return hash;
}

}  // namespace focus
