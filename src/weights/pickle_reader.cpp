#include "pickle_reader.h"

#include <algorithm>
#include <array>
#include <limits>
#include <optional>

#include "focus/core/error.h"
#include "little_endian.h"
#include "printable.h"

namespace focus::weights {
namespace {

using Node = PickleNode;
using Kind = PickleNode::Kind;
using Global = PickleNode::Global;
using Ref = PickleNode::Ref;

// Evo-2 40b has 795 entries of about 12 nodes each. The limits leave two orders of magnitude and cap memory near 200 MB.
constexpr std::size_t kMaxNodes = 1'000'000;
constexpr std::size_t kMaxPickleBytes = std::size_t{256} << 20;
constexpr std::size_t kMaxGlobalBytes = 512;
constexpr std::size_t kMaxKeyBytes = 64;
constexpr std::size_t kMaxRank = 64;

struct KnownGlobal {
  std::string_view module, name;
  Global global;
  DType dtype = DType::float32;
};
// `__builtin__.bytes` is how protocol 2 spells the content of an empty BytesIO.
constexpr std::array kGlobals = {
    KnownGlobal{"torch._utils", "_rebuild_tensor_v2", Global::rebuild_tensor},
    KnownGlobal{"torch._utils", "_rebuild_parameter", Global::rebuild_parameter},
    KnownGlobal{"collections", "OrderedDict", Global::ordered_dict},
    KnownGlobal{"_io", "BytesIO", Global::bytes_io},
    KnownGlobal{"_codecs", "encode", Global::encode},
    KnownGlobal{"__builtin__", "bytes", Global::bytes},
    KnownGlobal{"builtins", "bytes", Global::bytes},
    KnownGlobal{"torch", "FloatStorage", Global::storage_type, DType::float32},
    KnownGlobal{"torch", "BFloat16Storage", Global::storage_type, DType::bfloat16},
    KnownGlobal{"torch", "HalfStorage", Global::storage_type, DType::float16},
    KnownGlobal{"torch", "DoubleStorage", Global::storage_type, DType::float64},
    KnownGlobal{"torch", "LongStorage", Global::storage_type, DType::int64},
    KnownGlobal{"torch", "IntStorage", Global::storage_type, DType::int32},
    KnownGlobal{"torch", "ShortStorage", Global::storage_type, DType::int16},
    KnownGlobal{"torch", "CharStorage", Global::storage_type, DType::int8},
    KnownGlobal{"torch", "ByteStorage", Global::storage_type, DType::uint8},
    KnownGlobal{"torch", "BoolStorage", Global::storage_type, DType::boolean},
};

class Reader {
 public:
  Reader(std::span<const std::byte> bytes, const std::string& where, const std::string& advice)
      : bytes_(bytes), where_(where), advice_(advice) {}

