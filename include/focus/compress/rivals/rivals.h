// Retention policies, the rivals of Focus: each says what becomes of a whole window's raw keys and values
// when it closes, within the byte budget that Focus has. Legend: B batch, L length.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "focus/compress/memory/closed_span.h"
#include "focus/compress/memory/storage.h"
#include "focus/compress/rivals/budget.h"

namespace focus::compress {

/// How much a policy retains. `everything`: over any budget; `budget`: no more than that.
enum class Keeps { nothing, budget, everything };

struct RetentionPolicy {
  std::string name, description;  // `description`: one line for reports
  /// Updates what is retained when a window closes. `retained` is all that this policy kept so far.
  std::function<void(const ClosedSpan& span, const Budget& budget, EntryStore& retained)> close;
  /// Whether close() reads the span's queries: only then are those of the open window kept.
  bool needs_queries = false;
  Keeps keeps = Keeps::budget;
  /// 8 or 4 where rounding is what the policy is about: it then refuses another precision. Values have scales
  /// per base and head, keys per channel over key_group neighbouring bases of a window, because keys have
  /// channels that are large throughout (KIVI, arXiv 2402.02750). 0: entries are held as configured.
  int64_t bits = 0;
  int64_t key_group = QuantisedConfig{}.key_group;
};

/// Quantised memory: every base in codes, whatever the budget. No gradient goes through what a window leaves.
RetentionPolicy quantised(const QuantisedConfig& config);

/// The one list of rivals: their names on command lines, in configurations and in reports all come from here.
const std::vector<RetentionPolicy>& rivals();
/// The one of that name, which the list must have.
const RetentionPolicy& rival(const std::string& name);

/// Fitted entries of k-mers that carry equal shares of `surprise_BL` [B, L], a non-negative number for each
/// base of the sequences that will be streamed, else a ShapeError. (The rival 'adaptive' takes the attention
/// mass instead, and needs nothing beforehand.)
RetentionPolicy adaptive_by(const at::Tensor& surprise_BL);

}  // namespace focus::compress
