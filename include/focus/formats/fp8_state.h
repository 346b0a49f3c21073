// The FP8 scales that NVIDIA Transformer Engine keeps in a checkpoint: entries called `..._extra_state`, each
// a torch.save of its own.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace focus::formats {

/// Delayed scaling of one module. A tensor x is stored in FP8 as round(x * scale).
struct Fp8State {
  /// One scale for each tensor of the forward pass; of a linear layer 0 the input, 1 the weight, 2 the
  /// output. Finite and positive.
  std::vector<float> scale_fwd;
  /// Largest absolute values of recent steps, row-major [amax_history_length, scale_fwd.size()]; empty when
  /// the entry has none.
  std::vector<float> amax_history_fwd;
  std::size_t amax_history_length = 0;
};

/// Reads an entry's bytes (TensorFile::opaque). Nothing when they hold no scales, with the reason in
/// `why_not`: an empty entry, None, an object without scale_fwd; such a module was saved without FP8. Throws
/// WeightsError that begins with `where` for anything damaged or of another kind, and for scales that are not
/// finite and positive.
std::optional<Fp8State> read_fp8_state(std::span<const std::byte> content, const std::string& where,
                                       std::string& why_not);

}  // namespace focus::formats
