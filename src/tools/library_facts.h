// What this program was built with and runs with.
#pragma once

#include "machine_facts.h"

namespace focus::tools {

/// focus itself: version, commit, compiler, build type.
Facts build_facts();
/// LibTorch: version at build and at run time, where it lies and how it was found, its math libraries.
Facts torch_facts();
/// Threads, and the environment variables that steer them.
Facts thread_facts();
/// CUDA as built and as LibTorch sees it, with gpu_facts().
Facts cuda_facts();
/// htslib and HDF5.
Facts file_library_facts();

}  // namespace focus::tools
