// Integers as the file formats store them: little-endian, at any alignment.
#pragma once

#include <bit>
#include <cstddef>
#include <cstring>
#include <string>
#include <type_traits>

namespace focus::formats {

// Tensor bytes are used as they lie in the file, so a big-endian host would misread them anyway.
static_assert(std::endian::native == std::endian::little, "focus reads little-endian weight files in place");

template <class T>
T load_little(const std::byte* from) {
  static_assert(std::is_arithmetic_v<T>);
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

template <class T>
void append_little(std::string& to, T value) {
  static_assert(std::is_arithmetic_v<T>);
  char raw[sizeof(T)];
  std::memcpy(raw, &value, sizeof(T));
  to.append(raw, sizeof(T));
}

}  // namespace focus::formats
