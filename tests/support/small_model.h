// Random backbones small enough for gradient checks in fp64.
#pragma once

#include <filesystem>
#include <memory>

#include "focus/compress/compressed_model.h"
#include "focus/model/llama.h"
#include "focus/model/striped_hyena.h"

namespace focus::testing {

/// Blocks hcs, hcm, attention, hcl, attention; width 16, 2 heads, vocabulary 128 (it holds A, C, G, T).
std::shared_ptr<model::StripedHyena> small_model(at::ScalarType dtype);
/// The same in fp32 as files: small.yml and small.pt in `folder`.
void write_small_model(const std::filesystem::path& folder);
/// Three layers of width 16 with grouped queries: 4 heads of 6 channels, 2 key/value heads, q/k/v bias.
/// Vocabulary 128, bytes.
std::shared_ptr<model::Llama> small_llama(at::ScalarType dtype);
/// Random A, C, G, T, [batch, length] int64.
at::Tensor random_bases(int64_t batch, int64_t length, int64_t seed);
/// Adds noise to every adapter parameter: at their start some maps are zero and hide their neighbours'
/// gradients.
void perturb(compress::FocusAdapter& adapter, double size, int64_t seed);
/// An adapter in the backbone's precision (fp64 for gradient checks), perturbed.
std::shared_ptr<compress::FocusAdapter> perturbed_adapter(const model::Backbone& backbone,
                                                          const compress::MemoryConfig& config,
                                                          int64_t seed = 1);

}  // namespace focus::testing
