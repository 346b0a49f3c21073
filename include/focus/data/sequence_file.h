// Files of named sequences from which any slice can be read.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace focus::data {

/// Bases [begin, end) of a record, 0-based.
struct Region {
  std::string name;
  int64_t begin = 0;
  int64_t end = 0;

  int64_t length() const { return end - begin; }
  bool operator==(const Region&) const = default;
};

/// What FASTA files and token stores have in common: records with unique names and at least one base. fetch()
/// may be called from several threads.
class SequenceFile {
 public:
  virtual ~SequenceFile() = default;

  const std::filesystem::path& path() const { return path_; }
  /// Record names in file order.
  const std::vector<std::string>& names() const { return names_; }
  bool contains(std::string_view name) const { return lengths_.count(std::string(name)) != 0; }
  /// Bases of a record; DataError with the nearest known name when there is no such record.
  int64_t length(std::string_view name) const;
  /// Bases of all records together.
  int64_t total_length() const { return total_length_; }
  /// Bases [begin, end) of a record, 0-based, letters as in the file (case kept). begin == end gives "".
  /// DataError when the record is unknown or the range leaves it.
  std::string fetch(std::string_view name, int64_t begin, int64_t end) const;
  /// A whole record.
  std::string fetch(std::string_view name) const { return fetch(name, 0, length(name)); }
  /// What of the records is in the file, in file order: by default all of each.
  virtual std::vector<Region> held() const;
  /// The file that a record lies in: path(), or one of that folder's.
  virtual std::filesystem::path file_of(const std::string&) const { return path_; }
  /// Bases that are in memory, and whether all are.
  virtual int64_t held_bases() const { return 0; }
  bool in_memory() const { return held_bases() == total_length_; }

 protected:
  explicit SequenceFile(std::filesystem::path path) : path_(std::move(path)) {}
  SequenceFile(SequenceFile&&) = default;
  SequenceFile& operator=(SequenceFile&&) = default;
  void add_record(const std::string& name, int64_t length);

 private:
  /// fetch() after its checks: the record is known, the range lies in it and is not empty.
  virtual std::string read(const std::string& name, int64_t begin, int64_t end) const = 0;

  std::filesystem::path path_;
  std::vector<std::string> names_;
  std::unordered_map<std::string, int64_t> lengths_;
  int64_t total_length_ = 0;
};

/// The entry of `known` nearest to `name`, counting edits and ignoring case; names that differ only by a
/// leading "chr" come first.
/// "" when nothing is near. For error messages.
std::string nearest_name(std::string_view name, const std::vector<std::string>& known);

}  // namespace focus::data
