#include "focus/cache/known_output.h"

#include "focus/core/error.h"

namespace focus::cache {

at::Tensor KnownOutput::rows(int64_t position, int64_t count) const {
  FOCUS_CHECK(position + count <= length(), "a call of ", count, " tokens from ", position,
              " on ends behind ", length(), ", up to where the output of the first blocks is known");
  return output_BLD_.narrow(1, position, count);
}

KnownOutput::States KnownOutput::after() const {
  States out;
  for (const auto& state : *after_) out.push_back(state->clone());
  return out;
}

TensorMap KnownOutput::save() const {
  fail<InternalError>("a stream whose first blocks are not its own cannot be saved");
}
void KnownOutput::load(const TensorMap&, const at::Device&) {
  fail<InternalError>("a stream whose first blocks are not its own cannot be loaded");
}

}  // namespace focus::cache
