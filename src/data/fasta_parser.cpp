#include "fasta_parser.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "focus/core/error.h"
#include "focus/data/letters.h"
#include "formats/printable.h"

namespace focus::data {
namespace {

using formats::printable;

constexpr std::size_t kBuffer = 1 << 18;
constexpr std::size_t kLongestName = 1 << 12;

constexpr std::array<bool, 256> kForeign = [] {
  std::array<bool, 256> foreign{};
  for (std::size_t byte = 0; byte < foreign.size(); ++byte)
    foreign[byte] = !is_nucleotide(static_cast<uint8_t>(byte));
  return foreign;
}();

bool all_letters(std::string_view part) {
  bool foreign = false;  // no early exit: nearly every line is clean
  for (const char c : part) foreign |= kForeign[static_cast<unsigned char>(c)];
  return !foreign;
}

/// What people hand over instead of FASTA, by how it begins.
std::string kind_of(std::string_view text) {
  struct Kind {
    std::string_view begin;
    const char* what;
  };
  static constexpr Kind kKinds[] = {
      {"@", "FASTQ, but FASTA is needed; convert it with: seqtk seq -A (or samtools fasta)"},
      {"LOCUS", "a GenBank file, but FASTA is needed; convert it, for example with: seqret"},
      {"ID  ", "an EMBL file, but FASTA is needed; convert it, for example with: seqret"},
      {"<", "a web page or XML file; was the download refused?"},
      {"PK\x03\x04", "a zip archive; unpack it first"},
      {"BZh", "packed with bzip2; unpack it first"},
      {"\xFD"
       "7zXZ",
       "packed with xz; unpack it first"},
      {"\x28\xB5\x2F\xFD", "packed with zstd; unpack it first"},
      {"\xFF\xFE", "UTF-16 text; save it as plain text (ASCII or UTF-8)"},
      {"\xFE\xFF", "UTF-16 text; save it as plain text (ASCII or UTF-8)"},
  };
  for (const Kind& kind : kKinds) {
    if (text.starts_with(kind.begin)) return kind.what;
  }
  return {};
}

}  // namespace

int64_t find_foreign(std::string_view letters) {
  if (all_letters(letters)) return static_cast<int64_t>(letters.size());
  return std::find_if(letters.begin(), letters.end(),
                      [](char c) { return kForeign[static_cast<unsigned char>(c)]; }) -
         letters.begin();
}

bool is_record_name(std::string_view name) {
  const bool text =
      std::none_of(name.begin(), name.end(), [](char b) { return (b >= 0 && b < 0x20) || b == 0x7F; });
  return text && !name.empty() && name.size() <= kLongestName && formats::is_utf8(name);
}

void refuse_base(const std::string& source, const std::string& record, int64_t index, int64_t line,
                 int64_t column, uint8_t byte) {
  fail<DataError>("line ", line, " of ", source, ", column ", column, ": position ", index + 1, " of record ",
                  printable(record), " holds ", foreign_byte(byte));
}

FastaParser::FastaParser(const std::filesystem::path& path, bool allow_truncated)
    : file_(path, allow_truncated), buffer_(kBuffer) {
  find_first_header();
}

bool FastaParser::fill() {
  if (cursor_ < end_) return true;
  base_ += static_cast<int64_t>(end_);
  cursor_ = 0;
  end_ = file_.read(buffer_.data(), buffer_.size());
  return end_ > 0;
}

int FastaParser::take() {
  const int c = peek();
  if (c != kEnd) ++cursor_;
  return c;
}

std::string FastaParser::where() const { return concat("line ", line_, " of ", source()); }

void FastaParser::refuse_cr() const {
  fail<DataError>(where(),
                  ": a carriage return (CR) without line feed (LF) in it; old Mac line ends? Convert them "
                  "with: tr '\\r' '\\n'");
}

void FastaParser::refuse_start() {
  std::string begin;
  for (int c = peek(); c != kEnd && c != '\n' && begin.size() < 40; c = peek())
    begin += static_cast<char>(take());
  const std::string kind = kind_of(begin);
  if (!kind.empty()) fail<DataError>(source(), " is ", kind);
  fail<DataError>(source(), " is not FASTA: line ", line_, " must begin with '>', but begins with ",
                  printable(begin));
}

void FastaParser::find_first_header() {
  fill();
  if (std::string_view(buffer_.data(), end_).starts_with(kByteOrderMark)) cursor_ = kByteOrderMark.size();
  line_begin_ = offset();
  for (int c = peek(); c != '>'; c = peek()) {
    if (c == kEnd) fail<DataError>(source(), " holds no FASTA record");
    if (c != '\n' && c != '\r' && c != ' ' && c != '\t') refuse_start();
    ++cursor_;
    if (c == '\n') {
      ++line_;
      line_begin_ = offset();
    } else if (c == '\r' && peek() != '\n' && peek() != kEnd) {
      refuse_cr();
    } else if (peek() == '>') {
      fail<DataError>(where(), ": blanks stand before '>'; a header line begins with it");
    }
  }
}

void FastaParser::read_header(FastaEntry& entry) {
  ++cursor_;  // '>'
  entry = FastaEntry{};
  entry.line = line_;
  bool in_name = true, cr = false;
  int c = take();
  for (; c != '\n' && c != kEnd; c = take()) {
    if (cr) refuse_cr();
    if (c == 0) fail<DataError>(where(), " holds a zero byte; this is no text file");
    cr = c == '\r';
    in_name = in_name && c != ' ' && c != '\t' && !cr;
    if (in_name) entry.name += static_cast<char>(c);
    if (entry.name.size() > kLongestName)
      fail<DataError>(where(), ": the record name ", printable(entry.name), " has more than ", kLongestName,
                      " bytes; the first word after '>' is the name");
  }
  if (entry.name.empty())
    fail<DataError>(where(), ": the record has no name; it must follow '>' without a blank, as in '>chr1'");
  if (!is_record_name(entry.name))
    fail<DataError>(where(), ": the record name ", printable(entry.name),
                    " holds bytes that are no text; rename it");
  if (!seen_.insert(entry.name).second)
    fail<DataError>(where(), ": record name ", printable(entry.name), " occurs twice; names must be unique");
  if (c == '\n') ++line_;
  entry.offset = line_begin_ = offset();
}

void FastaParser::take_part(std::string_view part, FastaEntry& entry, std::string* letters) {
  if (part.empty()) return;
  if (has_cr_) refuse_cr();
  if (all_letters(part)) {
    line_bases_ += static_cast<int64_t>(part.size());
    entry.length += static_cast<int64_t>(part.size());
    if (letters != nullptr) letters->append(part);
    return;
  }
  for (std::size_t i = 0; i < part.size(); ++i) {
    const auto byte = static_cast<uint8_t>(part[i]);
    if (has_cr_) refuse_cr();
    if (!kForeign[byte]) {
      ++line_bases_;
      ++entry.length;
      if (letters != nullptr) *letters += part[i];
    } else if (byte == '\r') {
      has_cr_ = true;
    } else if (byte == ' ' || byte == '\t') {
      has_blanks_ = true;
    } else {
      refuse_base(source(), entry.name, entry.length, line_,
                  offset() + static_cast<int64_t>(i) - line_begin_ + 1, byte);
    }
  }
}

void FastaParser::note_layout(FastaEntry& entry, int64_t bytes, bool ended) {
  if (!irregular_.empty()) return;
  const auto note = [&](const char* what) { irregular_ = concat("line ", line_, " ", what); };
  if (line_bases_ == 0) {
    last_line_ = true;
  } else if (last_line_) {
    note(entry.line_bases == 0 ? "follows a blank line" : "follows a shorter or blank line of its record");
  } else if (has_blanks_) {
    note("holds blanks");
  } else if (entry.line_bases == 0) {
    entry.line_bases = line_bases_;
    entry.line_bytes = ended ? bytes : line_bases_ + 1;
  } else if (line_bases_ > entry.line_bases) {
    note("is longer than the first of its record");
  } else {
    last_line_ = line_bases_ != entry.line_bases || bytes != entry.line_bytes;
  }
}

void FastaParser::read_body(FastaEntry& entry, std::string* letters) {
  last_line_ = false;
  for (int c = peek(); c != '>' && c != kEnd; c = peek()) {
    line_bases_ = 0;
    has_blanks_ = has_cr_ = false;
    bool ended = false;
    while (!ended && fill()) {
      const char* const begin = buffer_.data() + cursor_;
      const auto* const stop = static_cast<const char*>(std::memchr(begin, '\n', end_ - cursor_));
      const auto count = stop == nullptr ? end_ - cursor_ : static_cast<std::size_t>(stop - begin);
      std::string_view part(begin, count);
      ended = stop != nullptr;
      const bool cr = ended && part.ends_with('\r');
      if (cr) part.remove_suffix(1);
      take_part(part, entry, letters);
      if (cr && has_cr_) refuse_cr();
      cursor_ += count + (ended ? 1 : 0);
    }
    note_layout(entry, offset() - line_begin_, ended);
    if (ended) ++line_;
    line_begin_ = offset();
  }
}

bool FastaParser::next(FastaEntry& entry, std::string* letters) {
  if (peek() == kEnd) return false;
  read_header(entry);
  read_body(entry, letters);
  if (entry.length == 0)
    fail<DataError>("line ", entry.line, " of ", source(), ": record ", printable(entry.name),
                    " has no bases; remove it");
  return true;
}

}  // namespace focus::data
