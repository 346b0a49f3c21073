#include <fcntl.h>
#include <unistd.h>

#include <thread>

#include "files.h"
#include "focus/data/fasta.h"

namespace focus::data {
namespace {

TEST(FastaFile, FetchesSlicesOfPlainAndBgzfFiles) {
  const Folder folder;
  const std::string a = letters(150000, 1, "ACGTacgtN"), b = letters(61, 2);
  const std::string content = fasta_record("a first record", a) + fasta_record("b", b, 70);
  for (const std::string& path : {folder.text("x.fa", content), folder.bgzip("x.fa.gz", content)}) {
    const FastaFile fasta(path);
    EXPECT_EQ(fasta.names(), (std::vector<std::string>{"a", "b"}));
    EXPECT_EQ(fasta.length("a"), 150000);
    EXPECT_EQ(fasta.total_length(), 150061);
    EXPECT_TRUE(fasta.contains("b"));
    EXPECT_FALSE(fasta.contains("c"));
    EXPECT_EQ(fasta.fetch("a"), a);
    EXPECT_EQ(fasta.fetch("b"), b);
    EXPECT_EQ(fasta.fetch("a", 99990, 100203), a.substr(99990, 213));
    EXPECT_EQ(fasta.fetch("a", 149999, 150000), a.substr(149999));
    EXPECT_EQ(fasta.fetch("a", 60, 60), "");
    EXPECT_TRUE(std::filesystem::exists(path + ".fai"));
    const FastaFile again(path);  // from the index written above
    EXPECT_EQ(again.fetch("b", 1, 60), b.substr(1, 59));
  }
  EXPECT_TRUE(std::filesystem::exists(folder / "x.fa.gz.gzi"));
  for (const auto& entry : std::filesystem::directory_iterator(folder / "."))
    EXPECT_EQ(entry.path().string().find(".tmp-"), std::string::npos);
}

TEST(FastaFile, AcceptsWindowsLineEndsAndNoFinalNewline) {
  const Folder folder;
  const FastaFile windows(folder.text("w.fa", ">a x\r\nACGT\r\nAC\r\n>b\r\nTTT\r\n"));
  EXPECT_EQ(windows.fetch("a"), "ACGTAC");
  EXPECT_EQ(windows.fetch("b"), "TTT");
  const FastaFile open_end(folder.text("n.fa", ">a\nACGT\nAC"));
  EXPECT_EQ(open_end.fetch("a", 3, 6), "TAC");
}

TEST(FastaFile, KeepsTheIndexElsewhereWhereTheFolderCannotBeWritten) {
  const Folder folder, temporary;
  ASSERT_EQ(::setenv("TMPDIR", (temporary / ".").c_str(), 1), 0);
  const std::string sequence = letters(500, 3);
  for (const std::string& path : {folder.text("x.fa", fasta_record("a", sequence)), folder.bgzip("x.fa.gz", fasta_record("a", sequence))}) {
    // Nothing can be created in /proc/self/fd, whoever asks.
    const int fd = ::open(path.c_str(), O_RDONLY);
    ASSERT_GE(fd, 0);
    const FastaFile fasta("/proc/self/fd/" + std::to_string(fd));
    EXPECT_EQ(fasta.fetch("a", 100, 200), sequence.substr(100, 100));
    ::close(fd);
    EXPECT_FALSE(std::filesystem::exists(path + ".fai"));
  }
  EXPECT_TRUE(std::filesystem::is_empty(temporary / "."));
  ::unsetenv("TMPDIR");
}

TEST(FastaFile, RefusesUnsoundFilesByName) {
  const Folder folder;
  EXPECT_MESSAGE(FastaFile(folder / "none.fa"), "does not exist");
  EXPECT_MESSAGE(FastaFile(folder / "."), "not a regular file");
  EXPECT_MESSAGE(FastaFile(folder.text("empty.fa", "")), "is empty");
  EXPECT_MESSAGE(FastaFile(folder.text("blank.fa", "\n\n")), "holds no record");
  EXPECT_MESSAGE(FastaFile(folder.gzip("plain.fa.gz", ">a\nACGT\n")), "bgzip");
  EXPECT_MESSAGE(FastaFile(folder.text("reads.fq", "@r\nACGT\n+\nIIII\n")), "FASTQ");
  EXPECT_MESSAGE(FastaFile(folder.text("prose.fa", "hello")), "begins with 'h'");
  EXPECT_MESSAGE(FastaFile(folder.text("hole.fa", ">a\nAC\n>b\n>c\nAC\n")), "record 'b'");
  EXPECT_MESSAGE(FastaFile(folder.text("tail.fa", ">a\nAC\n>b\n")), "record 'b'");
  EXPECT_MESSAGE(FastaFile(folder.text("unfinished.fa", ">a\nAC\n>b")), "record 'b'");
  EXPECT_MESSAGE(FastaFile(folder.text("twice.fa", ">a x\nAC\n>a y\nAC\n")), "occurs twice");
  EXPECT_MESSAGE(FastaFile(folder.text("nameless.fa", "> a\nAC\n")), "no name");
  EXPECT_MESSAGE(FastaFile(folder.text("ragged.fa", ">a\nACGT\nAC\nACGT\n")), "same length");
}

TEST(FastaFile, RefusesAnIndexOfAnotherFile) {
  const Folder folder;
  for (const bool packed : {false, true}) {
    const auto write = [&](const std::string& content) { return packed ? folder.bgzip("x.fa.gz", content) : folder.text("x.fa", content); };
    FastaFile(write(fasta_record("a", letters(200, 1)) + fasta_record("b", letters(90, 2))));
    const std::string path = write(fasta_record("a", letters(203, 1)) + fasta_record("b", letters(90, 2)));
    EXPECT_MESSAGE(FastaFile{path}, "does not fit");
    std::filesystem::remove(path + ".fai");
    EXPECT_EQ(FastaFile(path).length("a"), 203);
  }
}

TEST(FastaFile, ExplainsUnknownRecordsAndRanges) {
  const Folder folder;
  const FastaFile fasta(folder.text("x.fa", ">chr1\nACGT\n>chrX\nAC\n>scaffold_12\nA\n"));
  EXPECT_MESSAGE(fasta.length("1"), "did you mean 'chr1'? (the file and the request differ in the 'chr' prefix)");
  EXPECT_MESSAGE(fasta.fetch("scafold_12", 0, 1), "did you mean 'scaffold_12'?");
  EXPECT_MESSAGE(fasta.length("plasmid"), "it holds 3 record(s)");
  EXPECT_MESSAGE(fasta.fetch("chr1", 2, 5), "has 4 bases");
  EXPECT_MESSAGE(fasta.fetch("chr1", -1, 2), "has 4 bases");
}

TEST(FastaFile, ServesSeveralThreads) {
  const Folder folder;
  const std::string sequence = letters(100000, 5);
  const FastaFile fasta(folder.bgzip("x.fa.gz", fasta_record("a", sequence)));
  std::vector<std::thread> threads;
  std::vector<int> wrong(4, 0);
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int64_t i = t; i < 99000; i += 997)
        wrong[static_cast<std::size_t>(t)] += fasta.fetch("a", i, i + 500) != sequence.substr(static_cast<std::size_t>(i), 500);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(4, 0));
}

}  // namespace
}  // namespace focus::data
