#include "focus/data/fasta.h"

#include <algorithm>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "fasta_index.h"
#include "fasta_parser.h"
#include "focus/core/error.h"
#include "focus/core/file.h"
#include "focus/core/log.h"
#include "focus/core/units.h"
#include "focus/data/open_sequences.h"
#include "held_fasta.h"
#include "packed_file.h"

namespace focus::data {
namespace fs = std::filesystem;
namespace {

constexpr int64_t kWorthSaying = int64_t{256} << 20;  // bytes that take a while to index

class IndexedFasta final : public SequenceFile {
 public:
  IndexedFasta(const fs::path& path, std::unique_ptr<RandomFile> file, std::vector<FastaEntry> entries)
      : SequenceFile(path), file_(std::move(file)), entries_(std::move(entries)) {
    for (std::size_t i = 0; i < entries_.size(); ++i) {
      add_record(entries_[i].name, entries_[i].length);
      index_.emplace(entries_[i].name, i);
    }
  }

 private:
  std::string read(const std::string& name, int64_t begin, int64_t end) const override;

  mutable std::mutex mutex_;  // the file keeps one position
  std::unique_ptr<RandomFile> file_;
  std::vector<FastaEntry> entries_;
  std::unordered_map<std::string_view, std::size_t> index_;
};

std::string IndexedFasta::read(const std::string& name, int64_t begin, int64_t end) const {
  const FastaEntry& entry = entries_[index_.at(name)];
  const auto place = [&](int64_t base) {
    return entry.offset + base / entry.line_bases * entry.line_bytes + base % entry.line_bases;
  };
  const int64_t first = place(begin), count = place(end - 1) + 1 - first;
  std::string bytes;
  {
    const std::lock_guard lock(mutex_);
    bytes = file_->read(first, count);
  }
  const auto changed = [&](int64_t base) {
    fail<DataError>("cannot read base ", base + 1, " of record '", name, "' in '", path().string(),
                    "': the file is damaged, or was changed after it was opened");
  };
  if (static_cast<int64_t>(bytes.size()) != count) changed(begin);
  const std::string_view line_end = entry.line_bytes - entry.line_bases == 2 ? "\r\n" : "\n";
  std::size_t from = 0, to = 0;
  for (int64_t base = begin; base < end;) {
    const int64_t in_line = std::min(entry.line_bases - base % entry.line_bases, end - base);
    const char* const letters = bytes.data() + from;
    const int64_t foreign = find_foreign({letters, static_cast<std::size_t>(in_line)});
    if (foreign < in_line) {
      const int64_t at = base + foreign;
      const char byte = letters[foreign];
      if (byte == '\n' || byte == '\r' || byte == ' ' || byte == '\t') changed(at);
      refuse_base(concat("'", path().string(), "'"), name, at, entry.line + 1 + at / entry.line_bases,
                  at % entry.line_bases + 1, static_cast<uint8_t>(byte));
    }
    std::copy(letters, letters + in_line, bytes.begin() + static_cast<std::ptrdiff_t>(to));
    from += static_cast<std::size_t>(in_line);
    to += static_cast<std::size_t>(in_line);
    base += in_line;
    if (base == end) break;
    if (bytes.compare(from, line_end.size(), line_end) != 0) changed(base);
    from += line_end.size();
  }
  bytes.resize(to);
  return bytes;
}

void check_regular(const fs::path& path) {
  std::error_code error;
  if (!fs::exists(path, error)) fail<DataError>("FASTA file '", path.string(), "' does not exist");
  if (fs::is_directory(path, error)) fail<DataError>("'", path.string(), "' is a folder, not a regular file");
  if (!fs::is_regular_file(path, error))
    fail<DataError>("'", path.string(),
                    "' is a pipe or device, not a regular file, and can be read only once; write it to a "
                    "file first, or let focus-infer score "
                    "read it from standard input: ... | focus-infer score --fasta -");
  if (fs::file_size(path, error) == 0) fail<DataError>("FASTA file '", path.string(), "' is empty");
}

bool is_older(const fs::path& index, const fs::path& file) {
  std::error_code error;
  const auto made = fs::last_write_time(index, error);
  return !error && made < fs::last_write_time(file, error);
}

/// All of a file's records, or none and why not.
std::vector<FastaEntry> walk(const fs::path& path, bool allow_truncated, std::string& why_not) {
  if (const auto size = static_cast<int64_t>(fs::file_size(path)); size >= kWorthSaying)
    log::info(concat("indexing '", path.string(), "' (", format_bytes(size), ")"));
  FastaParser parser(path, allow_truncated);
  std::vector<FastaEntry> entries;
  for (FastaEntry entry; parser.next(entry, nullptr);) entries.push_back(std::move(entry));
  why_not = parser.irregular();
  return entries;
}

/// "" where it cannot be read.
std::string content_of(const fs::path& path) {
  try {
    return read_file(path);
  } catch (const DataError&) {
    return {};
  }
}

/// An index is a convenience: where it cannot be kept, the next program makes it again.
void keep(const fs::path& path, const std::string& content) {
  try {
    write_file(path, content);
  } catch (const DataError& e) {
    log::debug(concat("the index is not kept: ", e.what()));
  }
}

}  // namespace

std::unique_ptr<SequenceFile> index_fasta(const fs::path& path, bool allow_truncated, std::string& why_not) {
  check_regular(path);
  const PackedFile opened(path, allow_truncated);
  if (opened.packing() == Packing::gzip) {
    why_not = "is plain gzip";
    return nullptr;
  }
  fs::path fai = path, gzi = path;
  fai += ".fai";
  gzi += ".gzi";
  auto file = std::make_unique<RandomFile>(path, opened.packing(), gzi, !is_older(gzi, path));
  std::error_code ignored;
  const bool found = fs::exists(fai, ignored), older = is_older(fai, path);
  std::vector<FastaEntry> entries;
  std::string unfit = older ? "it is older than the file" : "";
  const std::string before = found ? content_of(fai) : "";
  if (found && !older)
    unfit = read_fai(before, entries) ? check_fai(*file, entries) : "it is no list of records";
  if (!found || !unfit.empty()) {
    entries = walk(path, allow_truncated, why_not);
    if (!why_not.empty()) return nullptr;
    const std::string content = write_fai(entries);
    const bool same = before == content;
    if (found && !same)
      log::warn(concat("the index '", fai.string(), "' does not fit '", path.string(), "' (", unfit,
                       "); it is built again"));
    if (!opened.is_truncated() && (!same || older)) keep(fai, content);
  }
  if (file->gzi_is_new() && !opened.is_truncated()) keep(gzi, file->gzi());
  return std::make_unique<IndexedFasta>(path, std::move(file), std::move(entries));
}

std::unique_ptr<SequenceFile> open_fasta(const fs::path& path, const FastaOptions& options) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) return open_sequence_folder(path, SequenceKind::fasta, options);
  std::string why_not;
  auto file = index_fasta(path, options.allow_truncated, why_not);
  return file ? std::move(file) : hold_fasta(path, options, why_not);
}

}  // namespace focus::data
