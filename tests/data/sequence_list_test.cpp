#include <fcntl.h>
#include <unistd.h>

#include "files.h"
#include "focus/data/sequence_list.h"

namespace focus::data {
namespace {

std::string all_of(const std::vector<NamedSequence>& list) {
  std::string out;
  for (const NamedSequence& item : list) out += concat(item.name, "=", item.sequence, ";");
  return out;
}

TEST(SequenceList, ReadsTheFirstColumnOfCsv) {
  const Folder folder;
  const std::string content =
      "\xEF\xBB\xBF"
      "Sequence,\"Target, and more\"\r\nACGTacgtN,AC\r\n\r\n\"GATT\",1\nTT\n\"CC\"";
  const std::string expected = "line 2=ACGTacgtN;line 4=GATT;line 5=TT;line 6=CC;";
  EXPECT_EQ(all_of(read_sequences(folder.text("p.csv", content))), expected);
  EXPECT_EQ(all_of(read_sequences(folder.gzip("p.csv.gz", content))), expected);
  EXPECT_EQ(all_of(read_sequences(folder.text("p.txt", content), SequenceFormat::csv)), expected);
}

TEST(SequenceList, ReadsFastaAndLines) {
  const Folder folder;
  const std::string records = "\n>a first\nAC\nGTn\n>b\nTT\n";
  for (const std::string& path : {folder.text("x.fa", records), folder.gzip("x.gz", records)})
    EXPECT_EQ(all_of(read_sequences(path)), "a=ACGTn;b=TT;");
  for (const std::string& path :
       {folder.text("x.txt", "ACGT\n\nggN\r\n"), folder.gzip("y.gz", "ACGT\n\nggN\r\n")})
    EXPECT_EQ(all_of(read_sequences(path)), "line 1=ACGT;line 3=ggN;");
}

TEST(SequenceList, ReadsStandardInput) {
  const Folder folder;
  const int saved = dup(STDIN_FILENO);
  const auto read = [&](const std::string& content, SequenceFormat format) {
    const int file = open(folder.text("in", content).c_str(), O_RDONLY);
    dup2(file, STDIN_FILENO);
    close(file);
    return all_of(read_sequences("-", format));
  };
  EXPECT_EQ(read("AC\nGT\n", SequenceFormat::automatic), "line 1=AC;line 2=GT;");
  EXPECT_EQ(read(">r\nAC\nGT\n", SequenceFormat::fasta), "r=ACGT;");
  EXPECT_EQ(read("head\nAC,1\n", SequenceFormat::csv), "line 2=AC;");
  EXPECT_MESSAGE(read(">r\nAC\n", SequenceFormat::automatic), "FASTA");
  dup2(saved, STDIN_FILENO);
  close(saved);
}

TEST(SequenceList, RefusesWhatHoldsNoSequences) {
  const Folder folder;
  EXPECT_MESSAGE(read_sequences(folder / "none.csv"), "none.csv");
  EXPECT_MESSAGE(read_sequences(folder / "none.txt"), "none.txt");
  EXPECT_MESSAGE(read_sequences(folder.text("a.csv", "")), "no sequence after its header");
  EXPECT_MESSAGE(read_sequences(folder.text("b.csv", "Sequence\n\n")), "no sequence after its header");
  EXPECT_MESSAGE(read_sequences(folder.text("c.csv", "Sequence\nAC\n,1\n")), "line 3");
  EXPECT_MESSAGE(read_sequences(folder.text("d.csv", "Sequence\n\"AC\nGT\"\n")), "not closed");
  EXPECT_MESSAGE(read_sequences(folder.text("e.csv", "Sequence\n\"AC\"GT\n")), "closing quote");
  EXPECT_MESSAGE(read_sequences(folder.text("e.csv", "Sequence\n\"AC\"\"GT\"\n")),
                 "letter 3 of the sequence is '\"'");
  for (const char* separator : {";", "\t", "|", " "}) {
    const std::string said = data::message_of([&] {
      read_sequences(folder.text("s.csv", concat("sequence", separator, "loss\nACGTAC", separator, "1\n")));
    });
    EXPECT_THAT_CONTAINS(said, "line 2 of '");
    EXPECT_THAT_CONTAINS(said, "letter 7 of the sequence is ");
    EXPECT_THAT_CONTAINS(said, "separated by commas");
  }
  EXPECT_MESSAGE(read_sequences(folder.text("i.csv", "id,sequence\nread1,ACGT\n")),
                 "letter 2 of the sequence is 'e'");
  EXPECT_MESSAGE(read_sequences(folder.text("p.txt", "MKTAYIAKQR\n")), "letter 6 of the sequence is 'I'");
  EXPECT_MESSAGE(read_sequences(folder.text("f.txt", "AC\nAC,GT\n")), "line 2");
  EXPECT_MESSAGE(read_sequences(folder.text("g.txt", "\n \n")), "holds no sequence");
  EXPECT_MESSAGE(read_sequences(folder.text("h.fa", ">a\n>b\nAC\n")), "'a'");
}

}  // namespace
}  // namespace focus::data