  Pickle read() {
    if (bytes_.size() > kMaxPickleBytes) {
      fail<WeightsError>(where_, ": its pickle has ", bytes_.size(), " bytes, expected at most ", kMaxPickleBytes, " for a file of tensors");
    }
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
  template <class... Args>
  [[noreturn]] void broken(const Args&... args) const {
    fail<WeightsError>(where_, ": malformed pickle at its byte ", opcode_at_, ": ", args..., "; ", advice_);
  }

  // ---- input ----
  std::size_t left() const { return bytes_.size() - at_; }
  template <class T>
  T take() {
    if (left() < sizeof(T)) broken("it ends early");
    const T value = load_little<T>(bytes_.data() + at_);
    at_ += sizeof(T);
    return value;
  }
  std::string_view take_raw(std::uint64_t num_bytes) {
    if (num_bytes > left()) broken("it ends inside a string of ", num_bytes, " bytes");
    const std::string_view raw(reinterpret_cast<const char*>(bytes_.data()) + at_, static_cast<std::size_t>(num_bytes));
    at_ += raw.size();
    return raw;
  }
  std::string_view take_line() {
    const std::string_view rest(reinterpret_cast<const char*>(bytes_.data()) + at_, std::min(left(), kMaxGlobalBytes));
    const std::size_t length = rest.find('\n');
    if (length == std::string_view::npos) broken("a global's name has no end");
    at_ += length + 1;
    return rest.substr(0, length);
  }
  std::int64_t take_long() {
    const std::size_t length = take<std::uint8_t>();
    if (length > 8) broken("an integer of ", length, " bytes, expected at most 8");
    const std::string_view raw = take_raw(length);
    std::uint64_t value = !raw.empty() && static_cast<signed char>(raw.back()) < 0 ? ~std::uint64_t{0} : 0;
    for (std::size_t i = raw.size(); i-- > 0;) value = value << 8 | static_cast<unsigned char>(raw[i]);
    return static_cast<std::int64_t>(value);
  }

  // ---- stack ----
  void push(Ref ref) {
    if (stack_.size() >= kMaxNodes) broken("more than ", kMaxNodes, " objects on its stack");
    stack_.push_back(ref);
  }
  Node& push(Kind kind) {
    if (pickle_.nodes.size() >= kMaxNodes) broken("more than ", kMaxNodes, " objects");
    push(static_cast<Ref>(pickle_.nodes.size()));
    Node& node = pickle_.nodes.emplace_back();
    node.kind = kind;
    return node;
  }
  void push_integer(std::int64_t value) { push(Kind::integer).integer = value; }
  void push_text(std::uint64_t num_bytes) {
    const std::string_view text = take_raw(num_bytes);
    if (!is_utf8(text)) broken("a text is not UTF-8");
    push(Kind::text).text = text;
  }
  void push_bytes(std::uint64_t num_bytes) { push(Kind::bytes).text = take_raw(num_bytes); }

  /// Objects below the last mark belong to an enclosing collection and must not be reached.
  std::size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
  Ref top() const {
    if (stack_.size() <= floor()) broken("an operation on an empty stack");
    return stack_.back();
  }
  Ref pop() {
    const Ref ref = top();
    stack_.pop_back();
    return ref;
  }
  std::vector<Ref> pop_to_mark() {
    if (marks_.empty()) broken("a collection without a beginning");
    const auto first = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
    std::vector<Ref> items(first, stack_.end());
    stack_.erase(first, stack_.end());
    marks_.pop_back();
    return items;
  }
  Node& node(Ref ref) { return pickle_.nodes[ref]; }
  Node& expect(Ref ref, Kind kind, const char* what) {
    Node& found = node(ref);
    if (found.kind != kind) broken(what, " is a ", name_of(found.kind), ", expected a ", name_of(kind));
    return found;
  }
  void push_tuple(std::vector<Ref> items) { push(Kind::tuple).items = std::move(items); }
  void push_tuple(std::size_t count) {
    std::vector<Ref> items(count);
    for (std::size_t i = count; i-- > 0;) items[i] = pop();
    push_tuple(std::move(items));
  }

  void put(std::uint32_t index) {
    // Picklers number their memo in order, so an index beyond the pickle's length is no honest one.
    if (index >= bytes_.size() || index >= kMaxNodes) broken("memo index ", index, " is too large");
    if (index >= memo_.size()) memo_.resize(index + 1);
    memo_[index] = top();
    ++num_memo_;
  }
  void get(std::uint32_t index) {
    if (index >= memo_.size() || !memo_[index]) broken("memo index ", index, " was never set");
    push(*memo_[index]);
  }

  void append(Ref target, const std::vector<Ref>& items) {
    std::vector<Ref>& list = expect(target, Kind::list, "the target of an append").items;
    list.insert(list.end(), items.begin(), items.end());
  }
  void set_items(Ref target, const std::vector<Ref>& items) {
    if (items.size() % 2 != 0) broken("a dict key without a value");
    std::vector<Ref>& dict = expect(target, Kind::dict, "the target of an assignment").items;
    dict.insert(dict.end(), items.begin(), items.end());
  }

  // ---- globals and calls ----
  void push_global(std::string_view module, std::string_view name) {
    for (const KnownGlobal& known : kGlobals) {
      if (known.module != module || known.name != name) continue;
      Node& global = push(Kind::global);
      global.global = known.global;
      global.dtype = known.dtype;
      return;
    }
    if (module == "torch" && name.ends_with("Storage")) {
      fail<WeightsError>(where_, ": it holds tensors of the unsupported type ", printable(concat(module, ".", name)),
                         "; convert them to one of F32 BF16 F16 F64 I64 I32 I16 I8 U8 BOOL and save the file again");
    }
    fail<WeightsError>(where_, ": refused: its pickle asks for the global ", printable(concat(module, ".", name)),
                       ", which no file of tensors needs; nothing was executed. Do not load this file with a plain Python unpickler; get it from a "
                       "trusted source, or save only its state dict");
  }
  void push_stack_global() {
    const Ref name = pop(), module = pop();
    const std::string_view name_text = expect(name, Kind::text, "a global's name").text;
    push_global(expect(module, Kind::text, "a global's module").text.substr(0, kMaxGlobalBytes), name_text.substr(0, kMaxGlobalBytes));
  }

  void push_storage() {
    const std::vector<Ref>& id = expect(pop(), Kind::tuple, "a persistent id").items;
    if (id.size() != 5) broken("a persistent id of ", id.size(), " members, expected 5");
    if (expect(id[0], Kind::text, "a persistent id's tag").text != "storage") broken("a persistent id that is no storage");
    const Node& type = expect(id[1], Kind::global, "a storage's type");
    if (type.global != Global::storage_type) broken("a storage's type is no storage type");
    const std::string_view key = expect(id[2], Kind::text, "a storage's key").text;
    if (key.empty() || key.size() > kMaxKeyBytes) broken("a storage key of ", key.size(), " bytes");
    const std::int64_t count = expect(id[4], Kind::integer, "a storage's size").integer;
    if (count < 0) broken("storage ", printable(key), " of negative size ", count);
    const DType dtype = type.dtype;
    Node& storage = push(Kind::storage);
    storage.dtype = dtype;
    storage.text = key;
    storage.integer = count;
  }

  void expect_integers(Ref ref, const char* what) {
    // Bounded, because many tensors may refer to one tuple.
    const std::vector<Ref>& items = expect(ref, Kind::tuple, what).items;
    if (items.size() > kMaxRank) broken(what, " of ", items.size(), " members, expected at most ", kMaxRank);
    for (const Ref item : items) expect(item, Kind::integer, what);
  }
  void push_tensor(const std::vector<Ref>& args) {
    if (args.size() != 6 && args.size() != 7) broken("_rebuild_tensor_v2 with ", args.size(), " arguments, expected 6 or 7");
    expect(args[0], Kind::storage, "a tensor's storage");
    const std::int64_t offset = expect(args[1], Kind::integer, "a tensor's offset").integer;
    expect_integers(args[2], "a tensor's shape");
    expect_integers(args[3], "a tensor's strides");
    // The seventh argument holds lazy conjugation and negation bits, which would change the values.
    if (args.size() == 7 && node(args[6]).kind != Kind::none && !(node(args[6]).kind == Kind::dict && node(args[6]).items.empty())) {
      fail<WeightsError>(where_, ": a tensor carries lazy conjugation or negation bits; save it again after .resolve_neg().resolve_conj()");
    }
    // Copied first: pushing a node may move the one that holds the arguments.
    std::vector<Ref> items = {args[0], args[2], args[3]};
    Node& tensor = push(Kind::tensor);
    tensor.integer = offset;
    tensor.items = std::move(items);
  }

  void call() {
    const Ref arguments = pop();
    const Global global = expect(pop(), Kind::global, "a called object").global;
    const std::vector<Ref>& args = expect(arguments, Kind::tuple, "a call's arguments").items;
    switch (global) {
      case Global::rebuild_tensor:
        return push_tensor(args);
      case Global::rebuild_parameter:
        if (args.size() != 3) broken("_rebuild_parameter with ", args.size(), " arguments, expected 3");
        expect(args[0], Kind::tensor, "a parameter's data");
        return push(args[0]);
      case Global::ordered_dict:
        if (!args.empty()) broken("OrderedDict with ", args.size(), " arguments, expected none");
        push(Kind::dict);
        return;
      case Global::bytes_io:
        if (args.size() > 1) broken("BytesIO with ", args.size(), " arguments, expected at most 1");
        if (!args.empty()) expect(args[0], Kind::bytes, "the content of a BytesIO");
        push(Kind::byte_stream);
        return;
      case Global::bytes:
        if (!args.empty()) broken("bytes with ", args.size(), " arguments, expected none");
        push(Kind::bytes);
        return;
      case Global::encode:
        // The content of opaque entries is never looked at, so the text stays as it is.
        if (args.size() != 2) broken("_codecs.encode with ", args.size(), " arguments, expected 2");
        expect(args[0], Kind::text, "the argument of _codecs.encode");
        if (expect(args[1], Kind::text, "an encoding").text != "latin1") broken("_codecs.encode to something else than latin1");
        push(Kind::bytes);
        return;
      case Global::storage_type:
        break;
    }
    broken("a storage type is called");
  }

  void build() {
    const Ref state_ref = pop();
    const Node& state = node(state_ref);
    const Node& target = node(top());
    // An OrderedDict's state are attributes such as a state dict's _metadata (versions of modules); they hold no tensor.
    if (target.kind == Kind::dict && (state.kind == Kind::dict || state.kind == Kind::tuple)) return;
    if (target.kind != Kind::byte_stream) broken("a state is set on a ", name_of(target.kind));
    const std::vector<Ref>& items = expect(state_ref, Kind::tuple, "the state of a BytesIO").items;
    if (items.size() != 3) broken("a BytesIO state of ", items.size(), " members, expected 3");
    expect(items[0], Kind::bytes, "the content of a BytesIO");
    expect(items[1], Kind::integer, "the position of a BytesIO");
  }

  bool step();

  std::span<const std::byte> bytes_;
  const std::string& where_;
  const std::string& advice_;
  std::size_t at_ = 0, opcode_at_ = 0;
  Pickle pickle_;
  std::vector<Ref> stack_;
  std::vector<std::size_t> marks_;
  std::vector<std::optional<Ref>> memo_;
  std::uint32_t num_memo_ = 0;
};

/// One opcode; false after STOP. Letters and numbers are those of Python's pickletools.
bool Reader::step() {
  opcode_at_ = at_;
  const auto opcode = take<std::uint8_t>();
  switch (opcode) {
    case '.': return false;
    case '(':
      if (marks_.size() >= kMaxNodes) broken("more than ", kMaxNodes, " open collections");
      marks_.push_back(stack_.size());
      break;
    case 'N': push(Kind::none); break;
    case 0x88: push(Kind::boolean).integer = 1; break;
    case 0x89: push(Kind::boolean).integer = 0; break;
    case 'K': push_integer(take<std::uint8_t>()); break;
    case 'M': push_integer(take<std::uint16_t>()); break;
    case 'J': push_integer(take<std::int32_t>()); break;
    case 0x8a: push_integer(take_long()); break;
    case 'G': take<std::uint64_t>(); push(Kind::real); break;
    case 'X': push_text(take<std::uint32_t>()); break;
    case 0x8c: push_text(take<std::uint8_t>()); break;
    case 0x8d: push_text(take<std::uint64_t>()); break;
    case 'B': push_bytes(take<std::uint32_t>()); break;
    case 'C': push_bytes(take<std::uint8_t>()); break;
    case 0x8e: push_bytes(take<std::uint64_t>()); break;
    case '}': push(Kind::dict); break;
    case ']': push(Kind::list); break;
    case ')': push(Kind::tuple); break;
    case 't': push_tuple(pop_to_mark()); break;
    case 0x85: push_tuple(std::size_t{1}); break;
    case 0x86: push_tuple(std::size_t{2}); break;
    case 0x87: push_tuple(std::size_t{3}); break;
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
    case 'q': put(take<std::uint8_t>()); break;
    case 'r': put(take<std::uint32_t>()); break;
    case 0x94: put(num_memo_); break;
    case 'h': get(take<std::uint8_t>()); break;
    case 'j': get(take<std::uint32_t>()); break;
    case 'c': {
      const std::string_view module = take_line();
      push_global(module, take_line());
      break;
    }
    case 0x93: push_stack_global(); break;
    case 'R':
    case 0x81: call(); break;
    case 'b': build(); break;
    case 'Q': push_storage(); break;
    case 0x95: take<std::uint64_t>(); break;  // a frame only groups opcodes
    default: broken("opcode ", static_cast<int>(opcode), " is not one that files of tensors use; nothing was executed");
  }
  return true;
}

}  // namespace

const char* name_of(PickleNode::Kind kind) {
  switch (kind) {
    case Kind::none: return "None";
    case Kind::boolean: return "bool";
    case Kind::integer: return "int";
    case Kind::real: return "float";
    case Kind::text: return "str";
    case Kind::bytes: return "bytes";
    case Kind::tuple: return "tuple";
    case Kind::list: return "list";
    case Kind::dict: return "dict";
    case Kind::global: return "global";
    case Kind::storage: return "storage";
    case Kind::tensor: return "tensor";
    case Kind::byte_stream: return "BytesIO";
  }
  return "?";
}

Pickle read_pickle(std::span<const std::byte> bytes, const std::string& where, const std::string& advice) {
  return Reader(bytes, where, advice).read();
}

}  // namespace focus::weights
