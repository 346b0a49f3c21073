// Bodies of the attention kernel, compiled once per instruction set.
#pragma once

#include "attention_gradient.h"
#include "attention_tiles.h"
#if defined(__AMX_BF16__)
#include "attention_amx.h"
#endif

namespace focus::kernels::FOCUS_ISA {
namespace {

/// Rows for which packing keys and values does not pay.
constexpr int64_t kRowsInPlace = 32;

template <class T>
struct ProductsOf {
  using many = Fp32Products;
  using few = InPlaceProducts;
};
#if defined(__AMX_BF16__)
template <>
struct ProductsOf<Bf16> {
  using many = AmxProducts;
  using few = AmxProducts;
};
#endif

template <class T>
void attention(const Attention<T>& args, int64_t begin, int64_t end) {
  if (args.group * args.queries < kAttentionFewRows)
    attention_rows(args, begin, end);
  else if (end - begin <= kRowsInPlace)
    attention_tiles<typename ProductsOf<T>::few>(args, begin, end);
  else
    attention_tiles<typename ProductsOf<T>::many>(args, begin, end);
}

}  // namespace
}  // namespace focus::kernels::FOCUS_ISA
