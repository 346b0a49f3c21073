#include "focus/data/fasta.h"

#include <htslib/faidx.h>
#include <htslib/hts_log.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <optional>
#include <sstream>
#include <utility>

#include "fasta_check.h"
#include "focus/core/error.h"
#include "focus/core/file.h"
#include "focus/core/log.h"
#include "focus/core/temporary.h"
#include "focus/core/units.h"

namespace focus::data {
namespace fs = std::filesystem;
namespace {

struct FaiClose {
  void operator()(faidx_t* index) const { fai_destroy(index); }
};
using FaiHandle = std::unique_ptr<faidx_t, FaiClose>;

// htslib writes its own messages to stderr; here every failure becomes a DataError instead.
class QuietHtslib {
 public:
  QuietHtslib() : level_(hts_get_log_level()) { hts_set_log_level(HTS_LOG_OFF); }
  ~QuietHtslib() { hts_set_log_level(level_); }

 private:
  htsLogLevel level_;
};

struct IndexEntry {
  std::string name;
  int64_t length = 0, offset = 0, line_bases = 0, line_bytes = 0;
};

constexpr int64_t kWorthSaying = int64_t{256} << 20;  // bytes that take a while to index

class TemporaryFolder {
 public:
  /// Of `indexed`, beside which no index can be written.
  explicit TemporaryFolder(const fs::path& indexed) {
    std::error_code error;
    const fs::path where = fs::temp_directory_path(error);
    std::string pattern = (where / "focus-index-XXXXXX").string();
    if (!error && mkdtemp(pattern.data()) == nullptr) error = {errno, std::generic_category()};
    if (error)
      fail<DataError>("no index of '", indexed.string(), "' can be written beside it, nor in a temporary folder (", named(), "): ",
                      error.message(), "; set TMPDIR to a folder that you may write to");
    folder_.emplace(pattern);
  }
  const fs::path& path() const { return folder_->path(); }

 private:
  static std::string named() {
    for (const char* name : {"TMPDIR", "TMP", "TEMP", "TEMPDIR"}) {
      if (const char* value = std::getenv(name)) return concat(name, "=", value);
    }
    return "/tmp";
  }

