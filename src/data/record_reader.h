// Records of a source one after the other, whatever its kind.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "focus/data/pack.h"
#include "focus/data/sequence_file.h"

namespace focus::data {

struct RecordLength {
  std::string name;
  int64_t length = 0;
};

/// A source that is read twice: for names and lengths, which regions are checked against, then for letters. Memory: one record of a stream
/// (gzip, JSONL), a few MB of an indexed FASTA file.
class RecordReader {
 public:
  static std::unique_ptr<RecordReader> open(const PackSource& source);
  virtual ~RecordReader() = default;

  /// `alive` is called now and then; it may throw.
  virtual std::vector<RecordLength> scan(const std::function<void()>& alive) = 0;
  /// Calls `take` with consecutive pieces of each of the regions of the source's i-th record, for all i in turn. DataError when the source
  /// is not what it was in scan().
  virtual void read(const std::vector<std::vector<Region>>& by_record,
                    const std::function<void(const Region&, std::string_view)>& take) = 0;
};

}  // namespace focus::data
