#include <gtest/gtest.h>

#include "archive_builder.h"
#include "focus/formats/safetensors_writer.h"

namespace focus::formats::testing {
namespace {

const std::string kFour = raw_bytes<float>({1, 2, 3, 4});

std::string entry(const std::string& name, const std::string& shape, const std::string& offsets,
                  const std::string& dtype = "F32") {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets +
         "}";
}
std::string refused(const std::string& entries, const std::string& data = kFour) {
  return refusal_of(safetensors_of("{" + entries + "}", data));
}

TEST(SafetensorsTest, TensorsAndMetadataInFileOrder) {
  const auto file =
      open_bytes(safetensors_of("{" + entry("b", "[2]", "[8,16]") +
                                    ", \"__metadata__\":{\"format\":\"pt\",\"made by\":\"a \\u00e9\"} ," +
                                    entry("a", "[1,2]", "[0,8]") + "}   ",
                                kFour));
  EXPECT_EQ(file->format(), "safetensors");
  ASSERT_EQ(file->tensors().size(), 2U);
  EXPECT_EQ(file->tensors()[0].name, "a");
  EXPECT_EQ(values_of<float>(file->tensors()[0]), (std::vector<float>{1, 2}));
  EXPECT_EQ(file->tensors()[0].shape, (std::vector<std::int64_t>{1, 2}));
  EXPECT_EQ(values_of<float>(*file->find("b")), (std::vector<float>{3, 4}));
  EXPECT_EQ(file->metadata(),
            (std::map<std::string, std::string>{{"format", "pt"}, {"made by", "a \xc3\xa9"}}));
  EXPECT_TRUE(file->opaque_entries().empty());
  EXPECT_TRUE(open_bytes(safetensors_of("{}", ""))->tensors().empty());
}

TEST(SafetensorsTest, MisalignedTensorsAreAligned) {
  const auto file = open_bytes(safetensors_of(
      "{" + entry("flag", "[1]", "[0,1]", "BOOL") + "," + entry("w", "[4]", "[1,17]") + "}", "\1" + kFour));
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(file->find("w")->data) % 4, 0U);
  EXPECT_EQ(values_of<float>(*file->find("w")), (std::vector<float>{1, 2, 3, 4}));
}

TEST(SafetensorsTest, WrittenFilesHaveAnAlignedHeaderAndTheGivenOrder) {
  const TemporaryFolder folder;
  const auto* data = reinterpret_cast<const std::byte*>(kFour.data());
  write_safetensors(folder / "f",
                    {{"z", DType::float32, {2}, data},
                     {"a \"quoted\"", DType::float32, {}, data + 8},
                     {"e", DType::int64, {0}, nullptr}},
                    {{"k", "v\n"}});
  const std::string bytes = read_bytes(folder / "f");
  std::uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes.data(), 8);
  EXPECT_EQ(header_bytes % 8, 0U);
  EXPECT_EQ(bytes.size(), 8 + header_bytes + 12);
  const auto file = TensorFile::open(folder / "f");
  ASSERT_EQ(file->tensors().size(), 3U);
  EXPECT_EQ(file->tensors()[0].name, "z");
  EXPECT_EQ(file->tensors()[1].name, "a \"quoted\"");
  EXPECT_EQ(values_of<float>(file->tensors()[1]), (std::vector<float>{3}));
  EXPECT_EQ(file->tensors()[2].num_elements(), 0);
  EXPECT_EQ(file->metadata().at("k"), "v\n");
}

TEST(SafetensorsTest, OffsetsMustTileTheData) {
  EXPECT_EQ(refused(entry("a", "[4]", "[0,16]")), "it was opened");
  EXPECT_MENTIONS(refused(entry("a", "[3]", "[0,12]") + "," + entry("b", "[2]", "[8,16]")),
                  "overlaps the tensor before it");
  EXPECT_MENTIONS(refused(entry("a", "[4]", "[0,16]") + "," + entry("b", "[4]", "[0,16]")),
                  "overlaps the tensor before it");
  EXPECT_MENTIONS(refused(entry("a", "[1]", "[0,4]") + "," + entry("b", "[2]", "[8,16]")), "leaves a gap");
  EXPECT_MENTIONS(refused(entry("a", "[2]", "[8,16]")), "leaves a gap");
  EXPECT_MENTIONS(refused(entry("a", "[3]", "[0,12]")), "end at byte 12 of 16");
  EXPECT_MENTIONS(refused(""), "end at byte 0 of 16");
  EXPECT_MENTIONS(refused(entry("a", "[5]", "[0,20]")), "leaves the 16 bytes of data");
  EXPECT_MENTIONS(refused(entry("a", "[4]", "[16,0]")), "leaves");
  EXPECT_MENTIONS(refused(entry("a", "[4]", "[0,9223372036854775807]")), "leaves the 16 bytes of data");
  EXPECT_MENTIONS(refused(entry("a", "[4]", "[0,18446744073709551615]")), "the number 18446744073709551615");
  EXPECT_MENTIONS(refused(entry("a", "[4]", "[0,99999999999999999999999]")),
                  "the number '99999999999999999999999'");
  EXPECT_MENTIONS(refused(entry("a", "[4]", "[-16,0]")), "the number -16");
  EXPECT_MENTIONS(refused(entry("a", "[4]", "[0,16.0]")), "the number '16.0'");
}