  std::optional<Temporary> folder_;
};

bool build_index(const fs::path& path, const fs::path& fai, const fs::path& gzi) {
  const QuietHtslib quiet;
  return fai_build3(path.c_str(), fai.c_str(), gzi.c_str()) == 0;
}

bool can_create(const fs::path& file) {
  std::error_code ignored;
  const bool opened = std::ofstream(file).good();
  fs::remove(file, ignored);
  return opened;
}

std::vector<IndexEntry> read_index(const fs::path& fai) {
  std::vector<IndexEntry> entries;
  std::istringstream text(read_file(fai));
  std::string line;
  for (int64_t number = 1; std::getline(text, line); ++number) {
    if (line.empty()) continue;
    std::istringstream columns(line);
    IndexEntry entry;
    if (!std::getline(columns, entry.name, '\t') || !(columns >> entry.length >> entry.offset >> entry.line_bases >> entry.line_bytes) ||
        entry.length < 0 || entry.offset < 0)
      fail<DataError>("line ", number, " of the FASTA index '", fai.string(), "' is damaged; delete the index, it will be built again");
    entries.push_back(std::move(entry));
  }
  return entries;
}

// An index made from another version of the file would give wrong bases without a word: its last record must end where the file ends.
void check_index_fits(const fs::path& path, const fs::path& fai, const fs::path& gzi, Packing packing,
                      const std::vector<IndexEntry>& entries) {
  const auto stale = [&] {
    fail<DataError>("the index '", fai.string(), "' does not fit '", path.string(),
                    "' (made from another version of it?); delete the index, it will be built again");
  };
  if (entries.empty()) stale();
  const IndexEntry& last =
      *std::max_element(entries.begin(), entries.end(), [](const IndexEntry& a, const IndexEntry& b) { return a.offset < b.offset; });
  if (last.length == 0) return;  // reported as an empty record
  if (last.line_bases <= 0) stale();
  BgzfHandle file = open_bgzf(path);
  if (packing == Packing::bgzf && bgzf_index_load(file.get(), gzi.c_str(), nullptr) != 0)
    fail<DataError>("cannot read the BGZF index '", gzi.string(), "'; delete it, it will be built again");
  const auto read_at = [&](int64_t offset, int64_t count) {
    std::string bytes(static_cast<std::size_t>(count), '\0');
    if (bgzf_useek(file.get(), offset, SEEK_SET) != 0) stale();
    const ssize_t got = bgzf_read(file.get(), bytes.data(), bytes.size());
    bytes.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    return bytes;
  };
  const int64_t last_base = last.offset + (last.length - 1) / last.line_bases * last.line_bytes + (last.length - 1) % last.line_bases;
  const std::string before = read_at(last.offset - 1, 1), tail = read_at(last_base, 64);
  if (before != "\n" || tail.empty() || std::isalpha(static_cast<unsigned char>(tail[0])) == 0 ||
      std::any_of(tail.begin() + 1, tail.end(), [](char c) { return std::isspace(static_cast<unsigned char>(c)) == 0; }))
    stale();
}

}  // namespace

struct FastaFile::Impl {
  FaiHandle index;
  std::mutex mutex;  // faidx keeps one file position
};

FastaFile::FastaFile(const fs::path& path) : SequenceFile(path), impl_(std::make_unique<Impl>()) {
  const Packing packing = check_kind(path);
  fs::path fai = path, gzi = path;
  fai += ".fai";
  gzi += ".gzi";
  std::unique_ptr<TemporaryFolder> temporary;
  std::error_code error;
  const bool have_index = fs::exists(fai, error) && (packing == Packing::plain || fs::exists(gzi, error));
  if (!have_index) {
    if (const auto size = static_cast<int64_t>(fs::file_size(path)); size >= kWorthSaying)
      log::info(concat("indexing '", path.string(), "' (", format_bytes(size), "), once"));
    check_records(path);
    // Built under names of this process and renamed, so that programs started together never read half an index.
    const std::string suffix = concat(".tmp-", ::getpid());
    const Temporary built_fai(fai.string() + suffix), built_gzi(gzi.string() + suffix);
    bool in_place = can_create(built_fai.path());
    if (in_place) {
      in_place = build_index(path, built_fai.path(), built_gzi.path());
      if (in_place && packing == Packing::bgzf) fs::rename(built_gzi.path(), gzi, error);
      if (in_place && !error) fs::rename(built_fai.path(), fai, error);
      in_place = in_place && !error;
    }
    if (!in_place) {
      temporary = std::make_unique<TemporaryFolder>(path);
      fai = temporary->path() / "index.fai";
      gzi = temporary->path() / "index.gzi";
      if (!build_index(path, fai, gzi))
        fail<DataError>("cannot index '", path.string(),
                        "': within a record all lines but the last must have the same length (rewrap it, e.g. with: seqtk seq -l 60)");
    }
  }
  const std::vector<IndexEntry> entries = read_index(fai);
  check_index_fits(path, fai, gzi, packing, entries);
  for (const IndexEntry& entry : entries) {
    if (entry.length == 0) fail<DataError>("record '", entry.name, "' of '", path.string(), "' has no bases; remove it");
    if (contains(entry.name))
      fail<DataError>("the index '", fai.string(), "' lists record '", entry.name, "' twice; names must be unique, also in the FASTA file");
    add_record(entry.name, entry.length);
  }
  const QuietHtslib quiet;
  impl_->index.reset(fai_load3(path.c_str(), fai.c_str(), gzi.c_str(), 0));
  if (!impl_->index)
    fail<DataError>("cannot load the index '", fai.string(), "' of '", path.string(), "'; delete it, it will be built again");
}

FastaFile::~FastaFile() = default;
FastaFile::FastaFile(FastaFile&&) noexcept = default;
FastaFile& FastaFile::operator=(FastaFile&&) noexcept = default;

std::string FastaFile::read(const std::string& name, int64_t begin, int64_t end) const {
  const std::lock_guard lock(impl_->mutex);
  hts_pos_t count = 0;
  const std::unique_ptr<char, decltype(&std::free)> bases(faidx_fetch_seq64(impl_->index.get(), name.c_str(), begin, end - 1, &count),
                                                          &std::free);
  if (!bases || count != end - begin)
    fail<DataError>("cannot read bases ", begin, "..", end, " of record '", name, "' in '", path().string(),
                    "': the file is damaged or was changed after it was opened");
  return std::string(bases.get(), static_cast<std::size_t>(count));
}

}  // namespace focus::data
