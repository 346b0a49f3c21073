// Sequences packed into one HDF5 file.
#pragma once

#include <filesystem>
#include <memory>
#include <vector>

#include "focus/data/sequence_file.h"

namespace focus::data {

/// How training sequences are drawn: every window of a record is equally likely, or a document (a line of
/// JSONL) is drawn in proportion to its length and given whole where it is shorter than the wanted length.
enum class Drawing { windows, documents };

/// A file that pack() wrote; also read by any HDF5 program:
///   bases                    uint8[total]: the letters as in the source, case kept, in compressed chunks
///   records/name, length     of the source's records, also where nothing was packed
///   stretches/record, begin, end, offset
///                            bases [begin, end) of a record are bases[offset : offset + end - begin]
///   sources/<i>              attributes: where the records came from
///   attributes               format, format_version, drawing, and what the writing program said of itself
/// Coordinates are those of the source, so a region means the same in both. One byte a base, not 2 bits and a
/// list of exceptions: deflate brings it near 2 bits anyway, and case, N and ambiguity codes need no second
/// place.
///
/// Throws DataError: no such file, not HDF5, not a token store, of a later version, damaged; in fetch() also
/// bases that were not packed.
class TokenStore final : public SequenceFile {
 public:
  explicit TokenStore(const std::filesystem::path& path);
  ~TokenStore() override;

  Drawing drawing() const;
  std::vector<Region> held() const override;

 private:
  std::string read(const std::string& name, int64_t begin, int64_t end) const override;

  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace focus::data
