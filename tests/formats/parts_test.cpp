// A checkpoint in NAME.part0, NAME.part1, ...
#include <gtest/gtest.h>

#include "archive_builder.h"
#include "file_bytes.h"
#include "focus/formats/digest.h"

namespace focus::formats::testing {
namespace {

TEST(PartsTest, AreReadAsOneFileWhereverTheyAreCut) {
  const std::string bytes = read_bytes(golden_checkpoint());
  const std::string expected = digest(*TensorFile::open(golden_checkpoint()));
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const std::size_t directory = bytes.find("PK\x01\x02");
  const std::vector<std::vector<std::size_t>> all_cuts = {
      {},
      {100'001},
      {10 * page},
      {10 * page, 20 * page},
      {10 * page, 20 * page + 1, 30 * page},
      {0, 5 * page, 5 * page},
      {1, 2, 3},
      {40, 70, 2000},  // inside the first header, name and pickle
      {directory + 3, directory + 60},
      {bytes.size() - 90, bytes.size() - 30, bytes.size() - 1}};
  for (const auto& cuts : all_cuts) {
    const TemporaryFolder folder;
    split(bytes, folder / "tiny7b.pt", cuts);
    const auto file = TensorFile::open(folder / "tiny7b.pt");
    EXPECT_EQ(file->tensors().size(), 89U);
    EXPECT_EQ(file->opaque_entries().size(), 10U);
    EXPECT_EQ(digest(*file), expected) << cuts.size() + 1 << " parts";
  }
}

TEST(PartsTest, EveryCutOfASmallFileGivesTheSameTensors) {
  const std::string six = raw_bytes<float>({1, 2, 3, 4, 5, 6});
  const std::string bytes =
      archive_of(pickle(dict(text("w") + tensor(storage("FloatStorage", "0", 6), 0, {6}, {1}) +
                             text("columns") + tensor(storage("FloatStorage", "0", 6), 0, {3, 2}, {1, 3}) +
                             text("s._extra_state") + byte_stream(encoded_bytes("a\xc3\xbf")))),
                 {six});
  for (std::size_t cut = 0; cut <= bytes.size(); ++cut) {
    const TemporaryFolder folder;
    split(bytes, folder / "f", {cut, std::min(cut + 5, bytes.size())});
    const auto file = TensorFile::open(folder / "f");
    ASSERT_EQ(values_of<float>(*file->find("w")), (std::vector<float>{1, 2, 3, 4, 5, 6})) << cut;
    ASSERT_EQ(values_of<float>(*file->find("columns")), (std::vector<float>{1, 4, 2, 5, 3, 6})) << cut;
    ASSERT_EQ(as_string(file->opaque("s._extra_state").value()), "a\xff") << cut;
  }
}

TEST(PartsTest, SafetensorsMayBeSplitToo) {
  const std::string bytes = safetensors_of(
      R"({"a":{"dtype":"I32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"I32","shape":[1],"data_offsets":[8,12]}})",
      raw_bytes<std::int32_t>({7, 8, 9}));
  for (std::size_t cut = 0; cut <= bytes.size(); ++cut) {
    const TemporaryFolder folder;
    split(bytes, folder / "f", {cut});
    const auto file = TensorFile::open(folder / "f");
    ASSERT_EQ(values_of<std::int32_t>(*file->find("a")), (std::vector<std::int32_t>{7, 8})) << cut;
    ASSERT_EQ(values_of<std::int32_t>(*file->find("b")), (std::vector<std::int32_t>{9})) << cut;
  }
}

TEST(PartsTest, OnlyATensorAcrossABoundaryIsCopied) {
  // Four tensors of 4 KiB in a row; the cut falls into the third, at an odd place, as in the released 40B.
  constexpr std::size_t kBytes = 4096;
  std::string data(4 * kBytes, '\0');
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i * 7 + i / 256);
  std::string header = "{";
  for (int i = 0; i < 4; ++i) {
    header += std::string(i == 0 ? "" : ",") + "\"t" + std::to_string(i) +
              "\":{\"dtype\":\"F32\",\"shape\":[1024],\"data_offsets\":[" + std::to_string(i * 4096) + "," +
              std::to_string(i * 4096 + 4096) + "]}";
  }
  header += "}";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  const std::string bytes = safetensors_of(header, data);
  const std::size_t begin = bytes.size() - data.size();
  const TemporaryFolder folder;
  split(bytes, folder / "f", {begin + 2 * kBytes + 1001});
  FileBytes raw(folder / "f");
  EXPECT_NE(raw.in_place(begin, 2 * kBytes), nullptr);
  EXPECT_EQ(raw.in_place(begin + 2 * kBytes, kBytes), nullptr);
  const auto file = TensorFile::open(folder / "f");
  const auto at = [&](int i) { return file->find("t" + std::to_string(i))->data; };
  EXPECT_EQ(at(1) - at(0), static_cast<std::ptrdiff_t>(kBytes)) << "views of one mapping";
  EXPECT_TRUE(file->find("t1")->is_aligned());
  EXPECT_TRUE(file->find("t2")->is_aligned()) << "a copy of its own";
  EXPECT_FALSE(file->find("t3")->is_aligned()) << "still a view: a whole part may be misaligned";
  for (int i = 0; i < 4; ++i) EXPECT_EQ(std::memcmp(at(i), data.data() + i * 4096, kBytes), 0) << i;
}

TEST(PartsTest, AMissingPartOrASinglePartIsRefusedWithAdvice) {
  const std::string bytes = read_bytes(golden_checkpoint());
  const TemporaryFolder folder;
  split(bytes, folder / "tiny7b.pt", {300'000, 600'000});
  EXPECT_MENTIONS(refusal_of_path(folder / "tiny7b.pt.part0"),
                  "pass '" + (folder / "tiny7b.pt").string() + "' to join all parts");
  std::filesystem::remove(folder / "tiny7b.pt.part1");
  EXPECT_MENTIONS(refusal_of_path(folder / "tiny7b.pt"), "no zip directory at its end");
  std::filesystem::remove(folder / "tiny7b.pt.part2");
  std::filesystem::create_directory(folder / "tiny7b.pt.part1");
  EXPECT_MENTIONS(refusal_of_path(folder / "tiny7b.pt"), "tiny7b.pt.part1': not a regular file");
}

TEST(PartsTest, BytesAcrossBoundariesComeInOrder) {
  const TemporaryFolder folder;
  split("abcdefgh", folder / "f", {0, 3, 3, 4});
  FileBytes bytes(folder / "f");
  EXPECT_EQ(bytes.size(), 8U);
  EXPECT_EQ(bytes.pieces().size(), 5U);
  for (std::uint64_t from = 0; from <= 8; ++from) {
    for (std::uint64_t count = 0; count <= 8 - from; ++count) {
      std::string copied(count, '?');
      bytes.copy(from, count, copied.data());
      EXPECT_EQ(copied, std::string("abcdefgh").substr(from, count));
      EXPECT_EQ(as_string(bytes.contiguous(from, count)), copied);
      const bool cut = count > 0 && ((from < 3 && from + count > 3) || (from < 4 && from + count > 4));
      EXPECT_EQ(bytes.in_place(from, count) == nullptr && count > 0, cut) << from << " " << count;
    }
  }
  EXPECT_THROW(bytes.copy(8, 1, nullptr), InternalError);
  EXPECT_THROW(bytes.in_place(2, 7), InternalError);
}

}  // namespace
}  // namespace focus::formats::testing
