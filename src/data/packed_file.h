// The bytes of a text file, whatever it is packed with.
#pragma once

#include <htslib/bgzf.h>

#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace focus::data {

/// What some editors put before the text of a UTF-8 file.
inline constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

enum class Packing { plain, gzip, bgzf };

struct BgzfClose {
  void operator()(BGZF* file) const { bgzf_close(file); }
};
using BgzfHandle = std::unique_ptr<BGZF, BgzfClose>;

/// Opens a file, or standard input for "-", through htslib, whose own messages are switched off: every
/// failure becomes an error here. DataError: missing, unreadable, a folder.
BgzfHandle open_bgzf(const std::filesystem::path& path);

/// A plain, gzip or BGZF file, or standard input, read once from front to back.
class PackedFile {
 public:
  /// "-" is standard input. DataError: as open_bgzf; BGZF without its end-of-file marker, unless it is
  /// allowed, which makes it a warning. No value: this is no file for which the user could allow it.
  explicit PackedFile(const std::filesystem::path& path, std::optional<bool> allow_truncated = std::nullopt);

  Packing packing() const { return packing_; }
  /// Whether the end-of-file marker is missing, as far as was read.
  bool is_truncated() const { return truncated_; }
  /// For messages: 'FILE' in quotes, or standard input.
  const std::string& source() const { return source_; }
  /// The next bytes, fewer than `count` only at the end. DataError: damaged, cut short (of a stream noticed
  /// only here).
  std::size_t read(char* bytes, std::size_t count);

 private:
  void missing_end_marker();

  BgzfHandle file_;
  std::string source_;
  Packing packing_ = Packing::plain;
  std::optional<bool> allow_truncated_;
  bool truncated_ = false;
};

}  // namespace focus::data
