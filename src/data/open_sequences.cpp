#include "focus/data/open_sequences.h"

#include <utility>

#include "focus/core/error.h"
#include "focus/data/jsonl.h"
#include "held_sequences.h"

namespace focus::data {
namespace {

class HeldLines final : public HeldSequences {
 public:
  HeldLines(const std::filesystem::path& path, const FastaOptions& options) : HeldSequences(path) {
    JsonlReader reader(path);
    for (JsonlRecord record; reader.next(record);) {
      const auto length = static_cast<int64_t>(record.text.size());
      if (total_length() + length > options.held_bases)
        fail<DataError>("'", path.string(), "' has more than ", options.held_bases >> 20,
                        " MiB of sequence, and JSON lines are held in memory; write it as FASTA");
      if (contains(record.name))
        fail<DataError>("'", path.string(), "', line ", record.line, ": the name '", record.name,
                        "' stands twice");
      hold(record.name, std::move(record.text));
    }
    if (names().empty()) fail<DataError>("'", path.string(), "' holds no sequence");
  }
};

}  // namespace

std::unique_ptr<SequenceFile> open_sequences(const std::filesystem::path& path, const FastaOptions& options) {
  const std::string name = path.filename().string();
  if (name.ends_with(".jsonl") || name.ends_with(".jsonl.gz"))
    return std::make_unique<HeldLines>(path, options);
  return open_fasta(path, options);
}

}  // namespace focus::data
