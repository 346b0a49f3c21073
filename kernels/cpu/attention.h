// Bodies of the attention kernel, compiled once per instruction set.
#pragma once

#include "attention_gradient.h"
#include "attention_tiles.h"
#if defined(__AMX_BF16__)
#include "attention_amx.h"
#endif

namespace focus::kernels::FOCUS_ISA {
namespace {

template <class T>
struct ProductsOf {
  using type = Fp32Products;
};
#if defined(__AMX_BF16__)
template <>
struct ProductsOf<Bf16> {
  using type = AmxProducts;
};
#endif

template <class T>
void attention(const Attention<T>& args, int64_t begin, int64_t end) {
  if (args.group * args.queries < kAttentionFewRows)
    attention_rows(args, begin, end);
  else
    attention_tiles<typename ProductsOf<T>::type>(args, begin, end);
}

}  // namespace
}  // namespace focus::kernels::FOCUS_ISA
