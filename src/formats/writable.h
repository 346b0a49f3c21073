// What every writer checks before it writes the first byte.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "focus/formats/tensor_file.h"

namespace focus::formats {

/// Throws DataError naming `path` when the entries cannot be written: a repeated, empty or non-UTF-8 name, a
/// bad shape, missing data.
void check_writable(const std::filesystem::path& path, const std::vector<TensorView>& tensors,
                    const std::vector<OpaqueEntry>& opaque);

/// Throws DataError when the disk that `path` lies on has less than `num_bytes` free: better now than after
/// an hour of writing.
void check_room(const std::filesystem::path& path, std::int64_t num_bytes);

/// Bytes of all tensors and entries.
std::int64_t num_bytes_of(const std::vector<TensorView>& tensors, const std::vector<OpaqueEntry>& opaque);

/// The tensors followed by the entries as one-dimensional U8 tensors; DataError where one has no bytes or is
/// not called ..._extra_state.
std::vector<TensorView> with_opaque_as_tensors(const std::filesystem::path& path,
                                               const std::vector<TensorView>& tensors,
                                               const std::vector<OpaqueEntry>& opaque);

}  // namespace focus::formats
