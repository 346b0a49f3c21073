// A hash that tells accidents apart, not adversaries: for those there is SHA-256 (formats/digest.h).
#pragma once

#include <cstddef>
#include <cstdint>

namespace focus {

/// 64-bit FNV-1a (Fowler, Noll and Vo) of bytes.
inline uint64_t fnv1a(const void* bytes, std::size_t num_bytes) {
  uint64_t hash = 14695981039346656037U;
  for (std::size_t i = 0; i < num_bytes; ++i)
    hash = (hash ^ static_cast<const unsigned char*>(bytes)[i]) * 1099511628211U;
  return hash;
}

}  // namespace focus
