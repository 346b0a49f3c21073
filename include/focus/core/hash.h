// A hash that tells accidents apart, not adversaries: for those there is SHA-256 (formats/digest.h).
#pragma once

#include <cstddef>
#include <cstdint>

namespace focus {

/// 64-bit FNV-1a (Fowler, Noll and Vo) of bytes.
uint64_t fnv1a(const void* bytes, std::size_t num_bytes);

}  // namespace focus
