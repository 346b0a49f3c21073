#include "focus/compress/rivals/policy.h"

#include "span_entries.h"

namespace focus::compress {

void FullPolicy::close(const ClosedSpan& span, EntryStore& retained) const { retained.append(raw_entries(span, 0, span.num_bases())); }

void StateOnlyPolicy::close(const ClosedSpan&, EntryStore& retained) const { retained.clear(); }

}  // namespace focus::compress
