// What must hold for any bytes at all that a reader of tensor files is given.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>

#include "file_bytes.h"
#include "focus/formats/tensor_file.h"

namespace focus::formats::fuzz {

using Reader = std::function<std::shared_ptr<TensorFile>(std::unique_ptr<FileBytes>)>;

/// Reads the input whole, and again in pieces cut at places that depend on it. Both must give a WeightsError
/// or the same file, whose views lie in the input or in memory of their own that together is no larger; now
/// and then the file is also written in both formats and read back. Ends the process where that does not
/// hold.
void check_reader(std::span<const std::byte> input, const Reader& reader);

}  // namespace focus::formats::fuzz
