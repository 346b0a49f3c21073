// One layer that Focus compresses: its rules, its unit, and how spans become entries. Streams, whole
// sequences and attention matching share it.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "focus/compress/focus/adapter.h"
#include "focus/compress/focus/unit.h"
#include "focus/compress/memory/memory.h"
#include "focus/compress/memory/storage.h"
#include "focus/compress/plan/layer_rules.h"

namespace focus::compress {

struct FocusLayer {
  LayerRules rules;
  std::shared_ptr<const FocusUnit> unit;
  at::Tensor embedding;  // [D] of Focus tokens that have states; else undefined
  StorageFormat format;
  std::shared_ptr<KmersCache> kmers;  // of the model

  bool inline_stream() const { return rules.focus().stream == Stream::inline_tokens; }
  /// Whether an entry is made when a span closes, and not earlier or never.
  bool closes_spans() const { return rules.focus().history != History::none && !rules.made_in_stream(); }
  /// Bases that a Focus token of an inline stream is made from: of its k-mer, or of the window up to it.
  Span seen_in_stream(int64_t kmer) const;
  /// Bases `bases` of `source` as a span with these k-mers, relative to the first of them.
  ClosedSpan span(const LayerBases& source, const Span& bases, int64_t window, int64_t first_kmer,
                  std::vector<Span> relative) const;
  /// Raw sinks [begin, end) of keys and values whose first base is `first_base`, as entries.
  Entries sinks(const at::Tensor& k, const at::Tensor& v, const Span& bases, int64_t first_base) const;
  /// How the newest bases are held, those of `window` that join them when it closes, and these as entries, of
  /// keys and values whose first base is `first_base`. No gradient passes through codes.
  StorageFormat recent_format() const;
  Span joins_recent(int64_t window) const;
  Entries recent(const at::Tensor& k, const at::Tensor& v, int64_t window, int64_t first_base) const;
  /// unit->summarise() of a span, with Focus states beside the bases: `next_side` counts the spans that this
  /// layer has closed in the call.
  Summary summarise(ClosedSpan span, const Entries& history, ModelCall& call, std::size_t& next_side) const;
};

/// The layer of an adapter; nothing where the block is not compressed, or not by a Focus unit.
std::optional<FocusLayer> focus_layer(const FocusAdapter& adapter, int64_t block,
                                      std::shared_ptr<KmersCache> kmers);

}  // namespace focus::compress
