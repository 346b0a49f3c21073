// What a pickle may name and call, and what comes of it: always a node, never an execution.
#include <array>

#include "pickle_machine.h"

namespace focus::formats {
namespace {

using Global = PickleNode::Global;

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
    KnownGlobal{"torch._utils", "_rebuild_tensor_v3", Global::rebuild_untyped_tensor},
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
    // Types younger than the storage classes: the tensor names its dtype, over a storage of plain bytes.
    KnownGlobal{"torch.storage", "UntypedStorage", Global::untyped_storage, DType::uint8},
    KnownGlobal{"torch", "float8_e4m3fn", Global::dtype, DType::float8_e4m3},
    KnownGlobal{"torch", "float8_e5m2", Global::dtype, DType::float8_e5m2},
};

/// Names of tensor types that exist in torch, known here or not.
bool names_a_type(std::string_view module, std::string_view name) {
  if (module != "torch") return false;
  if (name.ends_with("Storage")) return true;
  for (const std::string_view start : {"float", "uint", "int", "complex", "bits", "qint", "quint"}) {
    if (name.starts_with(start) && name.find('.') == std::string_view::npos) return true;
  }
  return false;
}

}  // namespace

void PickleMachine::push_global(std::string_view module, std::string_view name) {
  for (const KnownGlobal& known : kGlobals) {
    if (known.module != module || known.name != name) continue;
    Node& global = push(Kind::global);
    global.global = known.global;
    global.dtype = known.dtype;
    return;
  }
  if (passive()) {
    push(Kind::global).global = Global::unknown;
    return;
  }
  if (names_a_type(module, name)) {
    fail<WeightsError>(where_, ": it holds tensors of the unsupported type ",
                       printable(concat(module, ".", name)),
                       "; convert them to one of F32 BF16 F16 F64 I64 I32 I16 I8 U8 BOOL F8_E4M3 F8_E5M2 and "
                       "save the file again");
  }
  fail<WeightsError>(where_, ": refused: its pickle asks for the global ",
                     printable(concat(module, ".", name)),
                     ", which no file of tensors needs; nothing was executed. Do not load this file with a "
                     "plain Python unpickler; get it from a "
                     "trusted source, or save only its state dict");
}

void PickleMachine::push_stack_global() {
  const Ref name = pop(), module = pop();
  const std::string_view name_text = expect(name, Kind::text, "a global's name").text;
  push_global(expect(module, Kind::text, "a global's module").text.substr(0, kMaxGlobalBytes),
              name_text.substr(0, kMaxGlobalBytes));
}

void PickleMachine::push_storage() {
  const std::vector<Ref>& id = expect(pop(), Kind::tuple, "a persistent id").items;
  if (id.size() != 5) broken("a persistent id of ", id.size(), " members, expected 5");
  if (expect(id[0], Kind::text, "a persistent id's tag").text != "storage")
    broken("a persistent id that is no storage");
  const Node& type = expect(id[1], Kind::global, "a storage's type");
  if (type.global == Global::unknown) {
    push(Kind::object);
    return;
  }
  const bool untyped = type.global == Global::untyped_storage;
  if (type.global != Global::storage_type && !untyped) broken("a storage's type is no storage type");
  const std::string_view key = expect(id[2], Kind::text, "a storage's key").text;
  if (key.empty() || key.size() > kMaxKeyBytes) broken("a storage key of ", key.size(), " bytes");
  const std::int64_t count = expect(id[4], Kind::integer, "a storage's size").integer;
  if (count < 0) broken("storage ", printable(key), " of negative size ", count);
  const DType dtype = type.dtype;
  Node& storage = push(Kind::storage);
  storage.dtype = dtype;
  storage.untyped = untyped;
  storage.text = key;
  storage.integer = count;
}

void PickleMachine::expect_integers(Ref ref, const char* what) {
  // Bounded, because many tensors may refer to one tuple.
  const std::vector<Ref>& items = expect(ref, Kind::tuple, what).items;
  if (items.size() > kMaxRank) broken(what, " of ", items.size(), " members, expected at most ", kMaxRank);
  for (const Ref item : items) expect(item, Kind::integer, what);
}

