// Odd files drawn at random: the same bytes give the same sequences, or the same error at the same place, in
// every packing and through every reader; and those of samtools and bedtools, where these are installed and
// define the answer. The draws are the same in every run, unless the environment asks for others:
// FOCUS_PROPERTY_SEED is the first seed, or `random`; FOCUS_PROPERTY_DRAWS their number.
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <map>
#include <random>
#include <sstream>

#include "files.h"
#include "focus/core/file.h"
#include "focus/core/log.h"
#include "focus/core/random.h"
#include "focus/data/fasta.h"
#include "focus/data/fasta_stream.h"
#include "focus/data/jsonl.h"
#include "focus/data/letters.h"
#include "focus/data/region.h"

namespace focus::data {
namespace {

uint64_t first_seed() {
  const char* text = std::getenv("FOCUS_PROPERTY_SEED");
  if (text == nullptr) return 1;
  const uint64_t seed = std::string(text) == "random" ? std::random_device{}() : std::stoull(text);
  std::cout << "first seed " << seed << '\n';
  return seed;
}

int64_t draws(int64_t usual) {
  const char* text = std::getenv("FOCUS_PROPERTY_DRAWS");
  return text != nullptr ? std::stoll(text) : usual;
}

bool chance(Random& random, double probability) { return random.uniform() < probability; }

template <class List>
auto one_of(Random& random, const List& list) {
  return *(std::begin(list) + random.uniform_integer(static_cast<int64_t>(std::size(list))));
}

struct OddFasta {
  std::string text;
  std::vector<std::pair<std::string, std::string>> records;  // what it holds, if it is sound
  bool sound = true, has_blanks = false;
};

std::string odd_sequence(Random& random) {
  const int64_t kind = random.uniform_integer(10);
  const int64_t length = kind == 0   ? 1
                         : kind == 1 ? random.uniform_integer(500, 3000)
                                     : random.uniform_integer(1, 200);
  const char* const alphabet = kind < 5   ? "ACGT"
                               : kind < 8 ? "ACGTacgtN"
                                          : "ACGTUacgtuRYKMSWBDHVNXrykmswbdhvnx";
  return letters(length, random.next(), alphabet);
}

/// `plain_names`: names that every program takes as they are.
OddFasta odd_fasta(Random& random, bool plain_names) {
  OddFasta out;
  std::string& text = out.text;
  const bool spoilt = chance(random, 0.25), tidy = chance(random, 0.4);
  const auto odd = [&](double probability) { return !tidy && chance(random, probability); };
  const std::string line_end = chance(random, 0.7) ? "\n" : "\r\n";
  const auto end_line = [&] { text += odd(0.02) ? (line_end == "\n" ? "\r\n" : "\n") : line_end; };
  const auto blank = [&] {
    out.has_blanks = true;
    return one_of(random, std::array<const char*, 3>{" ", "\t", "  "});
  };
  const auto blank_lines = [&](double probability) {
    while (odd(probability)) {
      if (odd(0.3)) text += blank();
      end_line();
    }
  };
  if (odd(0.1)) text += "\xEF\xBB\xBF";
  blank_lines(0.1);
  const int64_t count = random.uniform_integer(1, 5);
  const int64_t bad_record = spoilt ? random.uniform_integer(count) : -1;
  for (int64_t r = 0; r < count; ++r) {
    static constexpr const char* kNames[] = {
        "chr", "track", "browser", "HLA*01:01:", "gi|7|ref|NC_1.", "s\xC3\xA9q", "1-2:3-", "NODE_1_length_"};
    std::string name = concat(plain_names ? "chr" : one_of(random, kNames), r);
    std::string sequence = odd_sequence(random);
    const int64_t spoil = r == bad_record ? random.uniform_integer(7) : -1;
    if (spoil == 0) name = r > 0 ? out.records[0].first : "";
    if (spoil == 1) name = " " + name;
    if (spoil == 2) sequence.clear();
    if (spoil == 3) name += one_of(random, std::array<const char*, 3>{"\x01", "\xFF", "\x7F"});
    text += ">" + name;
    if (chance(random, 0.5))
      text += one_of(random,
                     std::array<const char*, 4>{" a description", "\tx", " ", " [a=b] > ; \x01 \xC2\xA0"});
    if (spoil == 4) text += one_of(random, std::array<std::string, 2>{std::string(1, '\0'), "\rx"});
    end_line();
    if (spoil == 5) {
      static constexpr char kBad[] = {'\0', '\x7F', '\x1B', '\v', '\f', '\x1A', '-',    '.', '*',
                                      '0',  '7',    ';',    '@',  'E',  'F',    'I',    'L', 'O',
                                      'P',  'Q',    'Z',    'j',  'z',  '\xA0', '\xC2', '|'};
      sequence[static_cast<std::size_t>(random.uniform_integer(static_cast<int64_t>(sequence.size())))] =
          one_of(random, kBad);
    }
    blank_lines(0.02);
    const bool ragged = odd(0.15), spaced = odd(0.15);
    const int64_t width = random.uniform_integer(1, 80);
    for (std::size_t at = 0; at < sequence.size();) {
      const int64_t take = ragged && chance(random, 0.3) ? random.uniform_integer(1, 80) : width;
      std::string line = sequence.substr(at, static_cast<std::size_t>(take));
      at += line.size();
      if (spaced && chance(random, 0.5))
        line.insert(static_cast<std::size_t>(random.uniform_integer(static_cast<int64_t>(line.size()) + 1)),
                    blank());
      text += line;
      if (at < sequence.size() || r + 1 < count || chance(random, 0.8)) end_line();
      if (at < sequence.size()) blank_lines(0.01);
    }
    if (spoil == 6) text += one_of(random, std::array<const char*, 3>{"\nA\rC\n", "\nA>C\n", "\nAC\r\r\n"});
    blank_lines(0.05);
    out.records.emplace_back(name, sequence);
  }
  out.sound = !spoilt;
  return out;
}

/// BGZF in blocks of few bytes, so that records and lines cross them.
std::string small_blocks(const Folder& folder, const std::string& name, const std::string& content,
                         Random& random) {
  BGZF* file = bgzf_open((folder / name).c_str(), "w");
  for (std::size_t at = 0; at < content.size();) {
    const std::size_t count =
        std::min(content.size() - at, static_cast<std::size_t>(random.uniform_integer(1, 400)));
    EXPECT_EQ(bgzf_write(file, content.data() + at, count), static_cast<ssize_t>(count));
    EXPECT_EQ(bgzf_flush(file), 0);
    at += count;
  }
  bgzf_close(file);
  return folder / name;
}

void remove_index(const std::string& path) {
  for (const char* ending : {".fai", ".gzi"}) std::filesystem::remove(path + ending);
}

/// What `read` gives as text: what it returns, or the error, with the file's name taken out.
std::string outcome(const std::string& path, const std::function<std::string()>& read) {
  std::string text;
  try {
    return read();
  } catch (const DataError& e) {
    text = concat("error: ", e.what());
  }
  for (const std::string& name : {concat("'", path, "'"), std::string("standard input")}) {
    for (std::size_t at = text.find(name); at != text.npos; at = text.find(name))
      text.replace(at, name.size(), "FILE");
  }
  return text;
}

std::string records_of(const std::vector<std::pair<std::string, std::string>>& records) {
  std::string out;
  for (const auto& [name, sequence] : records) out += concat(name, "=", sequence, "\n");
  return out;
}

std::string opened(const std::string& path) {
  return outcome(path, [&] {
    const auto fasta = open_fasta(path);
    std::string out;
    for (const std::string& name : fasta->names()) out += concat(name, "=", fasta->fetch(name), "\n");
    return out;
  });
}

std::string streamed(const std::string& path, const std::string& shown) {
  return outcome(shown, [&] {
    FastaStream stream(path);
    std::string out;
    for (FastaRecord record; stream.next(record);) out += concat(record.name, "=", record.sequence, "\n");
    return out;
  });
}

/// The same through a pipe.
std::string piped(const std::string& path) {
  const int saved = ::dup(STDIN_FILENO);
  FILE* pipe = ::popen(concat("cat '", path, "'").c_str(), "r");
  ::dup2(::fileno(pipe), STDIN_FILENO);
  std::string out = streamed("-", path);
  ::dup2(saved, STDIN_FILENO);
  ::close(saved);
  ::pclose(pipe);
  return out;
}

class OddFiles : public ::testing::Test {
 protected:
  void SetUp() override { log::set_verbosity(0); }
  void TearDown() override { log::set_verbosity(1); }
  Folder folder_;
};

TEST_F(OddFiles, FastaIsTheSameInEveryPacking) {
  const int64_t count = draws(150);
  std::map<std::string, int64_t> seen;
  const uint64_t first = first_seed();
  for (uint64_t seed = first; seed < first + static_cast<uint64_t>(count) && !HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed);
    const OddFasta drawn = odd_fasta(random, false);
    const std::string path = folder_.text("x.fa", drawn.text);
    const std::string plain = opened(path);
    if (drawn.sound) {
      ASSERT_EQ(plain, records_of(drawn.records)) << drawn.text;
    } else {
      ASSERT_EQ(plain.substr(0, 7), "error: ") << drawn.text;
    }
    const bool indexed = std::filesystem::exists(path + ".fai");
    ++seen[drawn.sound ? indexed ? "indexed" : "held" : "refused"];
    EXPECT_EQ(opened(path), plain) << "with its index\n" << drawn.text;
    EXPECT_EQ(streamed(path, path), plain) << "streamed\n" << drawn.text;
    if (seed % 8 == 0) {
      EXPECT_EQ(piped(path), plain) << "by a pipe\n" << drawn.text;
    }
    remove_index(path);
    folder_.gzip("x.fa", drawn.text);
    EXPECT_EQ(opened(path), plain) << "gzip\n" << drawn.text;
    EXPECT_EQ(streamed(path, path), plain) << "gzip, streamed\n" << drawn.text;
    small_blocks(folder_, "x.fa", drawn.text, random);
    EXPECT_EQ(opened(path), plain) << "BGZF\n" << drawn.text;
    EXPECT_EQ(std::filesystem::exists(path + ".fai"), indexed) << drawn.text;
    EXPECT_EQ(opened(path), plain) << "BGZF with its index\n" << drawn.text;
    EXPECT_EQ(streamed(path, path), plain) << "BGZF, streamed\n" << drawn.text;
    if (seed % 8 == 0) {
      EXPECT_EQ(piped(path), plain) << "BGZF by a pipe\n" << drawn.text;
    }
    if (drawn.sound) {
      const auto fasta = open_fasta(path);
      for (const auto& [name, sequence] : drawn.records) {
        const int64_t length = static_cast<int64_t>(sequence.size()), begin = random.uniform_integer(length);
        const int64_t end = random.uniform_integer(begin, length);
        EXPECT_EQ(fasta->fetch(name, begin, end),
                  sequence.substr(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin)));
      }
    }
    remove_index(path);
  }
  for (const auto& [kind, times] : seen) std::cout << times << " files " << kind << '\n';
  EXPECT_EQ(seen.size(), 3U);
}

