// Writes the pickle of a flat dict of tensors and opaque entries, protocol 2.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "focus/formats/tensor_file.h"

namespace focus::formats {

/// Nothing is memoised: a reader needs no memo, and the names dominate anyway.
class PickleWriter {
 public:
  PickleWriter() { out_ += "\x80\x02}("; }

  /// A contiguous tensor at the beginning of this storage.
  void tensor(const TensorView& tensor, std::size_t storage);
  /// A BytesIO, bytes or None.
  void opaque(const OpaqueEntry& entry);
  std::string finish() { return std::move(out_ += "u."); }

 private:
  void text(std::string_view value);
  void bytes(std::span<const std::byte> value);
  void global(std::string_view module, std::string_view name);
  void integer(std::int64_t value);

  std::string out_;
};

}  // namespace focus::formats