void PickleMachine::push_tensor(const std::vector<Ref>& args, bool untyped) {
  const char* function = untyped ? "_rebuild_tensor_v3" : "_rebuild_tensor_v2";
  const std::size_t num_plain = untyped ? 7 : 6;
  if (args.size() != num_plain && args.size() != num_plain + 1)
    broken(function, " with ", args.size(), " arguments, expected ", num_plain, " or ", num_plain + 1);
  if (node(args[0]).kind == Kind::object) {
    push(Kind::object);
    return;
  }
  const Node& storage = expect(args[0], Kind::storage, "a tensor's storage");
  if (storage.untyped != untyped)
    broken(function, " with a storage ", untyped ? "of a type" : "without a type");
  DType dtype = storage.dtype;
  if (untyped) {
    const Node& type = expect(args[6], Kind::global, "a tensor's dtype");
    if (type.global == Global::unknown) {
      push(Kind::object);
      return;
    }
    if (type.global != Global::dtype) broken("a tensor's dtype is no dtype");
    dtype = type.dtype;
  }
  const std::int64_t offset = expect(args[1], Kind::integer, "a tensor's offset").integer;
  expect_integers(args[2], "a tensor's shape");
  expect_integers(args[3], "a tensor's strides");
  // One more argument holds lazy conjugation and negation bits, which would change the values.
  if (args.size() > num_plain) {
    const Node& bits = node(args[num_plain]);
    if (bits.kind != Kind::none && !(bits.kind == Kind::dict && bits.items.empty())) {
      fail<WeightsError>(where_,
                         ": a tensor carries lazy conjugation or negation bits; save it again after "
                         ".resolve_neg().resolve_conj()");
    }
  }
  // Copied first: pushing a node may move the one that holds the arguments.
  std::vector<Ref> items = {args[0], args[2], args[3]};
  Node& tensor = push(Kind::tensor);
  tensor.dtype = dtype;
  tensor.integer = offset;
  tensor.items = std::move(items);
}

void PickleMachine::call() {
  const Ref arguments = pop();
  const Ref callee = pop();
  if (node(callee).kind == Kind::object ||
      (node(callee).kind == Kind::global && node(callee).global == Global::unknown)) {
    expect(arguments, Kind::tuple, "a call's arguments");
    push(Kind::object);
    return;
  }
  const Global global = expect(callee, Kind::global, "a called object").global;
  const std::vector<Ref>& args = expect(arguments, Kind::tuple, "a call's arguments").items;
  switch (global) {
    case Global::rebuild_tensor:
    case Global::rebuild_untyped_tensor:
      return push_tensor(args, global == Global::rebuild_untyped_tensor);
    case Global::rebuild_parameter:
      if (args.size() != 3) broken("_rebuild_parameter with ", args.size(), " arguments, expected 3");
      expect(args[0], Kind::tensor, "a parameter's data");
      return push(args[0]);
    case Global::ordered_dict:
      if (!args.empty()) broken("OrderedDict with ", args.size(), " arguments, expected none");
      push(Kind::dict);
      return;
    case Global::bytes_io: {
      if (args.size() > 1) broken("BytesIO with ", args.size(), " arguments, expected at most 1");
      if (!args.empty()) expect(args[0], Kind::bytes, "the content of a BytesIO");
      std::vector<Ref> content = args;
      push(Kind::byte_stream).items = std::move(content);
      return;
    }
    case Global::bytes:
      if (!args.empty()) broken("bytes with ", args.size(), " arguments, expected none");
      push(Kind::bytes);
      return;
    case Global::encode: {
      if (args.size() != 2) broken("_codecs.encode with ", args.size(), " arguments, expected 2");
      const std::string_view text = expect(args[0], Kind::text, "the argument of _codecs.encode").text;
      if (expect(args[1], Kind::text, "an encoding").text != "latin1")
        broken("_codecs.encode to something else than latin1");
      Node& bytes = push(Kind::bytes);
      bytes.text = text;
      bytes.latin1 = true;
      return;
    }
    case Global::storage_type:
    case Global::untyped_storage:
      broken("a storage type is called");
    case Global::dtype:
      broken("a dtype is called");
    case Global::unknown:
      break;
  }
  fail<InternalError>("an unknown global reached a call");
}

void PickleMachine::call_with_keywords() {
  expect(pop(), Kind::dict, "a call's keyword arguments");
  const Ref arguments = pop();
  expect(arguments, Kind::tuple, "a call's arguments");
  expect(pop(), Kind::global, "a called class");
  push(Kind::object);
}

void PickleMachine::build() {
  const Ref state_ref = pop();
  const Ref target_ref = top();
  if (node(target_ref).kind == Kind::object) return;
  const Node& state = node(state_ref);
  // An OrderedDict's state are attributes such as a state dict's _metadata (versions of modules); they hold
  // no tensor.
  if (node(target_ref).kind == Kind::dict && (state.kind == Kind::dict || state.kind == Kind::tuple)) return;
  if (node(target_ref).kind != Kind::byte_stream)
    broken("a state is set on a ", name_of(node(target_ref).kind));
  const std::vector<Ref>& items = expect(state_ref, Kind::tuple, "the state of a BytesIO").items;
  if (items.size() != 3) broken("a BytesIO state of ", items.size(), " members, expected 3");
  expect(items[0], Kind::bytes, "the content of a BytesIO");
  expect(items[1], Kind::integer, "the position of a BytesIO");
  node(target_ref).items.assign(1, items[0]);
}

}  // namespace focus::formats
