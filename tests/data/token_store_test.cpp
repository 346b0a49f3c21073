#include <fcntl.h>
#include <hdf5.h>
#include <sys/file.h>
#include <unistd.h>

#include <fstream>

#include "files.h"
#include "focus/core/file.h"
#include "focus/data/fasta.h"
#include "focus/data/pack.h"
#include "focus/data/region.h"
#include "focus/data/sampler.h"
#include "focus/data/token_store.h"

namespace focus::data {
namespace {

void expect_same(const Sample& a, const Sample& b) {
  EXPECT_EQ(a.letters, b.letters);
  EXPECT_EQ(a.weights, b.weights);
  EXPECT_EQ(a.copy_offset, b.copy_offset);
  EXPECT_EQ(a.copy_source, b.copy_source);
  EXPECT_EQ(a.name, b.name);
  EXPECT_EQ(a.begin, b.begin);
  EXPECT_EQ(a.reverse, b.reverse);
}

void expect_same_samples(const SamplerConfig& first, const SamplerConfig& second, int64_t length) {
  const SequenceSampler a(first, 11), b(second, 11);
  EXPECT_EQ(a.num_bases(), b.num_bases());
  for (uint64_t i = 0; i < 200; ++i) expect_same(a.sample(i, length), b.sample(i, length));
}

class Store : public ::testing::Test {
 protected:
  SamplerConfig from(const std::string& kind, const std::string& path) const {
    SamplerConfig config;
    config.sources.resize(1);
    (kind == "fasta"   ? config.sources[0].fasta
     : kind == "jsonl" ? config.sources[0].jsonl
                       : config.sources[0].hdf5) = path;
    config.reverse_complement = 0.5;
    config.copies.probability = 0.3;
    return config;
  }
  PackResult pack_fasta(const std::string& path, std::vector<std::string> regions = {},
                        std::vector<std::string> exclude = {}) const {
    return pack({{path, false, {{"sha256", "abc"}}}},
                {.regions = std::move(regions),
                 .exclude = std::move(exclude),
                 .about = {{"command", "a test"}},
                 .progress = {}},
                folder_ / "x.h5");
  }
  void expect_nothing_left() const {
    EXPECT_FALSE(std::filesystem::exists(store_));
    for (const auto& entry : std::filesystem::directory_iterator(std::filesystem::path(store_).parent_path()))
      EXPECT_EQ(entry.path().string().find(".tmp-"), std::string::npos) << entry.path();
  }

