// Sequences as JSON lines: {"text": "ACGT...", "id": "optional"}.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

namespace focus::data {

struct JsonlRecord {
  std::string name;  // "id" or "name" of the line, else the reader's prefix and "line-<number>"
  std::string text;  // letters as in the file
  int64_t line = 0;  // 1-based
};

/// Reads a JSONL file (plain or gzip) record by record. Blank lines are skipped, further keys ignored.
/// DataError names file and line: file missing or damaged, broken JSON, no "text", "text" empty or no string.
class JsonlReader {
 public:
  explicit JsonlReader(const std::filesystem::path& path, const std::string& prefix = "");
  ~JsonlReader();
  /// False at the end of the file.
  bool next(JsonlRecord& record);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace focus::data
