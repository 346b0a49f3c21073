// The machine's input, stack, memo and collections.
#include <algorithm>

#include "pickle_machine.h"

namespace focus::formats {

std::string_view PickleMachine::take_raw(std::uint64_t num_bytes) {
  if (num_bytes > left()) broken("it ends inside a string of ", num_bytes, " bytes");
  const std::string_view raw(reinterpret_cast<const char*>(bytes_.data()) + at_,
                             static_cast<std::size_t>(num_bytes));
  at_ += raw.size();
  return raw;
}

std::string_view PickleMachine::take_line() {
  const std::string_view rest(reinterpret_cast<const char*>(bytes_.data()) + at_,
                              std::min(left(), kMaxGlobalBytes));
  const std::size_t length = rest.find('\n');
  if (length == std::string_view::npos) broken("a global's name has no end");
  at_ += length + 1;
  return rest.substr(0, length);
}

void PickleMachine::push(Ref ref) {
  if (stack_.size() >= kMaxNodes) broken("more than ", kMaxNodes, " objects on its stack");
  stack_.push_back(ref);
}

PickleNode& PickleMachine::push(Kind kind) {
  if (pickle_.nodes.size() >= kMaxNodes) broken("more than ", kMaxNodes, " objects");
  push(static_cast<Ref>(pickle_.nodes.size()));
  Node& node = pickle_.nodes.emplace_back();
  node.kind = kind;
  return node;
}

void PickleMachine::push_text(std::uint64_t num_bytes) {
  const std::string_view text = take_raw(num_bytes);
  if (!is_utf8(text)) broken("a text is not UTF-8");
  push(Kind::text).text = text;
}

void PickleMachine::push_long(std::size_t num_bytes) {
  if (num_bytes > 8 && !passive()) broken("an integer of ", num_bytes, " bytes, expected at most 8");
  const std::string_view raw = take_raw(num_bytes);
  if (num_bytes > 8) {
    push(Kind::object);
    return;
  }
  std::uint64_t value = !raw.empty() && static_cast<signed char>(raw.back()) < 0 ? ~std::uint64_t{0} : 0;
  for (std::size_t i = raw.size(); i-- > 0;) value = value << 8 | static_cast<unsigned char>(raw[i]);
  push_integer(static_cast<std::int64_t>(value));
}

void PickleMachine::push_tuple(std::size_t count) {
  std::vector<Ref> items(count);
  for (std::size_t i = count; i-- > 0;) items[i] = pop();
  push_tuple(std::move(items));
}

PickleNode::Ref PickleMachine::top() const {
  // Objects below the last mark belong to an enclosing collection and must not be reached.
  if (stack_.size() <= (marks_.empty() ? 0 : marks_.back())) broken("an operation on an empty stack");
  return stack_.back();
}

PickleNode::Ref PickleMachine::pop() {
  const Ref ref = top();
  stack_.pop_back();
  return ref;
}

void PickleMachine::mark() {
  if (marks_.size() >= kMaxNodes) broken("more than ", kMaxNodes, " open collections");
  marks_.push_back(stack_.size());
}

std::vector<PickleNode::Ref> PickleMachine::pop_to_mark() {
  if (marks_.empty()) broken("a collection without a beginning");
  const auto first = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
  std::vector<Ref> items(first, stack_.end());
  stack_.erase(first, stack_.end());
  marks_.pop_back();
  return items;
}

PickleNode& PickleMachine::expect(Ref ref, Kind kind, const char* what) {
  Node& found = node(ref);
  if (found.kind != kind) broken(what, " is a ", name_of(found.kind), ", expected a ", name_of(kind));
  return found;
}

void PickleMachine::put(std::uint32_t index) {
  // Picklers number their memo in order, so an index beyond the pickle's length is no honest one.
  if (index >= bytes_.size() || index >= kMaxNodes) broken("memo index ", index, " is too large");
  if (index >= memo_.size()) memo_.resize(index + 1);
  memo_[index] = top();
  ++num_memo_;
}

void PickleMachine::get(std::uint32_t index) {
  if (index >= memo_.size() || !memo_[index]) broken("memo index ", index, " was never set");
  push(*memo_[index]);
}

void PickleMachine::append(Ref target, const std::vector<Ref>& items) {
  if (node(target).kind == Kind::object) return;
  std::vector<Ref>& list = expect(target, Kind::list, "the target of an append").items;
  list.insert(list.end(), items.begin(), items.end());
}

void PickleMachine::set_items(Ref target, const std::vector<Ref>& items) {
  if (items.size() % 2 != 0) broken("a dict key without a value");
  if (node(target).kind == Kind::object) return;
  std::vector<Ref>& dict = expect(target, Kind::dict, "the target of an assignment").items;
  dict.insert(dict.end(), items.begin(), items.end());
}

}  // namespace focus::formats