  Folder folder_;
  std::string a_ = letters(300000, 1, "ACGTacgtN"), b_ = letters(5000, 2, "ACGTRYK");
  std::string text_ = fasta_record("a", a_) + fasta_record("b", b_) + fasta_record("tiny", letters(50, 3));
  std::string path_ = folder_.text("x.fa", text_), store_ = folder_ / "x.h5";
};

TEST_F(Store, GivesBackEveryLetterOfItsSource) {
  const PackResult result = pack_fasta(path_);
  EXPECT_EQ(result.records, 3);
  EXPECT_EQ(result.stretches, 3);
  EXPECT_EQ(result.bases, 305050);
  const TokenStore store(store_);
  EXPECT_EQ(store.names(), (std::vector<std::string>{"a", "b", "tiny"}));
  EXPECT_EQ(store.drawing(), Drawing::windows);
  EXPECT_EQ(store.fetch("a"), a_);
  EXPECT_EQ(store.fetch("b"), b_);
  for (const int64_t begin : {0, 1, 65535, 65536, 131071, 299999}) {
    for (const int64_t length : {0, 1, 2, 65536, 70000}) {
      const int64_t end = std::min<int64_t>(300000, begin + length);
      EXPECT_EQ(store.fetch("a", begin, end),
                a_.substr(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin)));
    }
  }
  EXPECT_MESSAGE(store.fetch("tiny", 0, 51), "the record has 50 bases");
  EXPECT_MESSAGE(store.fetch("tony", 0, 1), "did you mean 'tiny'");
}

TEST_F(Store, SamplesAreThoseOfTheFastaItWasPackedFrom) {
  SamplerConfig fasta = from("fasta", path_), hdf5 = from("hdf5", store_);
  fasta.max_n_fraction = hdf5.max_n_fraction = 0.6;
  const std::string bed = folder_.text("held.bed", "a\t1000\t90000\nb\t100\t4000\n");
  pack_fasta(path_);
  for (const int64_t memory : {0, 512}) {
    fasta.memory_mb = 512;
    hdf5.memory_mb = memory;
    expect_same_samples(fasta, hdf5, 777);
  }
  // Chosen when drawing.
  for (SamplerConfig* config : {&fasta, &hdf5}) {
    config->sources[0].regions = {"b", "a:500-200,000"};
    config->exclude = {bed, "a:150000-150001"};
  }
  expect_same_samples(fasta, hdf5, 321);
  // Chosen when packing: regions in their order, excluded stretches by name and coordinates of the source.
  pack_fasta(path_, {"b", "a:500-200,000"}, {bed, "a:150000-150001"});
  hdf5.sources[0].regions.clear();
  hdf5.exclude.clear();
  expect_same_samples(fasta, hdf5, 321);
  // Excluding again what was never packed changes nothing.
  hdf5.exclude = fasta.exclude;
  expect_same_samples(fasta, hdf5, 321);
  // Of a region that was packed in part, the part.
  hdf5.sources[0].regions = {"b", "a"};
  expect_same_samples(fasta, hdf5, 321);
}

TEST_F(Store, PackingGzipAndBgzfGivesTheSameStore) {
  const std::vector<std::string> regions = {"tiny", "a:7-250000", "b"}, exclude = {"a:1000-1999"};
  std::string first;
  for (const std::string& path : {path_, folder_.gzip("x.fa.gz", text_), folder_.bgzip("x.fa.bgz", text_)}) {
    pack_fasta(path, regions, exclude);
    const TokenStore store(store_);
    std::string all;
    for (const Region& region : store.held())
      all += format_region(region) + store.fetch(region.name, region.begin, region.end);
    if (first.empty()) first = all;
    EXPECT_EQ(all, first) << path;
    SamplerConfig fasta = from("fasta", path_), hdf5 = from("hdf5", store_);
    fasta.sources[0].regions = regions;
    fasta.exclude = exclude;
    fasta.max_n_fraction = hdf5.max_n_fraction = 1;
    expect_same_samples(fasta, hdf5, 50);
  }
}

TEST_F(Store, DocumentsStayDocuments) {
  std::string lines;
  for (int i = 0; i < 60; ++i)
    lines += "{\"text\": \"" + letters(2 + 17 * i, static_cast<uint64_t>(i + 1), "ACGTacgt") + "\"}\n";
  const std::string jsonl = folder_.gzip("x.jsonl.gz", lines);
  pack({{jsonl, true, {}}}, {}, store_);
  EXPECT_EQ(TokenStore(store_).drawing(), Drawing::documents);
  SamplerConfig hdf5 = from("hdf5", store_);
  for (const int64_t memory : {0, 512}) {
    hdf5.memory_mb = memory;
    expect_same_samples(from("jsonl", jsonl), hdf5, 400);
  }
  hdf5.exclude = {"line-60", "line-59:2-988"};
  const SequenceSampler sampler(hdf5, 1);
  for (uint64_t i = 0; i < 300; ++i) {
    const Sample sample = sampler.sample(i, 400);
    EXPECT_NE(sample.name, "line-60");
    EXPECT_FALSE(sample.name == "line-59" && sample.begin < 1000);
  }
}

TEST_F(Store, RefusesWhatCannotBePacked) {
  const auto packing = [&](const std::string& path, bool jsonl = false) {
    pack({{path, jsonl, {}}}, {}, store_);
  };
  EXPECT_MESSAGE(packing(folder_ / "none.fa"), "none.fa' does not exist");
  EXPECT_MESSAGE(packing(folder_ / "none.jsonl", true), "none.jsonl");
  EXPECT_MESSAGE(packing(folder_.text("star.fa", ">s\nACGT*CGT\n")), "position 5 of record 's' holds '*'");
  EXPECT_MESSAGE(packing(folder_.gzip("rna.fa.gz", ">s\nACGT\n>t\nACGU\n")), "position 4 of 't' is 'U'");
  EXPECT_MESSAGE(packing(folder_.text("one.jsonl", "{\"text\": \"A\"}\n"), true), "one base");
  EXPECT_MESSAGE(
      packing(folder_.text("twice.jsonl",
                           "{\"text\": \"AC\", \"id\": \"x\"}\n{\"text\": \"GT\", \"id\": \"x\"}\n"),
              true),
      "'x'");
  EXPECT_MESSAGE(pack({{path_, false, {}}, {path_, false, {}}}, {}, store_), "record name 'a' of");
  EXPECT_MESSAGE(pack_fasta(path_, {"c:1-9"}), "no record 'c'");
  EXPECT_MESSAGE(pack_fasta(path_, {}, {"a:1-300001"}), "reaches past the end");
  EXPECT_MESSAGE(pack_fasta(path_, {}, {folder_.text("past.bed", "a\t5\t300001\n")}), "line 1");
  EXPECT_MESSAGE(pack_fasta(path_, {}, {folder_.text("empty.bed", "# nothing\n")}), "holds no region");
  EXPECT_MESSAGE(pack_fasta(path_, {"a"}, {"a"}), "cover all of it");
  EXPECT_THAT_CONTAINS(message_of<ConfigError>([&] { pack({}, {}, store_); }), "nothing to pack");
  EXPECT_THAT_CONTAINS(
      message_of<ConfigError>([&] { pack({{path_, false, {}}, {"x.jsonl", true, {}}}, {}, store_); }),
      "two stores");
  EXPECT_THAT_CONTAINS(message_of<ConfigError>([&] { pack({{path_, false, {}}}, {}, path_); }),
                       "is the input source");
  EXPECT_MESSAGE(pack({{path_, false, {}}}, {}, "/dev/null"), "device");
  EXPECT_MESSAGE(pack({{path_, false, {}}}, {}, folder_ / "no/x.h5"), "check that the folder exists");
  expect_nothing_left();
}

TEST_F(Store, AnotherProcessesLockIsNamedWithItsRemedy) {
  pack_fasta(path_);
  const int other = ::open(store_.c_str(), O_RDWR);
  ASSERT_EQ(::flock(other, LOCK_EX | LOCK_NB), 0);
  EXPECT_MESSAGE(TokenStore{store_}, "another process holds its HDF5 lock");
  EXPECT_MESSAGE(TokenStore{store_}, "HDF5_USE_FILE_LOCKING=FALSE");
  ::close(other);
  EXPECT_NO_THROW(TokenStore{store_});
}

TEST_F(Store, GivenUpHalfwayLeavesTheEarlierStore) {
  int calls = 0;
  PackOptions options;
  options.progress = [&](int64_t done, int64_t) {
    if (done > 0 && ++calls == 2) fail<Interrupted>("enough");
  };
  EXPECT_THROW(pack({{path_, false, {}}}, options, store_), Interrupted);
  expect_nothing_left();
  folder_.text("x.h5", "before");
  calls = 0;
  EXPECT_THROW(pack({{path_, false, {}}}, options, store_), Interrupted);
  EXPECT_EQ(read_file(store_), "before");
}

TEST_F(Store, SaysWhereItCameFrom) {
  pack_fasta(path_);
  const hid_t file = H5Fopen(store_.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  const auto text = [&](const char* object, const char* name) {
    const hid_t id = H5Aopen_by_name(file, object, name, H5P_DEFAULT, H5P_DEFAULT), type = H5Aget_type(id);
    std::string value(H5Tget_size(type), '\0');
    H5Aread(id, type, value.data());
    H5Tclose(type);
    H5Aclose(id);
    return value;
  };
  EXPECT_EQ(text("/", "format"), "focus token store");
  EXPECT_EQ(text("/", "command"), "a test");
  EXPECT_EQ(text("/sources/0", "path"), path_);
  EXPECT_EQ(text("/sources/0", "kind"), "fasta");
  EXPECT_EQ(text("/sources/0", "sha256"), "abc");
  H5Fclose(file);
}

TEST_F(Store, RefusesWhatIsNoStoreOrDamaged) {
  const auto opening = [&] { const TokenStore store(store_); };
  EXPECT_MESSAGE(opening(), "does not exist");
  folder_.text("x.h5", text_);
  EXPECT_MESSAGE(opening(), "is not an HDF5 file");
  H5Fclose(H5Fcreate(store_.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT));
  EXPECT_MESSAGE(opening(), "no token store");
  pack_fasta(path_);
  const std::string whole = read_file(store_);
  for (const double share : {0.3, 0.9, 0.999}) {
    folder_.text("x.h5",
                 whole.substr(0, static_cast<std::size_t>(static_cast<double>(whole.size()) * share)));
    EXPECT_MESSAGE(opening(), "cut short");
  }
  const auto overwrite = [&](const char* name, std::size_t place, int64_t value) {
    folder_.text("x.h5", whole);
    const hid_t file = H5Fopen(store_.c_str(), H5F_ACC_RDWR, H5P_DEFAULT),
                id = H5Dopen2(file, name, H5P_DEFAULT);
    std::vector<int64_t> values(3);
    H5Dread(id, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data());
    values[place] = value;
    H5Dwrite(id, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data());
    H5Dclose(id);
    H5Fclose(file);
  };
  for (const int64_t bad : {int64_t{-1}, int64_t{1} << 40, INT64_MAX}) {
    for (const char* name : {"stretches/record", "stretches/begin", "stretches/end", "stretches/offset"}) {
      overwrite(name, 1, bad);
      EXPECT_MESSAGE(opening(), "stretch 1 does not lie");
    }
  }
  overwrite("records/length", 2, 0);
  EXPECT_MESSAGE(opening(), "'tiny', has 0 bases");
  // A flipped bit in the packed bases is found by the checksum of its chunk.
  std::string flipped = whole;
  flipped[whole.size() / 2] = static_cast<char>(flipped[whole.size() / 2] ^ 4);
  folder_.text("x.h5", flipped);
  EXPECT_MESSAGE(TokenStore(store_).fetch("a"), "damaged");
}

TEST_F(Store, NamesWhatWasNotPacked) {
  pack_fasta(path_, {"a:1001-2000", "a:5001-6000"});
  const TokenStore store(store_);
  EXPECT_EQ(store.fetch("a", 1500, 2000), a_.substr(1500, 500));
  EXPECT_MESSAGE(store.fetch("a", 1500, 2001), "a:1501-2001 were not packed");
  EXPECT_MESSAGE(store.fetch("b", 0, 1), "b:1-1 were not packed");
  SamplerConfig config = from("hdf5", store_);
  config.sources[0].regions = {"b"};
  EXPECT_MESSAGE(SequenceSampler(config, 1), "region b:1-5000 was not packed");
}

}  // namespace
}  // namespace focus::data
