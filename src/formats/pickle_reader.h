// Reads the pickle of a .pt file into a passive tree. Nothing is ever executed: a global is one of a fixed
// list or an error, and calling one only builds a node. All work and memory are linear in the pickle's
// length: nodes live in one array and refer to each other by number, so neither depth nor cycles cost
// anything.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "focus/formats/tensor_file.h"

namespace focus::formats {

struct PickleNode {
  using Ref = std::uint32_t;
  enum class Kind : std::uint8_t {
    none,
    boolean,
    integer,
    real,
    text,
    bytes,
    tuple,
    list,
    dict,
    global,
    storage,
    tensor,
    byte_stream,
    object
  };
  /// The callables; storage_type and dtype come with their dtype. `unknown` exists only in passive pickles.
  enum class Global : std::uint8_t {
    rebuild_tensor,
    rebuild_untyped_tensor,
    rebuild_parameter,
    ordered_dict,
    bytes_io,
    bytes,
    encode,
    storage_type,
    untyped_storage,
    dtype,
    unknown
  };

  Kind kind = Kind::none;
  Global global = Global::bytes;
  /// Of a tensor, a typed storage or a global; an untyped storage counts in uint8.
  DType dtype = DType::float32;
  /// Bytes that the pickle holds as a text of the characters U+0000 to U+00FF.
  bool latin1 = false;
  bool untyped = false;
  /// boolean, integer: the value; storage: number of elements; tensor: offset into the storage, in elements.
  std::int64_t integer = 0;
  /// text: the value, UTF-8; bytes: the value, UTF-8 where `latin1`; both are views of the pickle. storage:
  /// its key.
  std::string_view text;
  /// tuple, list: members; dict: key, value, key, value, ...; tensor: storage, tuple of sizes, tuple of
  /// strides; byte_stream: its bytes, once set.
  std::vector<Ref> items;
};

struct Pickle {
  std::vector<PickleNode> nodes;
  PickleNode::Ref root = 0;
  const PickleNode& operator[](PickleNode::Ref ref) const { return nodes[ref]; }
};

/// strict: files of tensors, where a global outside the list is an error. passive: any global and any call of
/// one is accepted and becomes an `object`: nothing is known of it and nothing happens, for files whose other
/// content is of no interest.
enum class PickleMode { strict, passive };

/// What a node is, for messages: "dict", "int", ...
const char* name_of(PickleNode::Kind kind);

/// `where` names the file in messages, `advice` ends those about damage. Keeps views into `bytes`. Throws
/// WeightsError.
Pickle read_pickle(std::span<const std::byte> bytes, PickleMode mode, const std::string& where,
                   const std::string& advice);

}  // namespace focus::formats
