// The table of a scoring, which may take hours.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "table.h"

namespace focus::cli {

/// Rows are written as they are done: to standard output, a device or a pipe, or to FILE.part, which takes
/// the name FILE in commit(). Without commit() the part stays where it has rows, and the next run can go on
/// from it. DataError where it cannot be written, or another run writes it now.
class ScoreTable {
 public:
  /// `resume`: keep the rows of FILE.part, or else of FILE. ConfigError: there is no file to keep them in.
  ScoreTable(const std::string& path, bool resume);
  ~ScoreTable();
  ScoreTable(const ScoreTable&) = delete;
  ScoreTable& operator=(const ScoreTable&) = delete;

  /// The lines above the rows, each "##key=value" or the names of the columns. ConfigError: the rows to be
  /// kept stand below other ones,
  /// "##command" apart.
  void begin(const std::vector<std::string>& head);
  /// Whether the next row is there already; it begins with `key` and ends with `end`. ConfigError: it is
  /// another.
  bool has(const std::string& key, const std::string& end);
  void write(const std::string& row);
  /// ConfigError: rows are left that has() was not asked for.
  void commit();

 private:
  void append(const std::string& text);

  std::optional<Table> direct_;
  std::filesystem::path path_, part_;
  int fd_ = -1;
  bool kept_in_part_ = false;
  std::string kept_;  // text of an earlier run
  std::vector<std::string> rows_;
  std::size_t next_ = 0;  // of rows_
  int64_t written_ = 0;   // rows
};

}  // namespace focus::cli
