// Retained entries: what is left of closed windows at one attention layer. Legend: B batch, G key/value
// heads, S entries, E head dimension.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "focus/ops/attention.h"

namespace focus::compress {

/// Where an entry comes from. `index`, over the whole sequence: of its k-mer; of its base where it is raw; of
/// its first base where entries grow coarser with age (multires); -1 where it stands for another base in
/// every head.
struct EntryOrigin {
  int64_t window = 0;
  int64_t index = 0;
};

struct Entries {
  at::Tensor k;                     // [B, G, S, E] rotated to true positions
  at::Tensor v;                     // [B, G, S, E]
  at::Tensor beta;                  // [B, G, S] fp32 log-mass added to the score; undefined = 0 for all
  std::vector<EntryOrigin> origin;  // empty where attention alone reads the entries

  int64_t size() const { return k.defined() ? k.size(2) : 0; }
  bool empty() const { return size() == 0; }
  /// What attention reads.
  ops::MemoryPart memory() const { return {k, v, beta}; }
  /// Appends along S; a missing beta on one side is filled with zeros.
  void append(const Entries& more);
  /// Entries [begin, end).
  Entries slice(int64_t begin, int64_t end) const;
  /// Drops all but [begin, end), into storage of their own where no gradient is recorded, so that memory is
  /// really freed.
  void keep(int64_t begin, int64_t end);
  /// Bytes of keys, values and beta.
  int64_t num_bytes() const;
  Entries clone() const;
  void detach();
};

/// Raw bases [begin, end) of keys and values [B, G, n, E] as entries; the first of the n bases is
/// `first_base` of the sequence.
Entries raw_entries(const at::Tensor& k, const at::Tensor& v, int64_t begin, int64_t end, int64_t window,
                    int64_t first_base);

/// Gives entries without one a beta of zero, as it would stand beside others that have one.
void add_zero_beta(Entries& entries);

/// Bytes of one entry: keys and values of all key/value heads, and beta where the policy stores one.
int64_t bytes_per_entry(int64_t batch, int64_t kv_heads, int64_t head_dim, at::ScalarType dtype,
                        bool with_beta);

}  // namespace focus::compress
