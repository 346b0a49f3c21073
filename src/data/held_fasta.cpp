#include "held_fasta.h"

#include <utility>

#include "focus/core/error.h"
#include "focus/core/log.h"
#include "focus/core/units.h"
#include "focus/data/fasta_stream.h"
#include "held_sequences.h"

namespace focus::data {
namespace {

class HeldFasta final : public HeldSequences {
 public:
  HeldFasta(const std::filesystem::path& path, const FastaOptions& options, const std::string& why)
      : HeldSequences(path) {
    FastaStream stream(path, options.allow_truncated);
    for (FastaRecord record; stream.next(record);) {
      const auto length = static_cast<int64_t>(record.sequence.size());
      if (total_length() + length > options.held_bases)
        fail<DataError>("'", path.string(), "' ", why,
                        ": to be read at random positions it must be held in memory, but it has more than ",
                        options.held_bases >> 20, " MiB of sequence; ", options.advice,
                        "rewrap and repack it, e.g. with: seqtk seq -l 60 '", path.string(), "' | bgzip > '",
                        path.stem().string(), ".bgz'");
      hold(record.name, std::move(record.sequence));
    }
    log::info(concat("'", path.string(), "' ", why, ": its ", format_count(total_length()),
                     " bases are held in memory; of an indexed file (lines of equal length, plain or bgzip) "
                     "only what is needed is read"));
  }
};

}  // namespace

std::unique_ptr<SequenceFile> hold_fasta(const std::filesystem::path& path, const FastaOptions& options,
                                         const std::string& why) {
  return std::make_unique<HeldFasta>(path, options, why);
}

}  // namespace focus::data