TEST(SafetensorsTest, ShapesMustFitTheirBytes) {
  EXPECT_MENTIONS(refused(entry("a", "[3]", "[0,16]")), "does not fit F32 [3], which needs 12 bytes");
  EXPECT_MENTIONS(refused(entry("a", "[4]", "[0,16]", "F64")), "does not fit F64 [4]");
  EXPECT_MENTIONS(refused(entry("a", "[-4]", "[0,16]")), "the number -4");
  EXPECT_MENTIONS(refused(entry("a", "[4294967296,4294967296]", "[0,16]")), "does not fit");
  EXPECT_MENTIONS(refused(entry("a", "[9223372036854775807]", "[0,16]")), "does not fit");
  EXPECT_MENTIONS(refused(entry("a", "[4611686018427387905]", "[0,16]")), "does not fit");
  EXPECT_MENTIONS(refused(entry("a", "[4]", "[0,16]", "F4")), "unsupported dtype 'F4'");
}

TEST(SafetensorsTest, HeadersMustBeWellFormed) {
  EXPECT_MENTIONS(refused(entry("a", "[2]", "[0,8]") + "," + entry("a", "[2]", "[8,16]")),
                  "the same name again at key 'a'");
  EXPECT_MENTIONS(refused("\"a\":{\"dtype\":\"F32\",\"shape\":[4]}"),
                  "lacks a dtype, a shape or two data_offsets");
  EXPECT_MENTIONS(refused(entry("a", "[4]", "[0,8,16]")), "lacks a dtype, a shape or two data_offsets");
  EXPECT_MENTIONS(
      refused("\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}"),
      "tensor 'a'");
  EXPECT_MENTIONS(refused("\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"shape\":[],\"data_offsets\":[0,16]}"),
                  "the same key again");
  EXPECT_MENTIONS(refused("\"a\":{\"type\":\"F32\"}"), "an unknown key at key 'type'");
  EXPECT_MENTIONS(refused("\"a\":[1]"), "a list");
  EXPECT_MENTIONS(refused("\"a\":null"), "null");
  EXPECT_MENTIONS(refused("\"__metadata__\":{\"a\":1}"), "the number 1");
  EXPECT_MENTIONS(refused("\"a\":{\"shape\":[[4]]}"), "a list");
  EXPECT_MENTIONS(refused("\"a\":{\"dtype\":{}}"), "an object");
  EXPECT_MENTIONS(refused("\"\xff\":{}"), "malformed JSON");
  EXPECT_MENTIONS(refused(entry("a", "[4]", "[0,16]") + ","), "malformed JSON");
  EXPECT_MENTIONS(refused(std::string(1'000'000, '[')), "malformed JSON");
  EXPECT_MENTIONS(refused("\"a\":" + std::string(1'000'000, '[')), "a list");
  EXPECT_MENTIONS(refused("\"a\":{\"shape\":[" + std::string(200'000, '0') + "]}"), "malformed JSON");
  std::string many = "0";
  for (int i = 0; i < 100; ++i) many += ",0";
  EXPECT_MENTIONS(refused(entry("a", "[" + many + "]", "[0,0]")), "more than 64 numbers");
  EXPECT_MENTIONS(refusal_of(safetensors_of("[]", "")), "neither a .pt");
  EXPECT_MENTIONS(refusal_of(safetensors_of("{}{}", "")), "malformed JSON");
  for (const std::uint64_t length :
       {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{3}, std::uint64_t{1} << 40, ~std::uint64_t{0}}) {
    EXPECT_MENTIONS(refusal_of(little(length) + "{}"), "header of " + std::to_string(length) + " bytes");
  }
}

TEST(SafetensorsTest, AHeaderOfAnyLengthIsNotTakenForAnotherFormat) {
  // Lengths whose first bytes are those of a pickle (0x80 0x02), a zip ("PK") or JSON ("{").
  for (const std::size_t length : {std::size_t{0x0280}, std::size_t{0x4b50}, std::size_t{0x227b}}) {
    std::string header = "{" + entry("a", "[4]", "[0,16]") + "}";
    header.resize(length, ' ');
    EXPECT_EQ(values_of<float>(*open_bytes(safetensors_of(header, kFour))->find("a")),
              (std::vector<float>{1, 2, 3, 4}))
        << length;
  }
}

TEST(SafetensorsTest, EveryElementTypeIsRead) {
  for (const std::string name :
       {"F32", "BF16", "F16", "F64", "I64", "I32", "I16", "I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2"}) {
    std::int64_t element_bytes = 1;
    if (name.find("64") != std::string::npos) element_bytes = 8;
    if (name.find("32") != std::string::npos) element_bytes = 4;
    if (name.find("16") != std::string::npos) element_bytes = 2;
    const auto file = open_bytes(safetensors_of(
        "{" + entry("a", "[" + std::to_string(16 / element_bytes) + "]", "[0,16]", name) + "}", kFour));
    EXPECT_EQ(name_of(file->tensors()[0].dtype), name);
    EXPECT_EQ(size_of(file->tensors()[0].dtype), element_bytes) << name;
    EXPECT_EQ(values_of<float>({"", DType::float32, {4}, file->tensors()[0].data}),
              (std::vector<float>{1, 2, 3, 4}))
        << name;
  }
}

}  // namespace
}  // namespace focus::formats::testing
