// How retained entries are held between calls: their precision and their place. Apart from the policies,
// which decide what is retained. Legend: B batch, G key/value heads, S entries, E head dimension.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <string>
#include <vector>

#include "focus/cache/grown_rows.h"
#include "focus/cache/stream_state.h"
#include "focus/compress/memory/entries.h"
#include "focus/config/fields.h"
#include "focus/ops/attention.h"

namespace focus::compress {

enum class StorageType { model, fp32, bf16, int8 };
enum class StorageDevice { model, host };

struct StorageConfig {
  StorageType dtype = StorageType::model;
  StorageDevice device = StorageDevice::model;
  /// `entries`: whether there are entries to which dtype applies.
  void visit(config::Fields& f, const config::Condition& entries = {});
  bool operator==(const StorageConfig&) const = default;
};

/// Bases that share the scale of a key's channel: KIVI (arXiv 2402.02750).
constexpr int64_t kKeyGroup = 64;

/// What an EntryStore does with keys and values.
struct StorageFormat {
  StorageType dtype = StorageType::model;
  StorageDevice device = StorageDevice::model;
  int64_t bits = 0;       // 8 or 4: quantised; 0: as dtype says
  int64_t key_group = 0;  // quantised keys: 0 = a scale per entry and head; else one per channel and this
                          // many neighbours of one window
  StorageFormat() = default;
  StorageFormat(const StorageConfig& config)
      : dtype(config.dtype), device(config.device), bits(dtype == StorageType::int8 ? 8 : 0) {}
  /// Codes whose keys share scales within kKeyGroup bases.
  static StorageFormat codes(int64_t bits) {
    StorageFormat out;
    out.bits = bits;
    out.key_group = kKeyGroup;
    return out;
  }
  bool operator==(const StorageFormat&) const = default;
  static constexpr int64_t kScaleBytes = 4;  // low and step
  /// Bytes of the scales that a group of keys shares, of one sequence.
  static int64_t group_bytes(int64_t kv_heads, int64_t head_dim) { return kv_heads * head_dim * kScaleBytes; }
  /// Bytes of `count` raw bases of one window that are held together, scales counted.
  int64_t bytes_of(int64_t count, int64_t kv_heads, int64_t head_dim, at::ScalarType model_dtype) const {
    const int64_t groups = key_group > 0 ? (count + key_group - 1) / key_group : 0;
    return count * entry_bytes(kv_heads, head_dim, model_dtype, /*with_beta=*/false) +
           groups * group_bytes(kv_heads, head_dim);
  }
  /// Bytes of one entry of one sequence, shared scales of key groups left out.
  int64_t entry_bytes(int64_t kv_heads, int64_t head_dim, at::ScalarType model_dtype, bool with_beta) const;
};

/// The retained entries of one layer, really held in the format's precision and place. Each entry is rounded
/// once, when it is appended, and never again; there is room for more, so that nothing else moves then.
/// Attention reads the tensors themselves, codes too, where they are held in its type and place, else a copy
/// for the time of a call. With `device host` and a card the entries lie in pinned memory:
/// each is copied there once, and each reading copies all of them, in the order of the card's stream, while
/// the host goes on. fp32 and bf16
/// storage pass gradients through their rounding; appending entries that carry a gradient to a quantised
/// store is a ConfigError.
class EntryStore {
 public:
  /// `name`: of what is held, in saved files.
  explicit EntryStore(StorageFormat format = {}, std::string name = "retained")
      : format_(format), name_(std::move(name)) {}
  void append(const Entries& more);
  /// Keeps the entries [begin, end) alone.
  void keep(int64_t begin, int64_t end);
  /// Keeps these entries alone, in this order.
  void select(const std::vector<int64_t>& indices);
  void clear() { *this = EntryStore(format_, name_); }
  /// For attention of `like`: on its device, codes as they are, the others in its type; beta fp32 (or as it
  /// was appended).
  ops::MemoryPart memory(const at::Tensor& like) const;
  /// The same as numbers of that type. Without origins.
  Entries read(const at::Tensor& like) const;

  int64_t size() const { return static_cast<int64_t>(origin_.size()); }
  bool empty() const { return size() == 0; }
  const std::vector<EntryOrigin>& origin() const { return origin_; }
  const StorageFormat& format() const { return format_; }
  /// Of everything held: keys and values or their codes, scales, beta. Room for more, half as much at most,
  /// and what names an entry (its origin, the row of its scales) are not counted.
  int64_t num_bytes() const;
  /// The same for what keep(begin, size()) would leave, from the sizes alone.
  int64_t bytes_from(int64_t begin) const;
  EntryStore clone() const;
  void detach();
  /// Under names that begin with that of the store.
  void save(cache::TensorMap& out) const;
  /// CheckpointError when the saved entries are in another format.
  void load(const cache::TensorMap& saved, const at::Device& device);

 private:
  using Rows = cache::GrownRows;
  struct Codes {
    Rows codes, low, step;
  };
  /// f(name, rows) for all that is held, in the order of saved files; `Store` may be const.
  template <class Store, class F>
  static void for_each(Store& store, const F& f) {
    f("k", store.k_), f("v", store.v_), f("beta", store.beta_);
    f("k.codes", store.codes_k_.codes), f("k.low", store.codes_k_.low), f("k.step", store.codes_k_.step);
    f("v.codes", store.codes_v_.codes), f("v.low", store.codes_v_.low), f("v.step", store.codes_v_.step);
  }
  int64_t num_groups() const { return group_.empty() ? 0 : group_.back() + 1; }
  bool shares_scales(const Rows& rows) const {
    return !group_.empty() && (&rows == &codes_k_.low || &rows == &codes_k_.step);
  }
  const Rows& keys() const { return format_.bits > 0 ? codes_k_.codes : k_; }

  StorageFormat format_;
  std::string name_;
  std::vector<EntryOrigin> origin_;
  Rows k_, v_, beta_;  // not quantised: k, v
  Codes codes_k_, codes_v_;
  std::vector<int64_t> group_;  // key groups: row of codes_k_.low that belongs to an entry
  Rows row_of_{0};              // the same, int32, where the scales are
  at::Device from_ = at::kCPU;  // where entries were appended from
};

/// What a store of this format makes of entries: for execution without a store.
Entries rounded(const Entries& entries, const StorageFormat& format);

}  // namespace focus::compress
