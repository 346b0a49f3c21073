#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <thread>

#include "files.h"
#include "focus/core/file.h"
#include "focus/core/log.h"
#include "focus/data/fasta.h"
#include "focus/data/fasta_stream.h"

namespace focus::data {
namespace {

TEST(Fasta, FetchesSlicesOfPlainAndBgzfFiles) {
  const Folder folder;
  const std::string a = letters(150000, 1, "ACGTacgtN"), b = letters(61, 2);
  const std::string content = fasta_record("a first record", a) + fasta_record("b", b, 70);
  for (const std::string& path : {folder.text("x.fa", content), folder.bgzip("x.fa.gz", content)}) {
    const auto fasta = open_fasta(path);
    EXPECT_EQ(fasta->names(), (std::vector<std::string>{"a", "b"}));
    EXPECT_EQ(fasta->length("a"), 150000);
    EXPECT_EQ(fasta->total_length(), 150061);
    EXPECT_TRUE(fasta->contains("b"));
    EXPECT_FALSE(fasta->contains("c"));
    EXPECT_EQ(fasta->fetch("a"), a);
    EXPECT_EQ(fasta->fetch("b"), b);
    EXPECT_EQ(fasta->fetch("a", 99990, 100203), a.substr(99990, 213));
    EXPECT_EQ(fasta->fetch("a", 149999, 150000), a.substr(149999));
    EXPECT_EQ(fasta->fetch("a", 60, 60), "");
    EXPECT_TRUE(std::filesystem::exists(path + ".fai"));
    const auto again = open_fasta(path);  // from the index written above
    EXPECT_EQ(again->fetch("b", 1, 60), b.substr(1, 59));
  }
  EXPECT_TRUE(std::filesystem::exists(folder / "x.fa.gz.gzi"));
  for (const auto& entry : std::filesystem::directory_iterator(folder / "."))
    EXPECT_EQ(entry.path().string().find(".tmp-"), std::string::npos);
}

TEST(Fasta, AcceptsWindowsLineEndsAndNoFinalNewline) {
  const Folder folder;
  const auto windows = open_fasta(folder.text("w.fa", ">a x\r\nACGT\r\nAC\r\n>b\r\nTTT\r\n"));
  EXPECT_EQ(windows->fetch("a"), "ACGTAC");
  EXPECT_EQ(windows->fetch("b"), "TTT");
  const auto open_end = open_fasta(folder.text("n.fa", ">a\nACGT\nAC"));
  EXPECT_EQ(open_end->fetch("a", 3, 6), "TAC");
}

TEST(Fasta, KeepsTheIndexInMemoryWhereTheFolderCannotBeWritten) {
  const Folder folder;
  const char* const before = std::getenv("TMPDIR");
  const std::string saved = before != nullptr ? before : "";
  ASSERT_EQ(::setenv("TMPDIR", "/nonexistent", 1), 0);
  const std::string sequence = letters(500, 3);
  for (const std::string& path : {folder.text("x.fa", fasta_record("a", sequence)),
                                  folder.bgzip("x.fa.gz", fasta_record("a", sequence))}) {
    // Nothing can be created in /proc/self/fd, whoever asks.
    const int fd = ::open(path.c_str(), O_RDONLY);
    ASSERT_GE(fd, 0);
    const auto fasta = open_fasta("/proc/self/fd/" + std::to_string(fd));
    EXPECT_EQ(fasta->fetch("a", 100, 200), sequence.substr(100, 100));
    ::close(fd);
    EXPECT_FALSE(std::filesystem::exists(path + ".fai"));
  }
  before != nullptr ? ::setenv("TMPDIR", saved.c_str(), 1) : ::unsetenv("TMPDIR");
}

TEST(Fasta, RefusesUnsoundFilesByName) {
  const Folder folder;
  EXPECT_MESSAGE(open_fasta(folder / "none.fa"), "does not exist");
  EXPECT_MESSAGE(open_fasta(folder / "."), "holds no FASTA file");
  EXPECT_MESSAGE(open_fasta("/dev/null"), "--fasta -");
  EXPECT_MESSAGE(open_fasta(folder.text("empty.fa", "")), "is empty");
  const std::pair<const char*, const char*> cases[] = {
      {"\n\n", "holds no FASTA record"},
      {"@r\nACGT\n+\nIIII\n", "FASTQ"},
      {"LOCUS  x\n", "GenBank"},
      {"<html>", "web page"},
      {"BZh91AY&SY......................", "bzip2"},
      {"\xFF\xFE>\0a", "UTF-16"},
      {"hello", "line 1 must begin with '>', but begins with 'hello'"},
      {"\n \nACGT\n>a\nAC\n", "line 3 must begin with '>'"},
      {" >a\nAC\n", "line 1 of"},
      {"> a\nAC\n", "no name"},
      {">a\nAC\n>\tb\nAC\n", "line 3 of"},
      {">a\nAC\n>b\n>c\nAC\n", "line 3 of"},
      {">a\nAC\n>b\n", "record 'b' has no bases"},
      {">a\nAC\n>b", "record 'b' has no bases"},
      {">a\nAC\n>b\n \n\r\n", "record 'b' has no bases"},
      {">a x\nAC\n>a y\nAC\n", "line 3 of"},
      {">a\x1B[31m\nAC\n", "'a\\x1b[31m'"},
      {">a\xFF\nAC\n", "bytes that are no text"},
      {">a x\rACGT\rAC\r", "tr '\\r' '\\n'"},
      {">a\nAC\rGT\n", "line 2 of"},
      {">a\nAC\r\r\n", "line 2 of"},
      {">a\nACGT\nMKVLE\n", "column 4: position 8 of record 'a' holds 'L'"},
      {">a\n   1 ACGT\n", "column 4: position 1 of record 'a' holds '1'"},
      {">a\nAC GT-A\n", "column 6: position 5 of record 'a' holds '-'"},
      {">a\nACGT\nAC>b\n", "holds '>'"},
      {">a\nACGT\nAC\xC2\xA0GT\n", "byte 194"},
      {">a\nACGT\nAC\x7FGT\n", "byte 127"},
      {">a\nACGT\n;GT\n", "holds ';'"},
      {">a\nACGT\n\x1A", "byte 26"},
  };
  for (const auto& [content, part] : cases) {
    std::vector<std::string> said;
    for (const std::string& path :
         {folder.text("x.fa", content), folder.gzip("x.fa", content), folder.bgzip("x.fa", content)}) {
      said.push_back(message_of([&] { open_fasta(path); }));
      EXPECT_THAT_CONTAINS(said.back(), part);
      EXPECT_EQ(said.back(), said.front());
      EXPECT_EQ(said.back(), message_of([&] {
                  FastaStream stream(path);
                  for (FastaRecord record; stream.next(record);) {
                  }
                }));
      EXPECT_FALSE(std::filesystem::exists(path + ".fai"));
    }
  }
  const std::string zero(">a\nAC\0GT\n", 9);
  EXPECT_MESSAGE(open_fasta(folder.text("zero.fa", zero)), "column 3: position 3 of record 'a' holds byte 0");
}

TEST(Fasta, SkipsBlanksAndReadsUnequalLinesInEveryPacking) {
  const Folder folder;
  const std::pair<const char*, bool> cases[] = {
      // What the file holds, and whether it can be indexed. The records are always a = ACGTACGTAC and b =
      // TTGG.
      {">a x\nACGTA\nCGTAC\n>b\nTTGG\n", true},
      {"\xEF\xBB\xBF>a x\nACGTA\nCGTAC\n>b\nTTGG", true},
      {"\n \t\n>a\tx\r\nACGTA\r\nCGTAC\r\n\r\n\n>b\r\nTTGG\r", true},
      {">a\nACGTACGTAC\n \n>b\nTTG\nG", true},
      {">a\nACGTA\nCGTAC  \n>b\nTTGG\n", false},
      {">a\nACG TA\nCGT AC\n>b\nTTGG\n", false},
      {">a\nACGTA \nCGTAC \n>b\nTTGG\n", false},
      {">a\nACGTA\nCG\nTAC\n>b\nTTGG\n", false},
      {">a\nACG\nTACGTAC\n>b\nTTGG\n", false},
      {">a\nACGTA\n\nCGTAC\n>b\nTTGG\n", false},
      {">a\n\nACGTA\nCGTAC\n>b\nTTGG\n", false},
      {">a\nACGTA\r\nCGTAC\n>b\nTTGG\n", true},
      {">a\nACGTA\r\nCGTA\nC\n>b\nTTGG\n", false},
      {">a\n\tACGTACGTAC\t\n>b\n TT\tG G", false},
  };
  log::set_verbosity(0);
  for (const auto& [content, indexed] : cases) {
    int place = 0;
    for (const std::string& path :
         {folder.text("x.fa", content), folder.gzip("x.fa.gz", content), folder.bgzip("x.fa.bgz", content)}) {
      for (const char* index : {".fai", ".gzi"}) std::filesystem::remove(path + index);
      for (int again = 0; again < 2; ++again) {
        const auto fasta = open_fasta(path);
        EXPECT_EQ(fasta->names(), (std::vector<std::string>{"a", "b"})) << content;
        EXPECT_EQ(fasta->fetch("a"), "ACGTACGTAC") << content;
        EXPECT_EQ(fasta->fetch("a", 4, 9), "ACGTA") << content;
        EXPECT_EQ(fasta->fetch("b", 1, 3), "TG") << content;
        EXPECT_EQ(fasta->in_memory(), !indexed || place == 1) << content;
        EXPECT_EQ(std::filesystem::exists(path + ".fai"), indexed && place != 1) << content;
      }
      ++place;
    }
  }
  log::set_verbosity(1);
}

/// What a program sees of a file: all records.
std::string all_of(const SequenceFile& fasta) {
  std::string out;
  for (const std::string& name : fasta.names()) out += concat(name, "=", fasta.fetch(name), ";");
  return out;
}

TEST(Fasta, RebuildsAnIndexThatDoesNotFit) {
  const Folder folder;
  const std::string a = letters(200, 1), b = letters(200, 2), c = letters(90, 3);
  const std::string content = fasta_record("a", a) + fasta_record("b x y", b) + fasta_record("c", c);
  const std::string wanted = concat("a=", a, ";b=", b, ";c=", c, ";");
  for (const bool packed : {false, true}) {
    const std::string path = packed ? folder.bgzip("x.fa.gz", content) : folder.text("x.fa", content);
    open_fasta(path);
    const std::string right = read_file(path + ".fai");
    const std::vector<std::string> lines = [&] {
      std::vector<std::string> out;
      std::istringstream in(right);
      for (std::string line; std::getline(in, line);) out.push_back(line + "\n");
      return out;
    }();
    ASSERT_EQ(lines.size(), 3U);
    const auto swapped = [&](std::string text, const std::string& from, const std::string& to) {
      return text.replace(text.find(from), from.size(), to);
    };
    for (const std::string& wrong :
         {std::string(), std::string("\n"), std::string("not an index\n"), lines[0] + lines[1],
          lines[1] + lines[2], lines[0] + lines[2], lines[1] + lines[0] + lines[2],
          swapped(lines[0], "a", "b") + swapped(lines[1], "b", "a") + lines[2],
          lines[0] + swapped(lines[1], "b", "bb") + lines[2], right + swapped(lines[2], "c", "d"),
          right + lines[0], swapped(lines[0], "\t60\t61", "\t50\t51") + lines[1] + lines[2],
          swapped(lines[0], "\t60\t61", "\t0\t1") + lines[1] + lines[2],
          swapped(lines[0], "\t60\t61", "\t60\t62") + lines[1] + lines[2],
          swapped(lines[0], "200", "260") + lines[1] + lines[2],
          swapped(lines[0], "200", "999999999999999999999") + lines[1] + lines[2],
          swapped(lines[0], "200", "140") + lines[1] + lines[2],
          lines[0] + lines[1] + swapped(lines[2], "90", "89"),
          lines[0] + lines[1] + swapped(lines[2], "90", "91")}) {
      write_file(path + ".fai", wrong);
      ::testing::internal::CaptureStderr();
      EXPECT_EQ(all_of(*open_fasta(path)), wanted) << wrong;
      EXPECT_THAT_CONTAINS(::testing::internal::GetCapturedStderr(), "it is built again");
      EXPECT_EQ(read_file(path + ".fai"), right) << wrong;
    }
    // Older than the file, though it fits to the byte.
    const auto now = std::filesystem::last_write_time(path);
    std::filesystem::last_write_time(path + ".fai", now - std::chrono::hours(1));
    ::testing::internal::CaptureStderr();
    EXPECT_EQ(all_of(*open_fasta(path)), wanted);
    EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
    EXPECT_GE(std::filesystem::last_write_time(path + ".fai"), now);
  }
}

TEST(Fasta, ReadsLineByLineWhereAnIndexLeavesLineEndsOut) {
  const Folder folder;
  const std::string path = folder.text("x.fa", ">a\nGGTTC\nAC\r\r\n");
  folder.text("x.fa.fai", "a\t7\t3\t5\t6\n");  // as samtools makes it
  try {
    open_fasta(path);
    FAIL() << "expected a DataError";
  } catch (const DataError& e) {
    EXPECT_NE(std::string(e.what()).find("line 3 of"), std::string::npos) << e.what();
  }
}

TEST(Fasta, DoesWithoutADamagedBgzfIndex) {
  const Folder folder;
  const std::string a = letters(300000, 1),
                    path = folder.bgzip("x.fa.gz", fasta_record("a", a) + fasta_record("b", "ACGT"));
  open_fasta(path);
  const std::string right = read_file(path + ".gzi");
  ASSERT_GE(right.size(), 8U + 4 * 16);
  std::string shifted = right, foreign = right;
  shifted[8 + 16 + 8] ^= 1;  // the unpacked offset of the second entry
  foreign[8 + 16] ^= 4;      // its packed one
  for (const std::string& wrong :
       {std::string(), std::string(8, '\0'), std::string(8, '\xFF'), right.substr(0, right.size() - 3),
        right.substr(0, right.size() - 16), shifted, foreign, std::string(right.size(), 'x')}) {
    write_file(path + ".gzi", wrong);
    const auto fasta = open_fasta(path);
    for (int64_t begin = 0; begin < 300000; begin += 20011)
      EXPECT_EQ(fasta->fetch("a", begin, std::min<int64_t>(300000, begin + 100)),
                a.substr(static_cast<std::size_t>(begin), 100))
          << begin;
    EXPECT_EQ(all_of(*fasta), concat("a=", a, ";b=ACGT;"));
  }
}

TEST(Fasta, RefusesBgzfThatWasCutShort) {
  const Folder folder;
  const std::string a = letters(200000, 1),
                    content = fasta_record("a", a) + fasta_record("b", letters(90000, 2));
  const std::string path = folder.bgzip("x.fa.gz", content);
  open_fasta(path);  // the index of the whole file stays beside the cut one
  const std::string whole = read_file(path), gzi = read_file(path + ".gzi");
  uint64_t third = 0;
  std::memcpy(&third, gzi.data() + 8 + 2 * 16, 8);
  for (const std::size_t size : {whole.size() - 28, static_cast<std::size_t>(third)}) {
    std::filesystem::resize_file(path, size);
    EXPECT_MESSAGE(open_fasta(path), "cut short");
    EXPECT_MESSAGE(FastaStream{path}, "--allow-truncated");
    const auto part = open_fasta(path, {.held_bases = 1 << 20, .advice = "", .allow_truncated = true});
    const std::string got = all_of(*part);
    EXPECT_EQ(got.substr(0, 1000), concat("a=", a).substr(0, 1000));
    FastaStream stream(path, true);
    std::string streamed;
    for (FastaRecord record; stream.next(record);) streamed += concat(record.name, "=", record.sequence, ";");
    EXPECT_EQ(streamed, got);
    folder.text("x.fa.gz", whole);
    EXPECT_EQ(open_fasta(path)->length("b"), 90000);
  }
  for (const std::size_t size : {whole.size() - 5, static_cast<std::size_t>(third) + 700}) {
    folder.text("x.fa.gz", whole.substr(0, size));
    EXPECT_MESSAGE(open_fasta(path), "cut short");
    EXPECT_MESSAGE(FastaStream{path}, "cut short");
  }
  const std::string gzipped = read_file(folder.gzip("y.fa.gz", content));
  for (const std::string& broken : {gzipped.substr(0, gzipped.size() - 100), gzipped + "tail"})
    EXPECT_MESSAGE(open_fasta(folder.text("y.fa.gz", broken)), "damaged or cut short");
}

TEST(Fasta, ExplainsUnknownRecordsAndRanges) {
  const Folder folder;
  const auto fasta = open_fasta(folder.text("x.fa", ">chr1\nACGT\n>chrX\nAC\n>scaffold_12\nA\n"));
  EXPECT_MESSAGE(fasta->length("1"),
                 "did you mean 'chr1'? (the file and the request differ in the 'chr' prefix)");
  EXPECT_MESSAGE(fasta->fetch("scafold_12", 0, 1), "did you mean 'scaffold_12'?");
  EXPECT_MESSAGE(fasta->length("plasmid"), "it holds 3 record(s)");
  EXPECT_MESSAGE(fasta->fetch("chr1", 2, 5), "has 4 bases");
  EXPECT_MESSAGE(fasta->fetch("chr1", -1, 2), "has 4 bases");
}

TEST(Fasta, ServesSeveralThreads) {
  const Folder folder;
  const std::string sequence = letters(100000, 5);
  const auto fasta = open_fasta(folder.bgzip("x.fa.gz", fasta_record("a", sequence)));
  std::vector<std::thread> threads;
  std::vector<int> wrong(4, 0);
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int64_t i = t; i < 99000; i += 997)
        wrong[static_cast<std::size_t>(t)] +=
            fasta->fetch("a", i, i + 500) != sequence.substr(static_cast<std::size_t>(i), 500);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(4, 0));
}

}  // namespace
}  // namespace focus::data
