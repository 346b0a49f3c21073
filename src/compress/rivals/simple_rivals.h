// Rivals that need only positions: which bases are kept, or averaged, does not depend on what they
// are.
#pragma once

#include "focus/compress/rivals/rivals.h"

namespace focus::compress {

using ClosePolicy = decltype(RetentionPolicy::close);

constexpr int64_t kSinks = 4;
constexpr uint64_t kRandomSeed = 20251118;

/// The uncompressed baseline.
void keep_all(const ClosedSpan& span, const Budget& budget, EntryStore& retained);
/// The same in codes, to which no gradient goes.
void keep_all_codes(const ClosedSpan& span, const Budget& budget, EntryStore& retained);
/// Only the Hyena states cross a window's end.
void keep_none(const ClosedSpan& span, const Budget& budget, EntryStore& retained);
/// The newest bases whose codes fit, scales counted.
void keep_newest_codes(const ClosedSpan& span, const Budget& budget, EntryStore& retained);
/// The newest bases, as many as the budget holds; `sinks` of them are the very first bases instead.
ClosePolicy sliding(int64_t sinks);
/// One entry per k-mer: the mean of its rotated keys and of its values, with log-mass beta = log k or
/// without.
ClosePolicy mean_pool(bool with_beta);
/// `room` bases at even distances.
Entries strided(const ClosedSpan& span, int64_t room);
/// `room` bases drawn without repetition from a fixed seed.
Entries random_bases(const ClosedSpan& span, int64_t room);

}  // namespace focus::compress
