#include "focus/data/region.h"
#include "files.h"
#include "focus/data/fasta.h"
#include "focus/data/jsonl.h"

namespace focus::data {
namespace {

class Regions : public ::testing::Test {
 protected:
  Folder folder_;
  std::unique_ptr<SequenceFile> file_ = open_fasta(folder_.text(
      "x.fa", fasta_record("chr1", letters(5000, 1)) + fasta_record("HLA:01", letters(300, 2)) +
                  fasta_record("HLA", letters(100, 3)) + fasta_record("20:1-40", letters(40, 4))));
  const SequenceFile& fasta_ = *file_;
};

TEST_F(Regions, ReadsEveryForm) {
  EXPECT_EQ(parse_region("chr1", fasta_), (Region{"chr1", 0, 5000}));
  EXPECT_EQ(parse_region("chr1:1,001-2,000", fasta_), (Region{"chr1", 1000, 2000}));
  EXPECT_EQ(parse_region("chr1:4000", fasta_), (Region{"chr1", 3999, 5000}));
  EXPECT_EQ(parse_region("chr1:4000-", fasta_), (Region{"chr1", 3999, 5000}));
  EXPECT_EQ(parse_region("chr1:7-7", fasta_), (Region{"chr1", 6, 7}));
}

TEST_F(Regions, ResolvesColonsByTheLongestName) {
  EXPECT_EQ(parse_region("HLA:01", fasta_), (Region{"HLA:01", 0, 300}));
  EXPECT_EQ(parse_region("HLA:01:5-9", fasta_), (Region{"HLA:01", 4, 9}));
  EXPECT_EQ(parse_region("HLA:02-09", fasta_), (Region{"HLA", 1, 9}));
  EXPECT_EQ(parse_region("{HLA}:01-9", fasta_), (Region{"HLA", 0, 9}));
  EXPECT_EQ(parse_region("{HLA:01}", fasta_), (Region{"HLA:01", 0, 300}));
  EXPECT_EQ(parse_region("20:1-40", fasta_), (Region{"20:1-40", 0, 40}));
  EXPECT_EQ(parse_region("20:1-40:2-3", fasta_), (Region{"20:1-40", 1, 3}));
}

TEST_F(Regions, FormatsWhatItReads) {
  for (const Region& region : {Region{"chr1", 0, 5000}, Region{"HLA:01", 3, 7}, Region{"20:1-40", 0, 1}})
    EXPECT_EQ(parse_region(format_region(region), fasta_), region);
  EXPECT_EQ(format_region({"chr1", 1000, 2000}), "chr1:1001-2000");
  EXPECT_EQ(format_region({"HLA:01", 0, 9}), "{HLA:01}:1-9");
}

TEST_F(Regions, ExplainsWhatIsWrong) {
  EXPECT_MESSAGE(parse_region("", fasta_), "empty region");
  EXPECT_MESSAGE(parse_region("chr2:1-9", fasta_), "no record 'chr2'");
  EXPECT_MESSAGE(parse_region("1:1-9", fasta_), "did you mean 'chr1'?");
  EXPECT_MESSAGE(parse_region("chr1:0-9", fasta_), "counted from 1");
  EXPECT_MESSAGE(parse_region("chr1:9-2", fasta_), "ends before it starts");
  EXPECT_MESSAGE(parse_region("chr1:4,990-5,001", fasta_), "which has 5000 bases");
  EXPECT_MESSAGE(parse_region("chr1:5001", fasta_), "which has 5000 bases");
  EXPECT_MESSAGE(parse_region("chr1:ten-20", fasta_), "'ten' is not a position");
  for (const char* position :
       {"1,5", "1,00", "1,0000", "1001,000", ",100", "1,,000", "1,000,", "1e3", "1.5", "+7"})
    EXPECT_MESSAGE(parse_region(concat("chr1:", position), fasta_),
                   concat("'", position, "' is not a position"));
  EXPECT_MESSAGE(parse_region("chr1:99999999999999999999-", fasta_), "is not a position");
  EXPECT_MESSAGE(parse_region("{chr1:3-4", fasta_), "'{' without '}'");
}

TEST_F(Regions, ReadsBedFiles) {
  const std::string content = "# comment\ntrack name=x\nchr1\t10\t20\tgene\t0\t+\n\nHLA:01 0 300\r\n";
  const std::vector<Region> expected{{"chr1", 10, 20}, {"HLA:01", 0, 300}};
  EXPECT_EQ(read_bed(folder_.text("a.bed", content), fasta_), expected);
  EXPECT_EQ(read_bed(folder_.gzip("a.bed.gz", content), fasta_), expected);
  EXPECT_EQ(read_regions({"chr1:1-2", folder_ / "a.bed"}, fasta_),
            (std::vector<Region>{{"chr1", 0, 2}, expected[0], expected[1]}));
  EXPECT_MESSAGE(read_bed(folder_.text("b.bed", "chr1\t1\t2\nchr1\t5\n"), fasta_), "line 2 of");
  EXPECT_MESSAGE(read_bed(folder_.text("c.bed", "chr1\t5\t5\n"), fasta_), "empty or negative");
  EXPECT_MESSAGE(read_bed(folder_.text("d.bed", "1\t5\t6\n"), fasta_), "did you mean 'chr1'?");
  EXPECT_MESSAGE(read_bed(folder_.text("e.bed", "chr1\t5\t5001\n"), fasta_), "has 5000 bases");
  EXPECT_MESSAGE(read_bed(folder_.text("f.bed", "# nothing\n"), fasta_), "holds no region");
  EXPECT_MESSAGE(read_bed(folder_ / "none.bed", fasta_), "cannot open");
}

TEST_F(Regions, ReadsBedPositionsWhole) {
  const auto said = [&](const std::string& line) {
    return data::message_of([&] { read_bed(folder_.text("p.bed", "chr1\t0\t9\n" + line + "\n"), fasta_); });
  };
  for (const char* end : {"1e+03", "1E3", "1,000", "900bp", "1000.75", "1000.0", "0x3e8", "+100", "1_000",
                          "ten", "1000\xC2\xA0"}) {
    EXPECT_THAT_CONTAINS(said(concat("chr1\t0\t", end)), "line 2 of '");
    EXPECT_THAT_CONTAINS(said(concat("chr1\t0\t", end)), "column 3 (end)");
    EXPECT_THAT_CONTAINS(said(concat("chr1 ", end, " 2000")), "column 2 (begin)");
  }
  EXPECT_THAT_CONTAINS(said("chr1\t-5\t10"), "column 2 (begin): -5 is negative");
  EXPECT_THAT_CONTAINS(said("chr1\t0\t99999999999999999999"),
                       "column 3 (end): '99999999999999999999' is too large");
  EXPECT_THAT_CONTAINS(said("chr1\t0"), "column 3 (end): missing");
  EXPECT_THAT_CONTAINS(said("chr1"), "column 2 (begin): missing");
  EXPECT_THAT_CONTAINS(said("chr1\t\t5\t10"), "column 2 (begin): missing");
  EXPECT_THAT_CONTAINS(said("\t5\t10"), "column 1 (name): missing");
  EXPECT_THAT_CONTAINS(said("chr1\t0\t9\rchr1\t0\t9\r"), "'9\\x0dchr1'");
  EXPECT_THAT_CONTAINS(said("chrom\tstart\tend"), "'start' is not a whole number");
}

TEST(Bed, TellsRecordsFromLinesForABrowser) {
  const Folder folder;
  std::string content;
  for (const char* name : {"track", "track1", "browser", "browser_9", "tracks.2"})
    content += fasta_record(name, letters(50, 1));
  const auto fasta = open_fasta(folder.text("x.fa", content));
  const std::string bed =
      "\xEF\xBB\xBF#chrom\nbrowser position track:1-9\nbrowser hide all\ntrack name=\"a b\" "
      "useScore=1\ntrack\nbrowser\n \n"
      "track1\t1\t2\r\nbrowser_9\t1\t2\ntracks.2 1 2\ntrack\t3\t4\nbrowser 5 6\n";
  EXPECT_EQ(
      read_bed(folder.text("x.bed", bed), *fasta),
      (std::vector<Region>{
          {"track1", 1, 2}, {"browser_9", 1, 2}, {"tracks.2", 1, 2}, {"track", 3, 4}, {"browser", 5, 6}}));
  EXPECT_MESSAGE(read_bed(folder.text("y.bed", "track1\t1\t2\ntrack\t3\t1e+05\n")), "line 2 of");
}

TEST_F(Regions, ReadsNamesAndStrandsOfBedFiles) {
  const std::string content =
      "chr1\t0\t9\nchr1\t0\t9\tgene one\nchr1\t 0 \t9\t\t0\t-\nchr1 0 9 x 0 + "
      "5\nchr1\t0\t9\t.\t.\t.\nchr1\t0\t9\ty\t0\tminus\n";
  const auto rows = read_bed_rows(folder_.bgzip("a.bed.bgz", content), fasta_);
  std::string names, strands;
  for (const BedRow& row : rows) {
    EXPECT_EQ(row.region, (Region{"chr1", 0, 9}));
    names += row.name + "|";
    strands += row.strand;
  }
  EXPECT_EQ(names, "|gene one||x|.|y|");
  EXPECT_EQ(strands, "..-+.?");
}

TEST(SubtractRegions, LeavesTheRest) {
  const std::vector<Region> left =
      subtract_regions({{"a", 0, 100}, {"b", 0, 10}},
                       {{"a", 50, 60}, {"a", 0, 5}, {"a", 55, 70}, {"a", 90, 200}, {"c", 0, 9}});
  EXPECT_EQ(left, (std::vector<Region>{{"a", 5, 50}, {"a", 70, 90}, {"b", 0, 10}}));
  EXPECT_TRUE(subtract_regions({{"a", 5, 9}}, {{"a", 0, 9}}).empty());
}

TEST(JsonlReader, ReadsPlainAndGzipLines) {
  const Folder folder;
  const std::string big = letters(100000, 9);
  const std::string content = "{\"text\": \"ACGT\", \"id\": \"one\"}\n\n{\"name\": 7, \"text\": \"" + big +
                              "\", \"more\": [1]}\n{\"text\":\"tt\"}";
  for (const std::string& path : {folder.text("x.jsonl", content), folder.gzip("x.jsonl.gz", content)}) {
    JsonlReader reader(path);
    JsonlRecord record;
    ASSERT_TRUE(reader.next(record));
    EXPECT_EQ(record.name, "one");
    EXPECT_EQ(record.text, "ACGT");
    ASSERT_TRUE(reader.next(record));
    EXPECT_EQ(record.name, "7");
    EXPECT_EQ(record.text, big);
    EXPECT_EQ(record.line, 3);
    ASSERT_TRUE(reader.next(record));
    EXPECT_EQ(record.name, "line-4");
    EXPECT_FALSE(reader.next(record));
  }
}

TEST(JsonlReader, NamesFileAndLineOfBadInput) {
  const Folder folder;
  const auto read_all = [](const std::string& path) {
    JsonlReader reader(path);
    JsonlRecord record;
    while (reader.next(record)) {
    }
  };
  EXPECT_MESSAGE(read_all(folder / "none.jsonl"), "cannot open");
  EXPECT_MESSAGE(read_all(folder.text("a.jsonl", "{\"text\": \"A\"}\n{\"text\": \n")), "line 2 of");
  for (const std::string& deep :
       {std::string(200'000, '['),
        "{\"text\": \"A\", \"name\": " + std::string(200'000, '[') + std::string(200'000, ']') + "}"})
    EXPECT_MESSAGE(read_all(folder.text("deep.jsonl", "{\"text\": \"A\"}\n" + deep + "\n")),
                   "nested more than 100 levels");
  EXPECT_MESSAGE(read_all(folder.text("b.jsonl", "[1]\n")), "expected an object");
  EXPECT_MESSAGE(read_all(folder.text("c.jsonl", "{\"sequence\": \"A\"}\n")), "no \"text\"");
  EXPECT_MESSAGE(read_all(folder.text("d.jsonl", "{\"text\": 3}\n")), "must be a string");
  EXPECT_MESSAGE(read_all(folder.text("e.jsonl", "{\"text\": \"\"}\n")), "is empty");
  std::string packed;
  {
    const std::string path = folder.gzip("whole.jsonl.gz", "{\"text\": \"" + letters(50000, 1) + "\"}\n");
    std::ifstream in(path, std::ios::binary);
    packed.assign(std::istreambuf_iterator<char>(in), {});
  }
  EXPECT_MESSAGE(read_all(folder.text("cut.jsonl.gz", packed.substr(0, packed.size() / 2))), "cut.jsonl.gz");
}

}  // namespace
}  // namespace focus::data
