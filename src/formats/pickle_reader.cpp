// The opcodes. Letters and numbers are those of Python's pickletools.
#include "pickle_reader.h"

#include "pickle_machine.h"

namespace focus::formats {
namespace {

constexpr std::size_t kMaxPickleBytes = std::size_t{256} << 20;

class PickleReader : private PickleMachine {
 public:
  using PickleMachine::PickleMachine;

  Pickle read() {
    if (bytes_.size() > kMaxPickleBytes)
      broken("it has ", bytes_.size(), " bytes, expected at most ", kMaxPickleBytes,
             " for a file of tensors");
    if (take<std::uint8_t>() != 0x80) broken("it does not begin with a protocol number");
    const int protocol = take<std::uint8_t>();
    if (protocol < 2 || protocol > 5) broken("protocol ", protocol, ", expected 2 to 5");
    while (step()) {
    }
    if (stack_.size() != 1 || !marks_.empty()) broken("it ends with ", stack_.size(), " objects, expected 1");
    pickle_.root = stack_.front();
    return std::move(pickle_);
  }

 private:
  bool step();
  bool step_passive(std::uint8_t opcode);
};

/// One opcode; false after STOP.
bool PickleReader::step() {
  opcode_at_ = at_;
  const auto opcode = take<std::uint8_t>();
  switch (opcode) {
    case '.':
      return false;
    case '(':
      mark();
      break;
    case 'N':
      push(Kind::none);
      break;
    case 0x88:
      push(Kind::boolean).integer = 1;
      break;
    case 0x89:
      push(Kind::boolean).integer = 0;
      break;
    case 'K':
      push_integer(take<std::uint8_t>());
      break;
    case 'M':
      push_integer(take<std::uint16_t>());
      break;
    case 'J':
      push_integer(take<std::int32_t>());
      break;
    case 0x8a:
      push_long(take<std::uint8_t>());
      break;
    case 'G':
      take<std::uint64_t>();
      push(Kind::real);
      break;
    case 'X':
      push_text(take<std::uint32_t>());
      break;
    case 0x8c:
      push_text(take<std::uint8_t>());
      break;
    case 0x8d:
      push_text(take<std::uint64_t>());
      break;
    case 'B':
      push_bytes(take<std::uint32_t>());
      break;
    case 'C':
      push_bytes(take<std::uint8_t>());
      break;
    case 0x8e:
      push_bytes(take<std::uint64_t>());
      break;
    case '}':
      push(Kind::dict);
      break;
    case ']':
      push(Kind::list);
      break;
    case ')':
      push(Kind::tuple);
      break;
    case 't':
      push_tuple(pop_to_mark());
      break;
    case 0x85:
      push_tuple(std::size_t{1});
      break;
    case 0x86:
      push_tuple(std::size_t{2});
      break;
    case 0x87:
      push_tuple(std::size_t{3});
      break;
    case 'a': {
      const Ref item = pop();
      append(top(), {item});
      break;
    }
    case 'e': {
      const std::vector<Ref> items = pop_to_mark();
      append(top(), items);
      break;
    }
    case 's': {
      const Ref value = pop(), key = pop();
      set_items(top(), {key, value});
      break;
    }
    case 'u': {
      const std::vector<Ref> items = pop_to_mark();
      set_items(top(), items);
      break;
    }
    case 'q':
      put(take<std::uint8_t>());
      break;
    case 'r':
      put(take<std::uint32_t>());
      break;
    case 0x94:
      put_next();
      break;
    case 'h':
      get(take<std::uint8_t>());
      break;
    case 'j':
      get(take<std::uint32_t>());
      break;
    case 'c': {
      const std::string_view module = take_line();
      push_global(module, take_line());
      break;
    }
    case 0x93:
      push_stack_global();
      break;
    case 'R':
    case 0x81:
      call();
      break;
    case 'b':
      build();
      break;
    case 'Q':
      push_storage();
      break;
    case 0x95:
      take<std::uint64_t>();
      break;  // a frame only groups opcodes
    default:
      if (passive() && step_passive(opcode)) return true;
      broken("opcode ", static_cast<int>(opcode),
             " is not one that files of tensors use; nothing was executed");
  }
  return true;
}

/// Opcodes of objects beyond tensors; false when it is none of them.
bool PickleReader::step_passive(std::uint8_t opcode) {
  switch (opcode) {
    case '0':
      pop();
      break;
    case 0x8b:
      push_long(take<std::uint32_t>());
      break;
    case 0x8f:
      push(Kind::object);
      break;
    case 0x90:
      pop_to_mark();
      expect(top(), Kind::object, "the target of an addition");
      break;
    case 0x91:
      pop_to_mark();
      push(Kind::object);
      break;
    case 0x92:
      call_with_keywords();
      break;
    default:
      return false;
  }
  return true;
}

}  // namespace

const char* name_of(PickleNode::Kind kind) {
  using Kind = PickleNode::Kind;
  switch (kind) {
    case Kind::none:
      return "None";
    case Kind::boolean:
      return "bool";
    case Kind::integer:
      return "int";
    case Kind::real:
      return "float";
    case Kind::text:
      return "str";
    case Kind::bytes:
      return "bytes";
    case Kind::tuple:
      return "tuple";
    case Kind::list:
      return "list";
    case Kind::dict:
      return "dict";
    case Kind::global:
      return "global";
    case Kind::storage:
      return "storage";
    case Kind::tensor:
      return "tensor";
    case Kind::byte_stream:
      return "BytesIO";
    case Kind::object:
      return "object";
  }
  return "?";
}

Pickle read_pickle(std::span<const std::byte> bytes, PickleMode mode, const std::string& where,
                   const std::string& advice) {
  return PickleReader(bytes, mode, where, advice).read();
}

}  // namespace focus::formats
