// The instruction set of the CPU kernels, picked once when the program runs.
#pragma once

namespace focus::kernels {

/// "amx" (AVX-512 with bf16 products in tiles), "avx512", "avx2" or "baseline": what the running machine was
/// given. FOCUS_CPU_ISA in the environment picks a lower one; ConfigError when it names none of these, here
/// and from the first kernel that runs.
const char* cpu_isa();
/// Whether the processor has bf16 products, without which LibTorch's bf16 matrix products are slow. False
/// under a FOCUS_CPU_ISA below amx.
bool cpu_multiplies_bf16();

}  // namespace focus::kernels
