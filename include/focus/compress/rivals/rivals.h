// The list of rivals. Legend: B batch, L length.
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <string>
#include <vector>

#include "focus/compress/rivals/budget.h"
#include "focus/compress/rivals/policy.h"

namespace focus::compress {

/// Builds a rival by name. ConfigError lists the names.
std::shared_ptr<RetentionPolicy> make_rival(const std::string& name, const Budget& budget);
const std::vector<std::string>& rival_names();

/// Fitted entries of k-mers that carry equal shares of `surprise_BL` [B, L], a non-negative number for each base of the sequences that will
/// be streamed. (The rival 'adaptive' takes the attention mass instead, and needs nothing beforehand.)
std::shared_ptr<RetentionPolicy> make_adaptive_by(const Budget& budget, const at::Tensor& surprise_BL);

}  // namespace focus::compress
