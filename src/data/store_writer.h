// Writes the HDF5 layout that TokenStore describes.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "data/hdf5_handle.h"
#include "focus/core/file.h"
#include "focus/data/token_store.h"

namespace focus::data {

inline constexpr char kStoreFormat[] = "focus token store";
inline constexpr int64_t kStoreVersion = 1;

struct StoreIndex {
  std::vector<std::string> names;
  std::vector<int64_t> lengths;
  std::vector<int64_t> record, begin, end, offset;  // of each stretch; record is a place in names
};

/// Bases are appended first, then finish() adds the index and gives the file its name. Without finish()
/// nothing is left.
class StoreWriter {
 public:
  explicit StoreWriter(const std::filesystem::path& path);
  ~StoreWriter();

  void append(std::string_view letters);
  /// Bases appended so far.
  int64_t size() const { return written_ + static_cast<int64_t>(buffer_.size()); }
  void finish(const StoreIndex& index, Drawing drawing, const std::map<std::string, std::string>& about,
              const std::vector<std::map<std::string, std::string>>& sources);

 private:
  void flush(std::size_t count);

  std::string path_;
  AtomicFile atomic_;
  Hdf5Handle file_, bases_;
  std::string buffer_;
  int64_t written_ = 0;
};

}  // namespace focus::data
