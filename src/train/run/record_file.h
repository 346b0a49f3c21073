// A log that outlives a kill: it grows by whole records.
#pragma once

#include <filesystem>
#include <string_view>

namespace focus::train {

class RecordFile {
 public:
  /// A file that holds `begin` and is appended to. DataError, as in all that follows.
  RecordFile(std::filesystem::path path, std::string_view begin);
  ~RecordFile();
  RecordFile(const RecordFile&) = delete;
  RecordFile& operator=(const RecordFile&) = delete;

  /// In one write call where the system allows it, so that another reader of the file sees whole records. The
  /// record has left the process on return.
  void append(std::string_view record);
  /// Waits for the disk.
  void sync();

 private:
  std::filesystem::path path_;
  int fd_;
};

}  // namespace focus::train
