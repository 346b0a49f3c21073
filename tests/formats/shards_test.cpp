// Checkpoints in several safetensors files with an index.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <nlohmann/json.hpp>

#include "archive_builder.h"
#include "focus/formats/digest.h"
#include "focus/formats/safetensors_writer.h"
#include "focus/formats/torch_archive_writer.h"

namespace focus::formats::testing {
namespace {

const std::vector<float> kNumbers = {1, 2, 3, 4, 5, 6, 7, 8};

TensorView view(const std::string& name, std::size_t first, std::int64_t count) {
  return {name, DType::float32, {count}, reinterpret_cast<const std::byte*>(kNumbers.data() + first)};
}

/// Three shards of one tensor each.
void write_three(const std::filesystem::path& folder) {
  write_safetensors_shards(folder, {view("a", 0, 2), view("b", 2, 2), view("c", 4, 4)}, {{"format", "pt"}},
                           8);
}

std::vector<std::string> names_in(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

TEST(ShardsTest, WrittenFilesHaveTheUsualNamesAndIndex) {
  const TemporaryFolder folder;
  write_three(folder / "out");
  EXPECT_EQ(names_in(folder / "out"),
            (std::vector<std::string>{"model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors",
                                      "model-00003-of-00003.safetensors", "model.safetensors.index.json"}));
  const auto index = nlohmann::json::parse(read_bytes(folder / "out" / "model.safetensors.index.json"));
  EXPECT_EQ(index,
            nlohmann::json::parse(
                R"({"metadata": {"total_size": 32}, "weight_map": {"a": "model-00001-of-00003.safetensors",
      "b": "model-00002-of-00003.safetensors", "c": "model-00003-of-00003.safetensors"}})"));
  EXPECT_EQ(TensorFile::open(folder / "out" / "model-00002-of-00003.safetensors")->tensors().at(0).name, "b");
}

TEST(ShardsTest, OpenThroughIndexOrFolder) {
  const TemporaryFolder folder;
  write_three(folder / "out");
  const std::vector<float> expected_c = {5, 6, 7, 8};
  for (const auto& path :
       {folder / "out", folder / "out/", folder / "out" / "model.safetensors.index.json"}) {
    const auto file = TensorFile::open(path);
    EXPECT_EQ(file->format(), "safetensors");
    ASSERT_EQ(file->tensors().size(), 3U);
    EXPECT_EQ(file->tensors()[1].name, "b");
    EXPECT_EQ(values_of<float>(*file->find("c")), expected_c);
    EXPECT_EQ(file->find("d"), nullptr);
    EXPECT_EQ(file->metadata(), (std::map<std::string, std::string>{{"format", "pt"}}));
  }
  write_safetensors(folder / "one", {view("c", 4, 4), view("a", 0, 2), view("b", 2, 2)});
  EXPECT_EQ(digest(*TensorFile::open(folder / "out")), digest(*TensorFile::open(folder / "one")));
}

TEST(ShardsTest, AStemNamesTheFiles) {
  const TemporaryFolder folder;
  write_safetensors_shards(folder / "tiny.safetensors", {view("a", 0, 8)}, {}, 1);
  EXPECT_EQ(names_in(folder / ""),
            (std::vector<std::string>{"tiny-00001-of-00001.safetensors", "tiny.safetensors.index.json"}));
  EXPECT_EQ(TensorFile::open(folder / "")->tensors().size(), 1U);
  write_safetensors_shards(folder / "named" / "x.safetensors.index.json", {view("a", 0, 8)}, {}, 1);
  EXPECT_EQ(names_in(folder / "named"),
            (std::vector<std::string>{"x-00001-of-00001.safetensors", "x.safetensors.index.json"}));
  write_safetensors_shards(folder / "none", {}, {}, 1);
  EXPECT_TRUE(TensorFile::open(folder / "none")->tensors().empty());
}

TEST(ShardsTest, ShardsAreFilledInOrderUpToTheLimit) {
  const TemporaryFolder folder;
  const std::vector<TensorView> tensors = {view("a", 0, 1), view("b", 1, 2), view("c", 0, 8),
                                           view("d", 3, 1), view("e", 0, 0), view("f", 4, 2)};
  write_safetensors_shards(folder / "out", tensors, {}, 12);
  const auto index = nlohmann::json::parse(read_bytes(folder / "out" / "model.safetensors.index.json"));
  std::string shards;
  for (const auto& tensor : tensors)
    shards += index["weight_map"][tensor.name].get<std::string>().substr(10, 1);
  EXPECT_EQ(shards, "112333");
  EXPECT_EQ(index["metadata"]["total_size"], 56);
}

TEST(ShardsTest, GoldenCheckpointSurvives) {
  const TemporaryFolder folder;
  const auto golden = TensorFile::open(golden_checkpoint());
  write_safetensors_shards(folder / "out", golden->tensors(), {}, 100'000, golden->opaque());
  const auto shards = TensorFile::open(folder / "out");
  EXPECT_GT(names_in(folder / "out").size(), 8U);
  EXPECT_EQ(digest(*shards), digest(*golden));
  EXPECT_EQ(fingerprint(*shards), fingerprint(*golden));
  EXPECT_EQ(shards->opaque_entries().size(), golden->opaque_entries().size());
  write_torch_archive(folder / "back.pt", shards->tensors(), shards->opaque());
  EXPECT_EQ(fingerprint(*TensorFile::open(folder / "back.pt")), fingerprint(*golden));
}

TEST(ShardsTest, FoldersWithoutOneClearCheckpointAreRefused) {
  const TemporaryFolder folder;
  std::filesystem::create_directory(folder / "out");
  EXPECT_MENTIONS(refusal_of_path(folder / "out"), "no weights in the folder");
  write_safetensors(folder / "out" / "x.safetensors", {view("a", 0, 2)});
  EXPECT_EQ(refusal_of_path(folder / "out"), "it was opened");
  write_safetensors(folder / "out" / "y.safetensors", {view("a", 0, 2)});
  EXPECT_MENTIONS(refusal_of_path(folder / "out"), "holds 2 files *.safetensors but no index");
  write_safetensors_shards(folder / "out" / "z.safetensors", {view("a", 0, 2)}, {}, 8);
  EXPECT_EQ(refusal_of_path(folder / "out"), "it was opened");
  write_safetensors_shards(folder / "out" / "w.safetensors", {view("a", 0, 2)}, {}, 8);
  EXPECT_MENTIONS(refusal_of_path(folder / "out"), "holds 2 checkpoints in shards");
  write_safetensors_shards(folder / "out", {view("a", 0, 2)}, {}, 8);
  EXPECT_EQ(refusal_of_path(folder / "out"), "it was opened") << "model.safetensors.index.json is the one";
}

TEST(ShardsTest, IndexAndShardsMustAgreeExactly) {
  const TemporaryFolder folder;
  write_three(folder / "out");
  const auto index_path = folder / "out" / "model.safetensors.index.json";
  const auto first = folder / "out" / "model-00001-of-00003.safetensors";
  const auto good = nlohmann::json::parse(read_bytes(index_path));
  const auto refused = [&](const auto& change) {
    nlohmann::json index = good;
    change(index["weight_map"]);
    write_bytes(index_path, index.dump());
    return refusal_of_path(folder / "out");
  };
  EXPECT_EQ(refused([](auto&) {}), "it was opened");
  EXPECT_MENTIONS(refused([](auto& map) { map["d"] = map["a"]; }),
                  "places 'd' in 'model-00001-of-00003.safetensors', which does not hold it");
  EXPECT_MENTIONS(refused([](auto& map) { map.erase("c"); }), "it was opened")
      << "an unnamed shard is no part of the checkpoint";
  EXPECT_MENTIONS(refused([](auto& map) { map["a"] = map["b"]; }),
                  "places 'a' in 'model-00002-of-00003.safetensors', which does not hold it");
  EXPECT_MENTIONS(refused([](auto& map) { std::swap(map["a"], map["b"]); }), "holds 'a', which the index");
  EXPECT_MENTIONS(refused([](auto& map) { map["d"] = "model-00004-of-00003.safetensors"; }),
                  "1 of 4 shards is missing, 'model-00004-of-00003.safetensors'");
  for (const std::string name : {"../a.safetensors", "/etc/passwd", "..", ".", "", "sub/a", "sub\\a"}) {
    EXPECT_MENTIONS(refused([&](auto& map) { map["a"] = name; }), "is not a plain file name") << name;
  }
  EXPECT_MENTIONS(
      refused([&](auto& map) { map["a"] = std::string("model-00001-of-00003.safetensors\0x", 34); }),
      "is not a plain file name");
  write_safetensors(first, {view("a", 0, 2), view("extra", 0, 2)});
  EXPECT_MENTIONS(refused([](auto&) {}), "holds 'extra', which the index");
  // A shard that is the index itself, or a .pt, is none.
  EXPECT_MENTIONS(refused([](auto& map) { map["a"] = "model.safetensors.index.json"; }), "neither a .pt");
  write_torch_archive(first, {view("a", 0, 2)});
  EXPECT_MENTIONS(refused([](auto&) {}), "of a sharded checkpoint");
  std::filesystem::remove(first);
  EXPECT_MENTIONS(refused([](auto&) {}), "1 of 3 shards is missing, 'model-00001-of-00003.safetensors'");
  std::filesystem::remove(folder / "out" / "model-00002-of-00003.safetensors");
  EXPECT_MENTIONS(refused([](auto&) {}),
                  "2 of 3 shards are missing, 'model-00001-of-00003.safetensors' first");
}

TEST(ShardsTest, MalformedIndicesAreRefused) {
  const auto refused = [](const std::string& text) { return refusal_of(text); };
  EXPECT_MENTIONS(refused("{}"), "without a weight_map");
  EXPECT_MENTIONS(refused("{\"metadata\": {\"a\": [1, {\"b\": null}], \"c\": 1.5}}"), "without a weight_map");
  EXPECT_EQ(refused("\n  {\"weight_map\": {}, \"metadata\": {\"total_size\": 0}}\n"), "it was opened");
  EXPECT_MENTIONS(refused("{\"weight_map\": {\"a\": \"x\", \"a\": \"y\"}}"), "names 'a' twice");
  EXPECT_MENTIONS(refused("{\"weight_map\": {}, \"weight_map\": {}}"), "a second weight_map");
  EXPECT_MENTIONS(refused("{\"weight_map\": {\"a\": 1}}"), "a number at key 'a'");
  EXPECT_MENTIONS(refused("{\"weight_map\": {\"a\": {\"b\": \"c\"}}}"), "an object at key 'a'");
  EXPECT_MENTIONS(refused("{\"weight_map\": {\"a\": [\"b\"]}}"), "a list at key 'a'");
  EXPECT_MENTIONS(refused("{\"weight_map\": \"a.safetensors\"}"), "a text at key 'weight_map'");
  EXPECT_MENTIONS(refused("{\"weight_map\": [\"a.safetensors\"]}"), "a list at key 'weight_map'");
  EXPECT_MENTIONS(refused("{\"weights\": {}}"), "the unknown key 'weights'");
  EXPECT_MENTIONS(refused("{\"weight_map\": {\"a\": \"b\""), "malformed JSON");
  EXPECT_MENTIONS(refused("{\"metadata\": {\"a\": " + std::string(1'000'000, '[')), "malformed JSON");
  EXPECT_MENTIONS(refused("{\"weight_map\": {\"\xff\": \"b\"}}"), "malformed JSON");
}

// ---- what goes wrong while writing ----
TEST(ShardsTest, ACheckpointThatIsThereIsNotReplaced) {
  const TemporaryFolder folder;
  write_three(folder / "out");
  const auto before = names_in(folder / "out");
  EXPECT_MENTIONS(refusal_by<DataError>([&] { write_three(folder / "out"); }), "is already there");
  EXPECT_EQ(names_in(folder / "out"), before);
}

/// A disk that is full after `num_bytes` of any file: the same errors, without a disk of one's own.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t num_bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit = {num_bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_{};
  void (*handler_)(int);
};

TEST(ShardsTest, AFailedWriteLeavesNothing) {
  const TemporaryFolder folder;
  const std::vector<float> many(10'000, 1.0F);
  const std::vector<TensorView> tensors = {
      view("a", 0, 2), {"b", DType::float32, {10'000}, reinterpret_cast<const std::byte*>(many.data())}};
  std::filesystem::create_directory(folder / "kept");
  {
    const FileSizeLimit limit(20'000);
    EXPECT_MENTIONS(refusal_by<DataError>([&] { write_safetensors_shards(folder / "out", tensors, {}, 8); }),
                    "model-00002-of-00002.safetensors': File too large");
    EXPECT_MENTIONS(refusal_by<DataError>([&] { write_safetensors_shards(folder / "kept", tensors, {}, 8); }),
                    "File too large");
    EXPECT_MENTIONS(refusal_by<DataError>([&] { write_safetensors(folder / "x.safetensors", tensors); }),
                    "File too large");
    EXPECT_MENTIONS(refusal_by<DataError>([&] { write_torch_archive(folder / "x.pt", tensors); }),
                    "nothing was left under that name");
  }
  EXPECT_EQ(names_in(folder / ""), (std::vector<std::string>{"kept"}));
  EXPECT_TRUE(std::filesystem::is_empty(folder / "kept"));
}

TEST(ShardsTest, AnIndexThatCannotBeWrittenTakesItsShardsAway) {
  const TemporaryFolder folder;
  std::vector<TensorView> tensors;
  for (int i = 0; i < 50; ++i) tensors.push_back(view("tensor" + std::to_string(i), 0, 2));
  {
    const FileSizeLimit limit(1000);  // enough for every shard, not for the index of all
    EXPECT_MENTIONS(refusal_by<DataError>([&] { write_safetensors_shards(folder / "out", tensors, {}, 8); }),
                    "model.safetensors.index.json': File too large");
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder / ""));
  write_safetensors_shards(folder / "out", tensors, {}, 8);
  EXPECT_EQ(TensorFile::open(folder / "out")->tensors().size(), 50U);
}

TEST(ShardsTest, AFullDiskIsOneClearError) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP() << "no /dev/full here";
  EXPECT_MENTIONS(refusal_by<DataError>([] { write_safetensors("/dev/full", {view("a", 0, 2)}); }),
                  "'/dev/full': No space left on device");
  EXPECT_MENTIONS(refusal_by<DataError>([] { write_torch_archive("/dev/full", {view("a", 0, 2)}); }),
                  "'/dev/full': No space left on device");
}

TEST(ShardsTest, TooLittleRoomIsSaidBeforeWriting) {
  const TemporaryFolder folder;
  // Nothing of it exists beyond the first byte, so a writer that began would crash.
  const std::vector<TensorView> huge = {
      {"a", DType::uint8, {std::int64_t{1} << 52}, reinterpret_cast<const std::byte*>(kNumbers.data())}};
  EXPECT_MENTIONS(refusal_by<DataError>([&] { write_safetensors(folder / "x.safetensors", huge); }),
                  "it needs 4.0 PiB, the disk has");
  EXPECT_MENTIONS(refusal_by<DataError>([&] { write_torch_archive(folder / "x.pt", huge); }),
                  "it needs 4.0 PiB, the disk has");
  EXPECT_MENTIONS(refusal_by<DataError>([&] { write_safetensors_shards(folder / "out", huge, {}, 1 << 30); }),
                  "it needs 4.0 PiB");
  EXPECT_TRUE(std::filesystem::is_empty(folder / ""));
}

TEST(ShardsTest, ImpossibleRequestsAreRefused) {
  const TemporaryFolder folder;
  EXPECT_THROW(write_safetensors_shards(folder / "out", {view("a", 0, 2)}, {}, 0), ConfigError);
  EXPECT_THROW(write_safetensors_shards(folder / "out", {view("a", 0, 2), view("a", 0, 2)}, {}, 8),
               DataError);
  EXPECT_THROW(write_safetensors_shards(folder / "no" / "such", {view("a", 0, 2)}, {}, 8), DataError);
  EXPECT_TRUE(std::filesystem::is_empty(folder / ""));
}

}  // namespace
}  // namespace focus::formats::testing
