// What a piece of code asks of the host, counted on the CPU: where the same code runs on a card, each of
// these makes the card wait, or moves memory that did not change.
#pragma once

#include <ATen/record_function.h>

#include <cstdint>
#include <map>
#include <ostream>
#include <string>

namespace focus::testing {

/// Counts from its construction to stop(), on all threads.
class HostTraffic {
 public:
  /// Copies of at least `large_bytes` count as large.
  explicit HostTraffic(int64_t large_bytes);
  ~HostTraffic() { stop(); }
  HostTraffic(const HostTraffic&) = delete;
  HostTraffic& operator=(const HostTraffic&) = delete;
  void stop();

  int64_t reads() const { return reads_; }    // values that the host waits for
  int64_t writes() const { return writes_; }  // tensors that are made of lists of the host
  int64_t large_copies() const { return large_copies_; }
  /// All of these by name, for messages.
  std::string names() const;

 private:
  void count(const at::RecordFunction& call);
  void count_copy(const at::RecordFunction& call);

  int64_t large_bytes_;
  at::CallbackHandle handle_ = at::INVALID_CALLBACK_HANDLE;
  int64_t reads_ = 0, writes_ = 0, large_copies_ = 0;
  std::map<std::string, int64_t> seen_;
};

}  // namespace focus::testing
