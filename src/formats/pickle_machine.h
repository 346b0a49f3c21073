// The stack machine behind read_pickle: what the opcodes do, apart from how they are spelt.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "focus/core/error.h"
#include "little_endian.h"
#include "pickle_reader.h"
#include "printable.h"

namespace focus::formats {

class PickleMachine {
 public:
  PickleMachine(std::span<const std::byte> bytes, PickleMode mode, const std::string& where,
                const std::string& advice)
      : bytes_(bytes), mode_(mode), where_(where), advice_(advice) {}

 protected:
  using Node = PickleNode;
  using Kind = PickleNode::Kind;
  using Global = PickleNode::Global;
  using Ref = PickleNode::Ref;

  // Evo-2 40b has 795 entries of about 12 nodes each. The limits leave two orders of magnitude and cap memory
  // near 200 MB.
  static constexpr std::size_t kMaxNodes = 1'000'000;
  static constexpr std::size_t kMaxGlobalBytes = 512;

  template <class... Args>
  [[noreturn]] void broken(const Args&... args) const {
    fail<WeightsError>(where_, ": malformed pickle at its byte ", opcode_at_, ": ", args..., "; ", advice_);
  }
  bool passive() const { return mode_ == PickleMode::passive; }

  // ---- input ----
  std::size_t left() const { return bytes_.size() - at_; }
  template <class T>
  T take() {
    if (left() < sizeof(T)) broken("it ends early");
    const T value = load_little<T>(bytes_.data() + at_);
    at_ += sizeof(T);
    return value;
  }
  std::string_view take_raw(std::uint64_t num_bytes);
  std::string_view take_line();

  // ---- stack ----
  void push(Ref ref);
  Node& push(Kind kind);
  void push_integer(std::int64_t value) { push(Kind::integer).integer = value; }
  void push_long(std::size_t num_bytes);
  void push_text(std::uint64_t num_bytes);
  void push_bytes(std::uint64_t num_bytes) { push(Kind::bytes).text = take_raw(num_bytes); }
  void push_tuple(std::vector<Ref> items) { push(Kind::tuple).items = std::move(items); }
  void push_tuple(std::size_t count);
  Ref top() const;
  Ref pop();
  void mark();
  std::vector<Ref> pop_to_mark();
  Node& node(Ref ref) { return pickle_.nodes[ref]; }
  Node& expect(Ref ref, Kind kind, const char* what);

  // ---- memo and collections ----
  void put(std::uint32_t index);
  void put_next() { put(num_memo_); }
  void get(std::uint32_t index);
  void append(Ref target, const std::vector<Ref>& items);
  void set_items(Ref target, const std::vector<Ref>& items);

  // ---- globals and calls ----
  void push_global(std::string_view module, std::string_view name);
  void push_stack_global();
  void push_storage();
  void call();
  void call_with_keywords();
  void build();

  std::span<const std::byte> bytes_;
  std::size_t at_ = 0, opcode_at_ = 0;
  Pickle pickle_;
  std::vector<Ref> stack_;
  std::vector<std::size_t> marks_;

 private:
  void expect_integers(Ref ref, const char* what);
  void push_tensor(const std::vector<Ref>& args, bool untyped);

  PickleMode mode_;
  const std::string& where_;
  const std::string& advice_;
  std::vector<std::optional<Ref>> memo_;
  std::uint32_t num_memo_ = 0;
};

}  // namespace focus::formats
