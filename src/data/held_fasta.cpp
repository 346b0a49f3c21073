#include "held_fasta.h"

#include "focus/core/error.h"
#include "focus/data/fasta_stream.h"

namespace focus::data {

HeldFasta::HeldFasta(const std::filesystem::path& path, int64_t limit_bytes) : SequenceFile(path) {
  FastaStream stream(path);
  for (FastaRecord record; stream.next(record);) {
    const auto length = static_cast<int64_t>(record.sequence.size());
    if (total_length() + length > limit_bytes)
      fail<DataError>("'", path.string(), "' is plain gzip, which must be held in memory to be drawn from, and holds more than ",
                      limit_bytes >> 20, " MiB of sequence; raise memory_mb, pack it with: focus-train pack --fasta '", path.string(),
                      "' -o '", path.stem().string(), ".h5', or repack it with: gunzip -c '", path.string(), "' | bgzip > '",
                      path.stem().string(), ".bgz'");
    add_record(record.name, length);
    record.sequence.shrink_to_fit();
    sequences_.emplace(record.name, std::move(record.sequence));
  }
}

std::string HeldFasta::read(const std::string& name, int64_t begin, int64_t end) const {
  return sequences_.at(name).substr(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
}

}  // namespace focus::data
