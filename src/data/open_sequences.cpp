#include "focus/data/open_sequences.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "focus/core/error.h"
#include "focus/data/jsonl.h"
#include "focus/formats/digest.h"
#include "held_sequences.h"

namespace focus::data {
namespace {

namespace fs = std::filesystem;

/// Below the 256 files that some systems allow a process.
constexpr std::size_t kMostOpen = 128;

bool is_kind(std::string name, SequenceKind kind) {
  if (name.ends_with(".gz")) name.resize(name.size() - 3);
  const bool jsonl = name.ends_with(".jsonl"),
             fasta = name.ends_with(".fa") || name.ends_with(".fasta") || name.ends_with(".fna");
  return (jsonl && kind != SequenceKind::fasta) || (fasta && kind != SequenceKind::jsonl);
}

class HeldLines final : public HeldSequences {
 public:
  HeldLines(const fs::path& path, const FastaOptions& options, const std::string& prefix = "")
      : HeldSequences(path) {
    JsonlReader reader(path, prefix);
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

class SequenceFolder final : public SequenceFile {
 public:
  SequenceFolder(const fs::path& folder, SequenceKind kind, FastaOptions options)
      : SequenceFile(folder), options_(std::move(options)) {
    for (const fs::path& path : sequence_files(folder, kind)) {
      Part& part = parts_.emplace_back();
      part.path = path;
      SequenceFile& file = open(part);
      for (const std::string& name : file.names()) {
        if (const auto other = part_of_.find(name); other != part_of_.end())
          fail<DataError>("'", folder.string(), "': the record '", name, "' stands in '",
                          parts_[other->second].path.filename().string(), "' and in '",
                          path.filename().string(), "'; names must be unique in a folder");
        add_record(name, file.length(name));
        part_of_[name] = parts_.size() - 1;
      }
      if (file.in_memory()) {
        held_ += file.total_length();
        options_.held_bases -= file.total_length();
      }
    }
  }

  fs::path file_of(const std::string& name) const override { return parts_[part_of_.at(name)].path; }
  int64_t held_bases() const override { return held_; }

 private:
  struct Part {
    fs::path path;
    std::unique_ptr<SequenceFile> file;  // null: closed
    uint64_t used = 0;                   // when
  };

  std::string read(const std::string& name, int64_t begin, int64_t end) const override {
    const std::lock_guard lock(mutex_);
    return open(parts_[part_of_.at(name)]).fetch(name, begin, end);
  }

  SequenceFile& open(Part& part) const {
    part.used = ++clock_;
    if (part.file) return *part.file;
    std::vector<Part*> open;
    for (Part& other : parts_) {
      if (other.file && !other.file->in_memory()) open.push_back(&other);
    }
    const auto older = [](const Part* a, const Part* b) { return a->used < b->used; };
    if (open.size() >= kMostOpen) (*std::min_element(open.begin(), open.end(), older))->file.reset();
    const std::string prefix = line_prefix(path(), part.path);
    part.file = is_kind(part.path.string(), SequenceKind::jsonl)
                    ? std::make_unique<HeldLines>(part.path, options_, prefix)
                    : open_fasta(part.path, options_);
    return *part.file;
  }

  FastaOptions options_;
  mutable std::mutex mutex_;
  mutable std::vector<Part> parts_;
  mutable uint64_t clock_ = 0;
  std::unordered_map<std::string, std::size_t> part_of_;
  int64_t held_ = 0;
};

}  // namespace

std::vector<fs::path> sequence_files(const fs::path& source, SequenceKind kind) {
  std::error_code error;
  if (!fs::is_directory(source, error)) return {source};
  std::vector<fs::path> files;
  for (fs::directory_iterator it(source, error), end; !error && it != end; it.increment(error)) {
    if (is_kind(it->path().filename().string(), kind) && !it->is_directory(error))
      files.push_back(it->path());
  }
  if (error) fail<DataError>("cannot read the folder '", source.string(), "': ", error.message());
  if (files.empty())
    fail<DataError>("the folder '", source.string(), "' holds no ",
                    kind == SequenceKind::jsonl ? "JSON lines (.jsonl"
                    : kind == SequenceKind::fasta
                        ? "FASTA file (.fa, .fasta, .fna"
                        : "FASTA file (.fa, .fasta, .fna) and no JSON lines (.jsonl",
                    "; each may end in .gz); folders in it are not looked into");
  std::sort(files.begin(), files.end());
  return files;
}

std::string line_prefix(const fs::path& source, const fs::path& file) {
  return source == file ? "" : file.filename().string() + "/";
}

std::string source_digest(const fs::path& source) {
  std::error_code ignored;
  if (!fs::is_directory(source, ignored)) return formats::file_digest(source);
  std::map<std::string, std::string> files;
  for (const fs::path& file : sequence_files(source, SequenceKind::either))
    files[file.filename().string()] = formats::file_digest(file);
  return formats::digest({}, files);
}

std::unique_ptr<SequenceFile> open_sequence_folder(const fs::path& folder, SequenceKind kind,
                                                   const FastaOptions& options) {
  return std::make_unique<SequenceFolder>(folder, kind, options);
}

std::unique_ptr<SequenceFile> open_sequences(const fs::path& path, const FastaOptions& options) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) return open_sequence_folder(path, SequenceKind::either, options);
  if (is_kind(path.filename().string(), SequenceKind::jsonl))
    return std::make_unique<HeldLines>(path, options);
  return open_fasta(path, options);
}

}  // namespace focus::data
