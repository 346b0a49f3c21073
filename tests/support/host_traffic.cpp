#include "support/host_traffic.h"

#include <ATen/ATen.h>

#include <mutex>
#include <set>

#include "focus/core/error.h"

namespace focus::testing {
namespace {

const std::set<std::string> kReads = {
    "aten::_local_scalar_dense", "aten::is_nonzero", "aten::nonzero", "aten::equal",
    "aten::masked_select",       "aten::allclose",   "focus::to_host"};
const std::set<std::string> kWrites = {"focus::from_host"};
const std::set<std::string> kCopies = {"aten::cat", "aten::copy_", "aten::index_select", "aten::gather"};

// On the CPU alone it reads its own status.
const std::string kReadsItself = "aten::linalg_lu_solve";
thread_local int inside = 0;

// One counter at a time: a callback of the observer takes no argument of its own.
std::mutex mutex;
HostTraffic* current = nullptr;

int64_t bytes_of(const c10::IValue& value) {
  if (value.isTensor())
    return value.toTensor().defined() ? static_cast<int64_t>(value.toTensor().nbytes()) : 0;
  int64_t total = 0;
  if (value.isTensorList()) {
    for (const at::Tensor& t : value.toTensorVector()) total += static_cast<int64_t>(t.nbytes());
  }
  return total;
}

}  // namespace

HostTraffic::HostTraffic(int64_t large_bytes) : large_bytes_(large_bytes) {
  {
    const std::lock_guard lock(mutex);
    current = this;
  }
  const auto begin = [](const at::RecordFunction& call) -> std::unique_ptr<at::ObserverContext> {
    if (call.name() == kReadsItself) ++inside;
    const std::lock_guard lock(mutex);
    if (current != nullptr && inside == 0) current->count(call);
    return nullptr;
  };
  const auto end = [](const at::RecordFunction& call, at::ObserverContext*) {
    if (call.name() == kReadsItself) --inside;
    const std::lock_guard lock(mutex);
    if (current != nullptr) current->count_copy(call);
  };
  handle_ =
      at::addGlobalCallback(at::RecordFunctionCallback(begin, end).needsInputs(true).needsOutputs(true));
}

void HostTraffic::stop() {
  if (handle_ == at::INVALID_CALLBACK_HANDLE) return;
  at::removeCallback(handle_);
  handle_ = at::INVALID_CALLBACK_HANDLE;
  const std::lock_guard lock(mutex);
  current = nullptr;
}

void HostTraffic::count(const at::RecordFunction& call) {
  const std::string name = call.name();
  if (kReads.contains(name)) {
    ++reads_;
  } else if (kWrites.contains(name)) {
    ++writes_;
  } else {
    return;
  }
  ++seen_[name];
}

void HostTraffic::count_copy(const at::RecordFunction& call) {
  if (!kCopies.contains(call.name()) || call.outputs().empty()) return;
  if (bytes_of(call.outputs()[0]) < large_bytes_) return;
  ++large_copies_;
  ++seen_[call.name()];
}

std::string HostTraffic::names() const {
  std::string out;
  for (const auto& [name, count] : seen_) out += concat(out.empty() ? "" : ", ", name, " x ", count);
  return out;
}

}  // namespace focus::testing
