#include <fcntl.h>
#include <unistd.h>

#include "files.h"
#include "focus/data/fasta_stream.h"

namespace focus::data {
namespace {

std::string all_of(FastaStream& stream) {
  std::string out;
  for (FastaRecord record; stream.next(record);) out += record.name + "=" + record.sequence + ";";
  return out;
}

std::string message_of(const std::string& path) {
  try {
    FastaStream stream(path);
    all_of(stream);
  } catch (const DataError& error) {
    return error.what();
  }
  return "";
}

TEST(FastaStream, ReadsPlainGzipAndBgzf) {
  const Folder folder;
  const std::string a = letters(100000, 1, "ACGTacgtN"),
                    content = concat("\n", fasta_record("a first record", a), "\n>b\tx\r\nAC GT\r\n\r\nTT");
  for (const std::string& path :
       {folder.text("x.fa", content), folder.gzip("x.fa.gz", content), folder.bgzip("x.fa.bgz", content)}) {
    FastaStream stream(path);
    EXPECT_EQ(all_of(stream), concat("a=", a, ";b=ACGTTT;"));
    FastaRecord after;
    EXPECT_FALSE(stream.next(after));
  }
}

TEST(FastaStream, ReadsStandardInput) {
  const Folder folder;
  const int file = open(folder.text("x.fa", ">a\nAC\n>b\nGT\n").c_str(), O_RDONLY), saved = dup(STDIN_FILENO);
  dup2(file, STDIN_FILENO);
  {
    FastaStream stream("-");
    EXPECT_EQ(all_of(stream), "a=AC;b=GT;");
  }
  EXPECT_NE(fcntl(STDIN_FILENO, F_GETFD), -1);
  dup2(saved, STDIN_FILENO);
  close(saved);
  close(file);
}

TEST(FastaStream, RefusesWhatIsNoFasta) {
  const Folder folder;
  const auto refused = [&](const std::string& content) { return message_of(folder.text("x.fa", content)); };
  EXPECT_NE(refused("").find("holds no FASTA record"), std::string::npos);
  EXPECT_NE(refused("@r\nAC\n+\nII\n").find("FASTQ"), std::string::npos);
  EXPECT_NE(refused("\nACGT\n").find("line 2 must begin with '>'"), std::string::npos);
  EXPECT_NE(refused(">a\nAC\n> b\nAC\n").find("line 3"), std::string::npos);
  EXPECT_NE(refused(">a\nAC\n>a\nAC\n").find("'a' occurs twice"), std::string::npos);
  EXPECT_NE(refused(">a\n>b\nAC\n").find("'a' has no bases"), std::string::npos);
  EXPECT_NE(refused(">a\nAC\n>b\n \n").find("'b' has no bases"), std::string::npos);
  EXPECT_NE(message_of(folder / "none.fa").find("none.fa"), std::string::npos);
  const std::string whole = folder.gzip("cut.fa.gz", fasta_record("a", letters(100000, 3)));
  std::filesystem::resize_file(whole, std::filesystem::file_size(whole) / 2);
  EXPECT_NE(message_of(whole).find("cut.fa.gz"), std::string::npos);
}

}  // namespace
}  // namespace focus::data
