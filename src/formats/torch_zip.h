// A torch.save zip: FOLDER/data.pkl holds the objects, FOLDER/data/KEY the bytes of each storage. The
// folder's name is arbitrary.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "file_bytes.h"
#include "pickle_reader.h"
#include "zip_directory.h"

namespace focus::formats {

/// A tensor and where its elements lie; all of them, and for a contiguous one all bytes from `offset` on,
/// inside the file.
struct PlacedTensor {
  TensorView view;  // without data
  std::vector<std::int64_t> strides;
  std::uint64_t offset = 0;  // in the file, of the first element
  bool contiguous = true;
};

class TorchZip {
 public:
  /// Throws WeightsError. `file` must outlive this object.
  TorchZip(FileBytes& file, PickleMode mode);

  const Pickle& pickle() const { return pickle_; }
  /// Checks a tensor node against its storage. Throws WeightsError.
  PlacedTensor place(const std::string& name, const PickleNode& node) const;
  /// Copies the elements out in row-major order.
  void gather(const PlacedTensor& tensor, std::byte* to) const;

 private:
  void find_folder(const ZipDirectory& zip);
  std::optional<ZipRecord> record(const std::string& name) const;
  std::vector<std::int64_t> integers(PickleNode::Ref tuple) const;

  FileBytes& file_;
  std::map<std::string_view, ZipRecord> records_;  // of the folder, named without it
  Pickle pickle_;
};

}  // namespace focus::formats
