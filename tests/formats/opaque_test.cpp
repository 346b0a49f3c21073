// Entries that are no tensors: what is read of them and how they survive conversion.
#include <gtest/gtest.h>

#include "archive_builder.h"
#include "focus/formats/digest.h"
#include "focus/formats/safetensors_writer.h"
#include "focus/formats/torch_archive_writer.h"

namespace focus::formats::testing {
namespace {

using Kind = OpaqueEntry::Kind;
const std::string kSix = raw_bytes<float>({1, 2, 3, 4, 5, 6});
const std::string kWeight = text("w") + tensor(storage("FloatStorage", "0", 6), 0, {6}, {1});

std::string every_byte() {
  std::string all;
  for (int i = 0; i < 256; ++i) all += static_cast<char>(i);
  return all;
}

TEST(OpaqueTest, GoldenEntriesHoldNestedArchives) {
  const auto file = TensorFile::open(golden_checkpoint());
  for (const OpaqueEntry& entry : file->opaque()) {
    EXPECT_EQ(entry.kind, Kind::byte_stream);
    const std::string content = as_string(entry.content);
    EXPECT_EQ(content.substr(0, 4), "PK\x03\x04") << entry.name;
    EXPECT_NE(content.find("archive/data.pkl"), std::string::npos);
    EXPECT_EQ(content.substr(content.size() - 22, 4), "PK\x05\x06")
        << "the end record of the nested zip: not a byte is missing";
    EXPECT_EQ(file->opaque(entry.name)->data(), entry.content.data());
  }
  EXPECT_FALSE(file->opaque("nothing").has_value());
  EXPECT_FALSE(file->opaque("embedding_layer.weight").has_value()) << "a tensor";
}

TEST(OpaqueTest, BytesAreDecodedHoweverTheyAreSpelt) {
  const std::string empty = global("__builtin__", "bytes") + ")R";
  const auto file = open_bytes(
      archive_of(pickle(dict(kWeight + text("ascii") + byte_stream(encoded_bytes("PK 12")) + text("wide") +
                             byte_stream(encoded_bytes("a\xc2\x80\xc3\xbf")) + text("binary") +
                             byte_stream("C\3\1\xff\2") + text("argument") + global("_io", "BytesIO") +
                             encoded_bytes("x") + "\x85R" + text("unset") + global("_io", "BytesIO") + ")R" +
                             text("empty") + byte_stream(empty) + text("bytes") + encoded_bytes("\xc3\xa9") +
                             text("None") + "N" + text("number") + "K\5" + text("text") + text("t"))),
                 {kSix}));
  const auto content = [&](const std::string& name) { return as_string(file->opaque(name).value()); };
  EXPECT_EQ(content("ascii"), "PK 12");
  EXPECT_EQ(content("wide"), "a\x80\xff");
  EXPECT_EQ(content("binary"), "\1\xff\2");
  EXPECT_EQ(content("argument"), "x");
  EXPECT_EQ(content("unset"), "");
  EXPECT_EQ(content("empty"), "");
  EXPECT_EQ(content("bytes"), "\xe9");
  EXPECT_EQ(content("None"), "");
  std::vector<Kind> kinds;
  for (const OpaqueEntry& entry : file->opaque()) kinds.push_back(entry.kind);
  EXPECT_EQ(kinds, (std::vector<Kind>{Kind::byte_stream, Kind::byte_stream, Kind::byte_stream,
                                      Kind::byte_stream, Kind::byte_stream, Kind::byte_stream, Kind::bytes,
                                      Kind::none, Kind::other, Kind::other}));
}

TEST(OpaqueTest, CharactersThatAreNoBytesAreRefused) {
  EXPECT_MENTIONS(refusal_of(archive_of(
                      pickle(dict(kWeight + text("e") + byte_stream(encoded_bytes("\xc4\x80")))), {kSix})),
                  "the bytes of entry 'e' hold a character beyond U+00FF");
}

TEST(OpaqueTest, ManyEntriesOfOneTextShareItsBytes) {
  std::string wide;
  for (int i = 0; i < 1000; ++i) wide += "\xc3\xbf";
  std::string items = kWeight + text("first") +
                      byte_stream(global("_codecs", "encode") + text(wide) + std::string("q\0", 2) +
                                  text("latin1") + "\x86R");
  for (int i = 0; i < 1000; ++i) {
    items += text("e" + std::to_string(i)) +
             byte_stream(global("_codecs", "encode") + std::string("h\0", 2) + text("latin1") + "\x86R");
  }
  const auto file = open_bytes(archive_of(pickle(dict(items)), {kSix}));
  EXPECT_EQ(file->opaque().size(), 1001U);
  EXPECT_EQ(file->opaque("first")->data(), file->opaque("e999")->data());
  EXPECT_EQ(as_string(file->opaque("e500").value()), std::string(1000, '\xff'));
}

TEST(OpaqueTest, AOneDimensionalByteTensorOfThatNameIsOne) {
  const std::string header =
      R"({"m._extra_state":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"n._extra_state":{"dtype":"U8","shape":[0],"data_offsets":[3,3]},)"
      R"("o._extra_state":{"dtype":"I8","shape":[1],"data_offsets":[3,4]},"p._extra_state":{"dtype":"U8","shape":[1,1],"data_offsets":[4,5]},)"
      R"("weight":{"dtype":"U8","shape":[2],"data_offsets":[5,7]}})";
  const auto file = open_bytes(safetensors_of(header, "abcdefg"));
  EXPECT_EQ(file->opaque_entries(), (std::vector<std::string>{"m._extra_state", "n._extra_state"}));
  EXPECT_EQ(as_string(file->opaque("m._extra_state").value()), "abc");
  EXPECT_EQ(file->find("m._extra_state"), nullptr);
  EXPECT_EQ(file->tensors().size(), 3U);

  const auto archive = open_bytes(archive_of(
      pickle(dict(text("m._extra_state") + tensor(storage("ByteStorage", "0", 3), 0, {3}, {1}))), {"abc"}));
  ASSERT_EQ(archive->opaque().size(), 1U);
  EXPECT_EQ(archive->opaque()[0].kind, Kind::byte_tensor);
  EXPECT_EQ(as_string(archive->opaque()[0].content), "abc");
}

TEST(OpaqueTest, EntriesSurviveEveryConversion) {
  const std::string all = every_byte();
  const float value = 1;
  const std::vector<TensorView> tensors = {
      {"w", DType::float32, {1}, reinterpret_cast<const std::byte*>(&value)}};
  const std::vector<OpaqueEntry> entries = {{"a._extra_state", Kind::byte_stream, as_bytes(all)},
                                            {"b._extra_state", Kind::byte_stream, {}}};
  const TemporaryFolder folder;
  write_torch_archive(folder / "1.pt", tensors, entries);
  const auto first = TensorFile::open(folder / "1.pt");
  write_safetensors(folder / "2.safetensors", first->tensors(), {}, first->opaque());
  const auto second = TensorFile::open(folder / "2.safetensors");
  write_torch_archive(folder / "3.pt", second->tensors(), second->opaque());
  for (const auto& file : {first, second, TensorFile::open(folder / "3.pt")}) {
    ASSERT_EQ(file->opaque().size(), 2U);
    EXPECT_EQ(as_string(file->opaque("a._extra_state").value()), all);
    EXPECT_EQ(file->opaque("b._extra_state")->size(), 0U);
    EXPECT_EQ(file->opaque()[0].kind, Kind::byte_stream);
    EXPECT_EQ(fingerprint(*file), fingerprint(*first));
  }
}

TEST(OpaqueTest, AnArchiveKeepsEveryKindButNumbers) {
  const std::vector<OpaqueEntry> entries = {{"stream", Kind::byte_stream, as_bytes(kSix)},
                                            {"tensor._extra_state", Kind::byte_tensor, as_bytes(kSix)},
                                            {"bytes", Kind::bytes, as_bytes(kSix)},
                                            {"no bytes", Kind::bytes, {}},
                                            {"None", Kind::none, {}}};
  const TemporaryFolder folder;
  write_torch_archive(folder / "all.pt", {}, entries);
  const auto file = TensorFile::open(folder / "all.pt");
  ASSERT_EQ(file->opaque().size(), entries.size());
  for (const OpaqueEntry& entry : entries) {
    const auto found = std::find_if(file->opaque().begin(), file->opaque().end(),
                                    [&](const auto& e) { return e.name == entry.name; });
    ASSERT_NE(found, file->opaque().end()) << entry.name;
    EXPECT_EQ(found->kind, entry.kind) << entry.name;
    EXPECT_EQ(as_string(found->content), as_string(entry.content)) << entry.name;
  }
  EXPECT_MENTIONS(
      refusal_by<DataError>([&] { write_torch_archive(folder / "x.pt", {}, {{"n", Kind::other, {}}}); }),
      "'n' is neither");
}

TEST(OpaqueTest, WhatSafetensorsCannotHoldIsRefusedNotDropped) {
  const TemporaryFolder folder;
  const auto refused = [&](const OpaqueEntry& entry) {
    return refusal_by<DataError>([&] { write_safetensors(folder / "x.safetensors", {}, {}, {entry}); });
  };
  EXPECT_MENTIONS(refused({"m._extra_state", Kind::none, {}}), "neither a tensor nor bytes");
  EXPECT_MENTIONS(refused({"m._extra_state", Kind::other, {}}), "neither a tensor nor bytes");
  EXPECT_MENTIONS(refused({"state", Kind::byte_stream, as_bytes(kSix)}), "only those called ..._extra_state");
  EXPECT_MENTIONS(refused({"", Kind::byte_stream, {}}), "needs a name");
  const float value = 1;
  EXPECT_THROW(
      write_safetensors(folder / "x.safetensors",
                        {{"m._extra_state", DType::float32, {1}, reinterpret_cast<const std::byte*>(&value)}},
                        {}, {{"m._extra_state", Kind::byte_stream, {}}}),
      DataError);
  EXPECT_TRUE(std::filesystem::is_empty(folder / ""));
}

}  // namespace
}  // namespace focus::formats::testing