TEST_F(OddFiles, BgzfThatWasCutIsNeverShorterWithoutAWord) {
  const uint64_t first = first_seed();
  for (uint64_t seed = first; seed < first + static_cast<uint64_t>(draws(60)) && !HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed);
    OddFasta drawn = odd_fasta(random, false);
    while (!drawn.sound) drawn = odd_fasta(random, false);
    const std::string path = small_blocks(folder_, "x.fa", drawn.text, random);
    const std::string whole = opened(path);
    const auto size = static_cast<int64_t>(std::filesystem::file_size(path));
    // Anywhere, and just before the marker.
    std::filesystem::resize_file(
        path, static_cast<uint64_t>(chance(random, 0.3) ? size - 28 : random.uniform_integer(1, size - 1)));
    for (const std::string& got : {opened(path), streamed(path, path), piped(path)})
      EXPECT_EQ(got.substr(0, 7), "error: ");
    remove_index(path);
    EXPECT_EQ(opened(path).substr(0, 7), "error: ");
    remove_index(path);
    ASSERT_EQ(whole, records_of(drawn.records));
  }
}

struct OddBed {
  std::string text;
  std::string rows;  // name, begin, end, label, strand, if it is sound
  bool sound = true;
};

OddBed odd_bed(Random& random, const SequenceFile& fasta) {
  OddBed out;
  const bool spoilt = chance(random, 0.3);
  const std::string line_end = chance(random, 0.8) ? "\n" : "\r\n";
  if (chance(random, 0.1)) out.text += "\xEF\xBB\xBF";
  static constexpr const char* kOther[] = {
      "", " ", "# a comment\t1\t2", "#", "track name=x", "browser position chr1:1-9", "track", "\t "};
  const int64_t count = random.uniform_integer(1, 6), bad = spoilt ? random.uniform_integer(count) : -1;
  for (int64_t i = 0; i < count; ++i) {
    while (chance(random, 0.2)) out.text += one_of(random, kOther) + line_end;
    const std::string name = one_of(random, fasta.names());
    const int64_t begin = random.uniform_integer(fasta.length(name)),
                  end = random.uniform_integer(begin + 1, fasta.length(name));
    std::vector<std::string> columns = {name, std::to_string(begin), std::to_string(end)};
    const char separator = chance(random, 0.7) ? '\t' : ' ';
    std::string label, strand = ".";
    if (chance(random, 0.5)) columns.push_back(label = separator == '\t' ? "gene 1" : "gene1");
    if (columns.size() == 4 && chance(random, 0.6)) {
      strand = one_of(random, std::array<const char*, 3>{"+", "-", "."});
      columns.insert(columns.end(), {"0", strand});
    }
    if (i == bad) {
      static constexpr const char* kBad[] = {
          "1e+05", "1,000", "900bp", "3.0", "-1", "+1", "", "99999999999999999999", "0x10", "end", "7\rchr"};
      // "track end 70" is a line for a browser, whatever the records are called.
      const bool ambiguous = separator == ' ' && (name == "track" || name == "browser");
      const std::size_t column = ambiguous ? 2 : 1 + static_cast<std::size_t>(random.uniform_integer(2));
      const std::string value = one_of(random, kBad);
      if (separator == ' ' && value.empty()) {
        columns.resize(2);
      } else {
        columns[column] = value;
      }
    }
    for (std::size_t c = 0; c < columns.size(); ++c)
      out.text += (c > 0 ? std::string(1, separator) : "") + columns[c];
    if (i + 1 < count || chance(random, 0.8)) out.text += line_end;
    out.rows += concat(name, ' ', begin, ' ', end, ' ', label, ' ', strand, '\n');
  }
  out.sound = !spoilt;
  return out;
}

