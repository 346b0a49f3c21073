// Logits of whole records, written as they are computed.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "focus/core/file.h"
#include "focus/formats/safetensors_writer.h"

namespace focus::cli {

/// A safetensors file with one fp32 tensor [length, vocabulary] for each record. Memory does not grow with
/// the records. The file appears whole or not at all, with commit(). DataError where it cannot be written.
class LogitsFile {
 public:
  struct Record {
    std::string name;
    int64_t length = 0;
  };
  /// `records`: all that will come, where that is known: they are written in place. Otherwise rows lie in a
  /// second file until commit().
  LogitsFile(std::string path, std::map<std::string, std::string> about, int64_t vocabulary,
             const std::optional<std::vector<Record>>& records);
  /// The next record begins; its name is new.
  void begin(const Record& record);
  /// Its next rows, [L, vocabulary] fp32, contiguous, on the CPU.
  void write(const at::Tensor& rows);
  void commit();

 private:
  formats::TensorView view(const Record& record) const;

  std::string path_;
  std::map<std::string, std::string> about_;
  int64_t vocabulary_;
  std::optional<formats::SafetensorsStream> stream_;
  std::optional<AtomicFile> rows_;
  std::vector<formats::TensorView> tensors_;  // of the records so far; their data are in rows_
};

}  // namespace focus::cli
