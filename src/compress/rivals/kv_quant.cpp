#include "kv_quant.h"

#include "focus/core/error.h"
#include "span_entries.h"

namespace focus::compress {

std::string KvQuantPolicy::name() const { return concat("kv_quant_int", bits_, budget_ ? "" : "_full"); }

std::string KvQuantPolicy::describe() const {
  return concat(budget_ ? "the newest bases" : "every base, over the budget,", " in ", bits_, " bits, keys scaled per channel of ",
                kKeyGroup, " bases, values per base");
}

StorageFormat KvQuantPolicy::storage(const StorageConfig& configured) const {
  StorageFormat format = configured;
  format.bits = bits_;
  format.key_group = kKeyGroup;
  return format;
}

void KvQuantPolicy::close(const ClosedSpan& span, EntryStore& retained) const {
  retained.append(raw_entries(span, 0, span.num_bases()));
  if (!budget_) return;
  const int64_t allowed = budget_->bytes_after(span.window) * span.k.size(0);
  int64_t fits = retained.size(), too_many = -1;  // first entry of a tail that fits, and of one that does not
  while (fits - too_many > 1) {
    const int64_t middle = (fits + too_many) / 2;
    (retained.bytes_from(middle) <= allowed ? fits : too_many) = middle;
  }
  retained.keep(fits, retained.size());
}

}  // namespace focus::compress