TEST_F(OddFiles, BedIsReadAsWrittenOrRefused) {
  const auto fasta = open_fasta(folder_.text(
      "g.fa", fasta_record("chr1", letters(900, 1)) + fasta_record("track1", letters(400, 2)) +
                  fasta_record("track", letters(70, 3)) + fasta_record("browser", letters(50, 3))));
  const uint64_t first = first_seed();
  for (uint64_t seed = first; seed < first + static_cast<uint64_t>(draws(200)) && !HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed);
    const OddBed drawn = odd_bed(random, *fasta);
    const std::string path = folder_ / "x.bed";
    const auto read = [&] {
      return outcome(path, [&] {
        std::string out;
        for (const BedRow& row : read_bed_rows(path, *fasta))
          out += concat(row.region.name, ' ', row.region.begin, ' ', row.region.end, ' ', row.name, ' ',
                        row.strand, '\n');
        return out;
      });
    };
    folder_.text("x.bed", drawn.text);
    const std::string plain = read();
    if (drawn.sound) {
      EXPECT_EQ(plain, drawn.rows) << drawn.text;
    } else {
      EXPECT_EQ(plain.substr(0, 12), "error: line ") << drawn.text;
      EXPECT_NE(plain.find("column"), plain.npos) << plain;
    }
    folder_.gzip("x.bed", drawn.text);
    EXPECT_EQ(read(), plain) << drawn.text;
    small_blocks(folder_, "x.bed", drawn.text, random);
    EXPECT_EQ(read(), plain) << drawn.text;
  }
}

