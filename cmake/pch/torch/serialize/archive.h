// Stands in for LibTorch's header of this name, but only while the shared header is precompiled:
// torch/nn/module.h needs the archives by name alone, and their definitions carry the JIT along, whose
// templates would be instantiated again in every file.
#pragma once

namespace torch::serialize {
class InputArchive;
class OutputArchive;
}  // namespace torch::serialize
