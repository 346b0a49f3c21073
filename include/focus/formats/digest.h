// What identifies a file of tensors.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "focus/formats/tensor_file.h"

namespace focus::formats {

/// Digest of names, dtypes, shapes and bytes (SHA-256, hex) in name order: equal for the same tensors in
/// either format. Hashed for each tensor, integers as 8 little-endian bytes: length of name, name, length of
/// dtype, name_of(dtype), rank, every dimension, bytes. Reads everything: minutes for a large checkpoint.
std::string digest(const TensorFile& file);
/// The same of tensors in memory and, where it is not empty, of metadata: then the text "metadata", and each
/// key and value in key order, both with their lengths, are hashed behind the tensors.
std::string digest(const std::vector<TensorView>& tensors,
                   const std::map<std::string, std::string>& metadata = {});
/// A fast identity (SHA-256, hex) that reads at most 64 KiB of each tensor, so that a large model opens in
/// seconds. Equal for the same content in any container. A change between the sampled bytes goes unseen: it
/// tells models apart, it does not prove that a file is whole. Hashed, integers as 8 little-endian bytes: the
/// text "focus fingerprint 1"; then for each tensor in name order what digest() hashes, but of more than
/// 65,536 bytes (n of them) only the first 16,384, then 4,096 from each 16,384 + i * floor((n - 36,864) / 7),
/// i = 0 ... 7, then the last 16,384; then the opaque entries that have bytes in name order, each as a tensor
/// of dtype "opaque", rank 1 and n.
std::string fingerprint(const TensorFile& file);
/// SHA-256 of a file's bytes, hex.
std::string file_digest(const std::filesystem::path& path);

}  // namespace focus::formats
