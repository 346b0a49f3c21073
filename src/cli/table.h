// The table a program writes.
#pragma once

#include <iostream>
#include <optional>
#include <string>

#include "focus/core/error.h"
#include "focus/core/file.h"

namespace focus::cli {

/// Rows go to a file that appears when all are there, or to standard output one by one.
class Table {
 public:
  explicit Table(const std::string& path) {
    if (path != "-") file_.emplace(path);
  }
  void write(const std::string& text) {
    if (file_) return file_->write(text);
    std::cout << text << std::flush;
    if (!std::cout) fail<DataError>("cannot write to standard output: is the disk full?");
  }
  void commit() {
    if (file_) file_->commit();
  }

 private:
  std::optional<AtomicFile> file_;
};

}  // namespace focus::cli