TEST_F(OddFiles, JsonLinesAreTheSameInEveryPacking) {
  const uint64_t first = first_seed();
  for (uint64_t seed = first; seed < first + static_cast<uint64_t>(draws(200)) && !HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed);
    std::string text = chance(random, 0.1) ? "\xEF\xBB\xBF" : "", wanted;
    const bool spoilt = chance(random, 0.3);
    const int64_t count = random.uniform_integer(1, 5), bad = spoilt ? random.uniform_integer(count) : -1;
    for (int64_t i = 0; i < count; ++i) {
      while (chance(random, 0.1)) text += one_of(random, std::array<const char*, 3>{"\n", " \n", "\r\n"});
      const std::string sequence = odd_sequence(random);
      if (i == bad) {
        static const std::string kBad[] = {"[]",
                                           "{",
                                           "{\"text\": 3}",
                                           "{\"text\": \"\"}",
                                           "{\"sequence\": \"A\"}",
                                           "A",
                                           "{\"text\": \"A\"}}",
                                           std::string("{\"text\": \"A\0\"}", 14),
                                           "{\"text\": \"A\xFF\"}"};
        text += one_of(random, kBad);
      } else {
        const std::string name = concat("r", i);
        text += one_of(random, std::array<std::string, 3>{
                                   concat("{\"id\": \"", name, "\", \"text\": \"", sequence, "\"}"),
                                   concat(" {\"text\" : \"", sequence, "\" ,\t\"name\":\"", name,
                                          "\", \"more\": {\"x\": [1, null]}} "),
                                   concat("{\"text\":\"", sequence, "\",\"id\":\"", name, "\"}\r")});
        wanted += concat(name, "=", sequence, "\n");
      }
      if (i + 1 < count || chance(random, 0.8)) text += "\n";
    }
    const std::string path = folder_ / "x.jsonl";
    const auto read = [&] {
      return outcome(path, [&] {
        std::string out;
        JsonlReader reader(path);
        for (JsonlRecord record; reader.next(record);) out += concat(record.name, "=", record.text, "\n");
        return out;
      });
    };
    folder_.text("x.jsonl", text);
    const std::string plain = read();
    if (spoilt) {
      EXPECT_EQ(plain.substr(0, 12), "error: line ") << text;
    } else {
      EXPECT_EQ(plain, wanted) << text;
    }
    folder_.gzip("x.jsonl", text);
    EXPECT_EQ(read(), plain) << text;
    small_blocks(folder_, "x.jsonl", text, random);
    EXPECT_EQ(read(), plain) << text;
  }
}

