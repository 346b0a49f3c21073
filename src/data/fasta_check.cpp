#include "fasta_check.h"

#include <algorithm>
#include <cctype>
#include <string>
#include <unordered_set>
#include <vector>

#include "focus/core/error.h"
#include "focus/data/fasta.h"

namespace focus::data {
namespace fs = std::filesystem;
namespace {

void check_exists(const fs::path& path) {
  std::error_code error;
  if (!fs::exists(path, error)) fail<DataError>("FASTA file '", path.string(), "' does not exist");
}

}  // namespace

BgzfHandle open_bgzf(const fs::path& path) {
  BgzfHandle file(bgzf_open(path.c_str(), "r"));
  if (!file) fail<DataError>("cannot open '", path.string(), "': check that the file exists and is readable");
  return file;
}

Packing check_kind(const fs::path& path) {
  std::error_code error;
  check_exists(path);
  if (!fs::is_regular_file(path, error))
    fail<DataError>("'", path.string(), "' is not a regular file; an indexed FASTA must be a file on disk, not a pipe or a folder");
  if (fs::file_size(path, error) == 0) fail<DataError>("FASTA file '", path.string(), "' is empty");
  BgzfHandle file = open_bgzf(path);
  const int compression = bgzf_compression(file.get());
  if (compression == 1)
    fail<DataError>("'", path.string(), "' is plain gzip, which cannot be read at random positions; repack it with: gunzip -c '",
                    path.string(), "' | bgzip > '", path.stem().string(), ".bgz'");
  int first = '\n';
  while (first == '\n' || first == '\r') first = bgzf_getc(file.get());
  if (first == -1) fail<DataError>("FASTA file '", path.string(), "' holds no record");
  if (first < 0) fail<DataError>("cannot read '", path.string(), "': the file is damaged or cut short");
  if (first == '@')
    fail<DataError>("'", path.string(), "' is FASTQ, but FASTA is needed; convert it with: seqtk seq -A (or samtools fasta), then bgzip");
  if (first != '>')
    fail<DataError>("'", path.string(), "' is not FASTA: it must begin with '>', but begins with '", static_cast<char>(first), "'");
  return compression == 2 ? Packing::bgzf : Packing::plain;
}

void check_records(const fs::path& path) {
  BgzfHandle file = open_bgzf(path);
  std::unordered_set<std::string> seen;
  std::vector<char> buffer(1 << 16);
  std::string header, name;
  bool line_start = true, in_header = false, any_base = true;
  const auto finish_record = [&] {
    if (!any_base) fail<DataError>("record '", name, "' of '", path.string(), "' has no bases; remove it");
  };
  for (;;) {
    const ssize_t count = bgzf_read(file.get(), buffer.data(), buffer.size());
    if (count < 0) fail<DataError>("cannot read '", path.string(), "': the file is damaged or cut short");
    if (count == 0) break;
    const char* cursor = buffer.data();
    const char* const end = cursor + count;
    while (cursor < end) {
      if (line_start && *cursor == '>') {
        finish_record();
        in_header = true;
        header.clear();
        ++cursor;
      }
      const char* stop = std::find(cursor, end, '\n');
      if (in_header) {
        header.append(cursor, stop);
      } else if (!any_base) {
        any_base = std::any_of(cursor, stop, [](char c) { return std::isgraph(static_cast<unsigned char>(c)) != 0; });
      }
      line_start = stop != end;
      if (line_start && in_header) {
        in_header = false;
        any_base = false;
        name = header.substr(0, header.find_first_of(" \t\r"));
        if (name.empty()) fail<DataError>("a record of '", path.string(), "' has no name ('>' must be followed by one)");
        if (!seen.insert(name).second)
          fail<DataError>("record name '", name, "' occurs twice in '", path.string(), "'; names must be unique");
      }
      cursor = line_start ? stop + 1 : stop;
    }
  }
  finish_record();
  if (in_header) fail<DataError>("record '", header, "' of '", path.string(), "' has no bases; remove it");
}

bool is_plain_gzip(const fs::path& path) {
  check_exists(path);
  return fs::is_regular_file(path) && bgzf_compression(open_bgzf(path).get()) == 1;
}

}  // namespace focus::data
