#include <unordered_map>

#include "focus/core/error.h"
#include "focus/core/log.h"
#include "focus/core/units.h"
#include "focus/data/fasta.h"
#include "focus/data/fasta_stream.h"

namespace focus::data {
namespace {

class HeldFasta final : public SequenceFile {
 public:
  HeldFasta(const std::filesystem::path& path, int64_t limit_bytes, const std::string& advice)
      : SequenceFile(path) {
    FastaStream stream(path);
    for (FastaRecord record; stream.next(record);) {
      const auto length = static_cast<int64_t>(record.sequence.size());
      if (total_length() + length > limit_bytes)
        fail<DataError>("'", path.string(),
                        "' is plain gzip, which must be held in memory to be read at random positions, and "
                        "holds more than ",
                        limit_bytes >> 20, " MiB of sequence; ", advice, "repack it with: gunzip -c '",
                        path.string(), "' | bgzip > '", path.stem().string(), ".bgz'");
      add_record(record.name, length);
      record.sequence.shrink_to_fit();
      sequences_.emplace(record.name, std::move(record.sequence));
    }
  }
  bool in_memory() const override { return true; }

 private:
  std::string read(const std::string& name, int64_t begin, int64_t end) const override {
    return sequences_.at(name).substr(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
  }

  std::unordered_map<std::string, std::string> sequences_;
};

}  // namespace

std::unique_ptr<SequenceFile> hold_fasta(const std::filesystem::path& path, int64_t limit_bytes,
                                         const std::string& advice) {
  return std::make_unique<HeldFasta>(path, limit_bytes, advice);
}

std::unique_ptr<SequenceFile> open_fasta(const std::filesystem::path& path, int64_t limit_bytes) {
  if (!is_plain_gzip(path)) return std::make_unique<FastaFile>(path);
  auto held = hold_fasta(path, limit_bytes, "");
  log::info(concat("'", path.string(), "' is plain gzip: its ", format_count(held->total_length()),
                   " bases are held in memory; of a BGZF file (bgzip) only what is needed is read"));
  return held;
}

}  // namespace focus::data
