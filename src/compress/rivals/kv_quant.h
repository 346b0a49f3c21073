// Quantised keys and values as a rival: how far do the bytes of a summary go when every base is held in fewer bits?
#pragma once

#include <optional>

#include "focus/compress/rivals/budget.h"
#include "focus/compress/rivals/policy.h"

namespace focus::compress {

/// Raw keys and values in 8 or 4 bits with asymmetric scales (KIVI, arXiv 2402.02750): values per base and head, keys per channel over
/// kKeyGroup neighbouring bases of a window, because keys have channels that are large throughout. With a budget the newest bases that fit,
/// scales counted; without one every base, over the budget, which shows what rounding alone costs.
class KvQuantPolicy final : public RetentionPolicy {
 public:
  KvQuantPolicy(int64_t bits, std::optional<Budget> budget) : bits_(bits), budget_(std::move(budget)) {}
  std::string name() const override;
  std::string describe() const override;
  StorageFormat storage(const StorageConfig& configured) const override;
  bool rounds_itself() const override { return true; }
  Keeps keeps() const override { return budget_ ? Keeps::budget : Keeps::everything; }
  void close(const ClosedSpan& span, EntryStore& retained) const override;
  static constexpr int64_t kKeyGroup = 64;

 private:
  int64_t bits_;
  std::optional<Budget> budget_;
};

}  // namespace focus::compress