/// Exit status and standard output of a shell command.
std::pair<int, std::string> run(const std::string& command) {
  FILE* pipe = ::popen((command + " 2>/dev/null").c_str(), "r");
  std::string out;
  std::array<char, 4096> buffer;
  while (const std::size_t got = std::fread(buffer.data(), 1, buffer.size(), pipe))
    out.append(buffer.data(), got);
  return {::pclose(pipe), out};
}

TEST_F(OddFiles, FastaAndBedAgreeWithSamtoolsAndBedtools) {
  if (run("samtools --version").first != 0 || run("bedtools --version").first != 0)
    GTEST_SKIP() << "samtools and bedtools are not both installed";
  std::map<std::string, int64_t> seen;
  const uint64_t first = first_seed();
  for (uint64_t seed = first; seed < first + static_cast<uint64_t>(draws(15)) && !HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed);
    const OddFasta drawn = odd_fasta(random, true);
    const std::string path = folder_ / "x.fa";
    for (const bool packed : {false, true}) {
      if (packed) {
        small_blocks(folder_, "x.fa", drawn.text, random);
      } else {
        folder_.text("x.fa", drawn.text);
      }
      const std::string alone = opened(path);
      const std::string own = std::filesystem::exists(path + ".fai") ? read_file(path + ".fai") : "";
      remove_index(path);
      const bool taken =
          run(concat("samtools faidx '", path, "'")).first == 0 && std::filesystem::exists(path + ".fai");
      const std::string theirs = taken ? read_file(path + ".fai") : "";
      // Their index beside the file changes nothing; and is ours, where the file can be indexed.
      EXPECT_EQ(opened(path), alone) << drawn.text;
      if (!own.empty() && taken) {
        EXPECT_EQ(own, theirs) << drawn.text;
      }
      ++seen[concat(drawn.sound ? "sound" : "spoilt",
                    taken ? ", samtools takes it" : ", samtools refuses it")];
      if (drawn.sound && taken && !drawn.has_blanks) {
        std::string regions, wanted, bed, stranded;
        const auto fasta = open_fasta(path);
        for (const std::string& name : fasta->names()) {
          const int64_t begin = random.uniform_integer(fasta->length(name)),
                        end = random.uniform_integer(begin + 1, fasta->length(name));
          const std::string sequence = fasta->fetch(name, begin, end),
                            strand = chance(random, 0.5) ? "-" : "+";
          regions += concat(name, ":", begin + 1, "-", end, "\n");
          wanted += concat(">", name, ":", begin + 1, "-", end, "\n", sequence, "\n");
          bed += concat(name, "\t", begin, "\t", end, "\tx\t0\t", strand, "\n");
          stranded += concat(name, ":", begin, "-", end, "(", strand, ")\t",
                             strand == "-" ? reverse_complement(sequence) : sequence, "\n");
        }
        const auto [status, theirs_read] =
            run(concat("samtools faidx -n 100000 -r '", folder_.text("r.txt", regions), "' '", path, "'"));
        // It indexes a blank line before a record of one line, and cannot read that.
        if (status == 0) {
          EXPECT_EQ(theirs_read, wanted) << drawn.text;
        }
        // bedtools 2.30 leaves the CR of CR LF out of its count.
        if (!packed && drawn.text.find('\r') == drawn.text.npos) {
          EXPECT_EQ(run(concat("bedtools getfasta -s -tab -fi '", path, "' -bed '",
                               folder_.text("r.bed", bed), "'"))
                        .second,
                    stranded)
              << drawn.text;
          ++seen["compared with bedtools"];
        }
        ++seen[status == 0 ? "compared with samtools" : "indexed by samtools, which cannot read them"];
      }
      remove_index(path);
    }
  }
  for (const auto& [kind, times] : seen) std::cout << times << " files " << kind << '\n';
}

}  // namespace
}  // namespace focus::data
