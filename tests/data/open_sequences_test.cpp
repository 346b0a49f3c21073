#include "focus/data/open_sequences.h"

#include <sys/resource.h>

#include <algorithm>

#include "files.h"
#include "focus/data/input_files.h"
#include "focus/data/sampler.h"

namespace focus::data {
namespace {

namespace fs = std::filesystem;

std::string line(const std::string& text) { return "{\"text\": \"" + text + "\"}\n"; }

TEST(OpenSequences, AFolderIsAllOfItsFilesByName) {
  const Folder folder;
  const std::string a = letters(700, 1), b = letters(800, 2), c = letters(900, 3), d = letters(100, 4);
  folder.bgzip("chr2.fa.gz", fasta_record("two", b));
  folder.text("chr1.fasta", fasta_record("one", a) + fasta_record("more", d));
  folder.gzip("x.fna.gz", fasta_record("x", c));
  folder.gzip("y.jsonl.gz", line(c) + line(d));
  folder.text("z.jsonl", line(a));
  folder.text("README.txt", "not sequence");
  fs::create_directory(folder / "deeper.fa");
  const std::string path = folder / ".";
  for (int again = 0; again < 2; ++again) {  // indices are there the second time
    const auto all = open_sequences(path);
    EXPECT_EQ(all->names(), (std::vector<std::string>{"one", "more", "two", "x", "y.jsonl.gz/line-1",
                                                      "y.jsonl.gz/line-2", "z.jsonl/line-1"}));
    EXPECT_EQ(all->fetch("two"), b);
    EXPECT_EQ(all->fetch("more", 3, 99), d.substr(3, 96));
    EXPECT_EQ(all->fetch("y.jsonl.gz/line-2"), d);
    EXPECT_EQ(all->total_length(), 700 + 100 + 800 + 900 + 900 + 100 + 700);
    EXPECT_EQ(all->held_bases(), 900 + 900 + 100 + 700);  // plain gzip and JSON lines
    EXPECT_FALSE(all->in_memory());
    EXPECT_EQ(all->file_of("two").filename(), "chr2.fa.gz");
  }
  EXPECT_EQ(open_fasta(path)->names(), (std::vector<std::string>{"one", "more", "two", "x"}));
  FastaOptions little;
  little.held_bases = 1500;
  EXPECT_MESSAGE(open_sequences(path, little), "y.jsonl.gz");
}

TEST(OpenSequences, OfManyFilesFewAreOpen) {
  const Folder folder;
  constexpr int kFiles = 300;
  for (int i = 0; i < kFiles; ++i)
    folder.text(concat("f", i, ".fa"),
                fasta_record(concat("r", i), letters(50 + i, static_cast<uint64_t>(i))));
  rlimit before{};
  getrlimit(RLIMIT_NOFILE, &before);
  rlimit few = before;
  few.rlim_cur = 200;
  setrlimit(RLIMIT_NOFILE, &few);
  const auto all = open_sequences(folder / ".");
  EXPECT_EQ(static_cast<int>(all->names().size()), kFiles);
  for (int i = 0; i < kFiles; i += 7)
    EXPECT_EQ(all->fetch(concat("r", i)), letters(50 + i, static_cast<uint64_t>(i)));
  setrlimit(RLIMIT_NOFILE, &before);
}

TEST(OpenSequences, SaysWhatIsWrongWithAFolder) {
  const Folder folder;
  folder.text("notes.txt", "x");
  EXPECT_MESSAGE(open_sequences(folder / "."), "holds no FASTA file (.fa, .fasta, .fna) and no JSON lines");
  folder.text("a.fa", fasta_record("one", "ACGT"));
  EXPECT_MESSAGE(sequence_files(folder / ".", SequenceKind::jsonl), "holds no JSON lines");
  folder.text("b.fa", fasta_record("two", "ACGT") + fasta_record("one", "ACGT"));
  EXPECT_MESSAGE(open_sequences(folder / "."), "'one' stands in 'a.fa' and in 'b.fa'");
  folder.text("b.fa", "no FASTA");
  EXPECT_MESSAGE(open_sequences(folder / "."), "b.fa");
}

TEST(OpenSequences, AFoldersDigestIsThatOfItsNamesAndContents) {
  const Folder folder, other;
  for (const Folder* f : {&folder, &other}) {
    f->text("a.fa", fasta_record("one", "ACGT"));
    f->text("b.fa", fasta_record("two", "ACGT"));
  }
  const std::string before = source_digest(folder / ".");
  EXPECT_EQ(source_digest(other / "."), before);
  open_sequences(folder / ".");  // which writes indices
  EXPECT_EQ(source_digest(folder / "."), before);
  folder.text("b.fa", fasta_record("two", "ACGA"));
  EXPECT_NE(source_digest(folder / "."), before);
  fs::rename(other / "b.fa", other / "c.fa");
  EXPECT_NE(source_digest(other / "."), before);
}

TEST(OpenSequences, AFolderIsATrainingSource) {
  const Folder folder, lines;
  folder.text("a.fa", fasta_record("one", letters(3000, 1)));
  folder.gzip("b.fa.gz", fasta_record("two", letters(3000, 2)));
  folder.text("both.fasta.txt",
              fasta_record("one", letters(3000, 1)) + fasta_record("two", letters(3000, 2)));
  SamplerConfig of_folder, of_file;
  of_folder.sources.resize(1);
  of_file.sources.resize(1);
  of_folder.sources[0].fasta = folder / ".";
  of_file.sources[0].fasta = folder / "both.fasta.txt";
  const SequenceSampler one(of_folder, 7), two(of_file, 7);
  for (uint64_t i = 0; i < 8; ++i) EXPECT_EQ(one.sample(i, 200).letters, two.sample(i, 200).letters);
  lines.text("a.jsonl", line(letters(400, 1)));
  lines.gzip("b.jsonl.gz", line(letters(500, 2)));
  of_folder.sources[0] = {};
  of_folder.sources[0].jsonl = lines / ".";
  EXPECT_EQ(SequenceSampler(of_folder, 7).num_bases(), 900);
  const auto files = sampler_files("data", of_folder);
  EXPECT_TRUE(std::any_of(files.begin(), files.end(),
                          [](const NamedPath& file) { return file.path.filename() == "b.jsonl.gz"; }));
}

}  // namespace
}  // namespace focus::data
