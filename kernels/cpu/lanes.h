// Channels side by side in a register, for kernels that stream. Like all bodies of CPU kernels it is compiled
// once per instruction set into namespace FOCUS_ISA. Nothing from the standard library is used in them: an
// inline function compiled with wide instructions could otherwise be picked by the linker for every caller.
#pragma once

#include <cstdint>

namespace focus::kernels::FOCUS_ISA {
namespace {

template <class T>
struct Lanes {
  typedef T Vec __attribute__((vector_size(64)));
  static constexpr int count = 64 / sizeof(T);
};
/// One channel at a time, for the channels left over by the vector loop.
template <class T>
struct Single {
  typedef T Vec;
  static constexpr int count = 1;
};

template <class V, class T>
inline V load(const T* from) {
  V value;
  __builtin_memcpy(&value, from, sizeof(V));
  return value;
}
template <class V, class T>
inline void store(T* to, V value) {
  __builtin_memcpy(to, &value, sizeof(V));
}
template <class V>
inline V zero() {
  V value{};
  return value;
}

}  // namespace
}  // namespace focus::kernels::FOCUS_ISA
