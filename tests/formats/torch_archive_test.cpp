#include <gtest/gtest.h>

#include <algorithm>

#include "archive_builder.h"
#include "focus/formats/digest.h"

namespace focus::formats::testing {
namespace {

using Shape = std::vector<std::int64_t>;
const std::string kDict = global("collections", "OrderedDict") + ")R";

// What Python's torch 2.11 reads in the golden checkpoint.
constexpr double kEmbeddingSum = 2.8837099075317383;
constexpr float kFirstLogPole = -0.0008485286380164325F;
constexpr const char* kGoldenDigest = "e85a561f148f107f33dab0f47860f07c5140ea1cba40fc992f4ef958dac14e34";
constexpr const char* kGoldenFileDigest = "ca3e9d33bb7b3adb3e4d5250fe2298911985518d5c0675ab07e99cc7c0ec1abd";

float from_bfloat16(std::uint16_t bits) {
  const std::uint32_t wide = static_cast<std::uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

// ---- a checkpoint of the released layout ----
TEST(TorchArchiveTest, GoldenCheckpointHasItsTensorsAndOpaqueEntries) {
  const auto file = TensorFile::open(golden_checkpoint());
  EXPECT_EQ(file->format(), "pt");
  EXPECT_EQ(file->tensors().size(), 89U);
  EXPECT_EQ(file->opaque_entries().size(), 10U);
  EXPECT_EQ(file->opaque_entries().front(), "blocks.0.projections._extra_state");
  EXPECT_TRUE(file->metadata().empty());
  EXPECT_EQ(file->tensors()[0].name, "embedding_layer.weight");
  EXPECT_EQ(file->tensors()[1].name, "unembed.weight");
  EXPECT_EQ(file->tensors()[2].name, "blocks.0.pre_norm.scale");
  EXPECT_EQ(file->find("blocks.0.projections._extra_state"), nullptr);
  EXPECT_EQ(file->find("nothing"), nullptr);
}

TEST(TorchArchiveTest, GoldenCheckpointHasItsTypesShapesAndValues) {
  const auto file = TensorFile::open(golden_checkpoint());
  const TensorView* embedding = file->find("embedding_layer.weight");
  ASSERT_NE(embedding, nullptr);
  EXPECT_EQ(embedding->dtype, DType::bfloat16);
  EXPECT_EQ(embedding->shape, (Shape{512, 64}));
  EXPECT_EQ(embedding->num_bytes(), 65536);
  double sum = 0;
  for (const std::uint16_t bits : values_of<std::uint16_t>(*embedding)) sum += from_bfloat16(bits);
  EXPECT_DOUBLE_EQ(sum, kEmbeddingSum);
  EXPECT_EQ(file->find("unembed.weight")->data, embedding->data) << "one storage, so one place";

  const TensorView* poles = file->find("blocks.2.filter.log_poles");
  ASSERT_NE(poles, nullptr);
  EXPECT_EQ(poles->dtype, DType::float32);
  EXPECT_EQ(poles->shape, (Shape{64, 16, 1}));
  EXPECT_FLOAT_EQ(values_of<float>(*poles)[0], kFirstLogPole);
  EXPECT_EQ(file->find("blocks.1.filter.h")->dtype, DType::float32);
  EXPECT_EQ(file->find("blocks.1.filter.h")->shape, (Shape{4, 1, 128}));
}

TEST(TorchArchiveTest, GoldenDigestIsTheOneComputedInPython) {
  EXPECT_EQ(digest(*TensorFile::open(golden_checkpoint())), kGoldenDigest);
  EXPECT_EQ(file_digest(golden_checkpoint()), kGoldenFileDigest);
}

// ---- missing ----
TEST(TorchArchiveTest, AMissingFileIsNamed) {
  const TemporaryFolder folder;
  const std::string message = refusal_of_path(folder / "absent.pt");
  EXPECT_MENTIONS(message, "absent.pt'");
  EXPECT_MENTIONS(message, "absent.pt.part0");
  std::filesystem::create_directory(folder / "folder");
  EXPECT_MENTIONS(refusal_of_path(folder / "folder"), "no weights in the folder");
}

// ---- what a pickle may hold ----
const std::string kSix = raw_bytes<float>({1, 2, 3, 4, 5, 6});

TEST(TorchArchiveTest, OffsetsStridesScalarsAndEmptyTensors) {
  const std::string six = storage("FloatStorage", "0", 6);
  const auto file = open_bytes(archive_of(
      pickle(dict(text("whole") + tensor(six, 0, {2, 3}, {3, 1}) + text("transposed") +
                  tensor(six, 0, {3, 2}, {1, 3}) + text("tail") + tensor(six, 4, {2}, {1}) + text("scalar") +
                  tensor(six, 5, {}, {}) + text("empty") + tensor(six, 6, {3, 0, 2}, {2, 2, 1}) +
                  text("expanded") + tensor(six, 1, {3}, {0}) + text("every other") +
                  tensor(six, 1, {1, 3}, {99, 2}) + text("none") +
                  tensor(storage("HalfStorage", "1", 0), 0, {0}, {1}))),
      {kSix, ""}));
  ASSERT_EQ(file->tensors().size(), 8U);
  EXPECT_EQ(values_of<float>(*file->find("whole")), (std::vector<float>{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(values_of<float>(*file->find("transposed")), (std::vector<float>{1, 4, 2, 5, 3, 6}));
  EXPECT_EQ(values_of<float>(*file->find("tail")), (std::vector<float>{5, 6}));
  EXPECT_EQ(values_of<float>(*file->find("scalar")), (std::vector<float>{6}));
  EXPECT_EQ(file->find("scalar")->shape, Shape{});
  EXPECT_EQ(file->find("empty")->num_elements(), 0);
  EXPECT_EQ(file->find("empty")->shape, (Shape{3, 0, 2}));
  EXPECT_EQ(values_of<float>(*file->find("expanded")), (std::vector<float>{2, 2, 2}));
  EXPECT_EQ(values_of<float>(*file->find("every other")), (std::vector<float>{2, 4, 6}));
  EXPECT_EQ(file->find("none")->dtype, DType::float16);
}

TEST(TorchArchiveTest, MisalignedRecordsAreStillAligned) {
  const std::string bytes = pickle(dict(text("w") + tensor(storage("DoubleStorage", "0", 2), 0, {2}, {1})));
  for (std::size_t padding = 0; padding < 8; ++padding) {
    const auto file =
        open_bytes(zip_of({{"a/data.pkl", bytes}, {"a/data/0", raw_bytes<double>({0.5, 2.5})}}, padding));
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(file->tensors()[0].data) % 8, 0U) << padding;
    EXPECT_EQ(values_of<double>(file->tensors()[0]), (std::vector<double>{0.5, 2.5})) << padding;
  }
}

TEST(TorchArchiveTest, ParametersStreamsAndStateDictsAttributesAreUnderstood) {
  const std::string weight = tensor(storage("FloatStorage", "0", 6), 0, {6}, {1});
  const std::string parameter =
      global("torch._utils", "_rebuild_parameter") + "(" + weight + "\x88" + kDict + "tR";
  const std::string content = global("_codecs", "encode") + text("\xc3\xbf") + text("latin1") + "\x86R";
  const std::string no_content = global("__builtin__", "bytes") + ")R";
  const auto file = open_bytes(
      archive_of(pickle(kDict + "(" + text("w") + parameter + text("stream") + global("_io", "BytesIO") +
                        ")\x81" + content + std::string("K\0N\x87", 4) + "b" + text("empty stream") +
                        global("_io", "BytesIO") + ")\x81" + no_content + std::string("K\0N\x87", 4) + "b" +
                        text("reduced") + global("_io", "BytesIO") + content + "\x85R" + text("nothing") +
                        "N" + "u" + dict(text("_metadata") + kDict) + "b"),
                 {kSix}));
  ASSERT_EQ(file->tensors().size(), 1U);
  EXPECT_EQ(values_of<float>(*file->find("w")), (std::vector<float>{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(file->opaque_entries(),
            (std::vector<std::string>{"stream", "empty stream", "reduced", "nothing"}));
}

TEST(TorchArchiveTest, ALaterProtocolIsReadToo) {
  const auto short_text = [](const std::string& value) {
    return "\x8c" + little(static_cast<std::uint8_t>(value.size())) + value + "\x94";
  };
  const std::string storage_id = "(" + short_text("storage") + short_text("torch") +
                                 short_text("ShortStorage") + "\x93\x94" + short_text("0") +
                                 short_text("cpu") + "K\x02" + "t\x94Q";
  const std::string rebuilt = short_text("torch._utils") + short_text("_rebuild_tensor_v2") + "\x93\x94(" +
                              storage_id + std::string("K\0", 2) + "K\x02\x85\x94" + "K\x01\x85\x94\x89" +
                              short_text("collections") + short_text("OrderedDict") +
                              "\x93\x94)R\x94t\x94R\x94";
  // The tensor is the memo's entry 19.
  const std::string body = "}\x94" + short_text("a") + rebuilt + "s" + short_text("b") + "h\x13" + "s.";
  const auto file =
      open_bytes(archive_of("\x80\x04\x95" + little(static_cast<std::uint64_t>(body.size())) + body,
                            {raw_bytes<std::int16_t>({-3, 4})}));
  EXPECT_EQ(values_of<std::int16_t>(*file->find("b")), (std::vector<std::int16_t>{-3, 4}));
}

TEST(TorchArchiveTest, TheStateDictMayLieOneLevelDown) {
  const std::string weight = text("w") + tensor(storage("FloatStorage", "0", 6), 0, {6}, {1});
  for (const std::string key : {"state_dict", "model", "module", "anything"}) {
    EXPECT_NE(open_bytes(archive_of(pickle(dict(text(key) + dict(weight))), {kSix}))->find("w"), nullptr)
        << key;
  }
  EXPECT_NE(open_bytes(archive_of(pickle(dict(text("epoch") + integer(3) + text("state_dict") +
                                              dict(text("module") + dict(weight)))),
                                  {kSix}))
                ->find("w"),
            nullptr);
  // Beside other tensors they keep their key, so that nothing is lost without a word.
  const auto beside =
      open_bytes(archive_of(pickle(dict(text("state_dict") + dict(weight) + weight)), {kSix}));
  ASSERT_EQ(beside->tensors().size(), 2U);
  EXPECT_EQ(beside->tensors()[0].name, "state_dict." + beside->tensors()[1].name);
  EXPECT_MENTIONS(
      refusal_of(
          archive_of(pickle(dict(text("model") + dict(weight) + text("state_dict") + dict(weight))), {kSix})),
      "several");
  EXPECT_MENTIONS(refusal_of(archive_of(pickle(dict(weight + text("optimizer") + dict(""))), {kSix})),
                  "'optimizer' is a dict");
  EXPECT_MENTIONS(refusal_of(archive_of(pickle("]"), {})), "holds a list");
}

TEST(TorchArchiveTest, FolderNameIsFreeAndByteOrderChecked) {
  const std::string bytes = pickle(dict(text("w") + tensor(storage("FloatStorage", "0", 6), 0, {6}, {1})));
  EXPECT_NE(open_bytes(zip_of({{"some/where/data.pkl", bytes}, {"some/where/data/0", kSix}}))->find("w"),
            nullptr);
  EXPECT_MENTIONS(refusal_of(zip_of({{"a/data.pkl", bytes}, {"a/data/0", kSix}, {"a/byteorder", "big"}})),
                  "byte order is 'big'");
  EXPECT_MENTIONS(refusal_of(zip_of({{"a/data.pkl", bytes}, {"b/data.pkl", bytes}})),
                  "more than one data.pkl");
  EXPECT_MENTIONS(refusal_of(zip_of({{"a/model.txt", bytes}})), "without a NAME/data.pkl");
  EXPECT_MENTIONS(refusal_of(zip_of({{"a/data.pkl", bytes}})), "storage '0' is not in the file");
  EXPECT_MENTIONS(refusal_of(zip_of({{"a/data.pkl", bytes, 8}, {"a/data/0", kSix}})),
                  "is compressed (method 8)");
}

TEST(TorchArchiveTest, AnotherElementTypeIsNamed) {
  const auto refused = [](const std::string& type) {
    return refusal_of(
        archive_of(pickle(dict(text("w") + tensor(storage(type, "0", 6), 0, {6}, {1}))), {kSix}));
  };
  EXPECT_MENTIONS(refused("ComplexFloatStorage"), "unsupported type 'torch.ComplexFloatStorage'");
  EXPECT_MENTIONS(refused("DoubleStorage"), "storage '0' has 24 bytes, expected 6 elements of 8 bytes");
}

TEST(TorchArchiveTest, EveryElementTypeIsRead) {
  std::string items, bytes(16, '\0');
  std::vector<DType> expected;
  std::vector<std::string> storages;
  const auto add = [&](DType dtype, const std::string& value) {
    items += text("t" + std::to_string(expected.size())) + value;
    expected.push_back(dtype);
    storages.push_back(bytes);
  };
  const std::vector<std::pair<std::string, DType>> typed = {
      {"FloatStorage", DType::float32}, {"BFloat16Storage", DType::bfloat16},
      {"HalfStorage", DType::float16},  {"DoubleStorage", DType::float64},
      {"LongStorage", DType::int64},    {"IntStorage", DType::int32},
      {"ShortStorage", DType::int16},   {"CharStorage", DType::int8},
      {"ByteStorage", DType::uint8},    {"BoolStorage", DType::boolean}};
  for (const auto& [name, dtype] : typed) {
    const std::int64_t count = 16 / size_of(dtype);
    add(dtype, tensor(storage(name, std::to_string(expected.size()), count), 0, {count}, {1}));
  }
  add(DType::float8_e4m3,
      untyped_tensor("float8_e4m3fn", std::to_string(expected.size()), 16, {2, 8}, {8, 1}));
  add(DType::float8_e5m2, untyped_tensor("float8_e5m2", std::to_string(expected.size()), 16, {8, 2}, {1, 8}));
  for (std::size_t i = 0; i < bytes.size(); ++i) storages.back()[i] = static_cast<char>(i);
  const auto file = open_bytes(archive_of(pickle(dict(items)), storages));
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(file->tensors()[i].dtype, expected[i]);
    EXPECT_EQ(file->tensors()[i].num_bytes(), 16);
  }
  EXPECT_EQ(values_of<std::uint8_t>(file->tensors().back())[1], 8)
      << "strides count elements of the tensor's type";
}

TEST(TorchArchiveTest, HalfPrecisionValuesAreThoseOfTheFile) {
  const auto file =
      open_bytes(archive_of(pickle(dict(text("h") + tensor(storage("HalfStorage", "0", 3), 1, {2}, {1}))),
                            {raw_bytes<std::uint16_t>({0x3c00, 0xc000, 0x7bff})}));
  EXPECT_EQ(file->find("h")->dtype, DType::float16);
  EXPECT_EQ(values_of<std::uint16_t>(*file->find("h")), (std::vector<std::uint16_t>{0xc000, 0x7bff}));
}

TEST(TorchArchiveTest, UntypedStoragesMustFitTheirTensors) {
  const auto refused = [](const std::string& value, std::size_t size = 4) {
    return refusal_of(archive_of(pickle(dict(text("t") + value)), {std::string(size, '\0')}));
  };
  EXPECT_EQ(refused(untyped_tensor("float8_e5m2", "0", 4, {4}, {1})), "it was opened");
  EXPECT_MENTIONS(refused(untyped_tensor("float8_e5m2", "0", 4, {5}, {1})),
                  "leaves its storage of 4 elements");
  EXPECT_MENTIONS(refused(untyped_tensor("float8_e5m2", "0", 5, {4}, {1})),
                  "has 4 bytes, expected 5 elements of 1 bytes");
  EXPECT_MENTIONS(refused(untyped_tensor("float8_e5m2fnuz", "0", 4, {4}, {1})),
                  "unsupported type 'torch.float8_e5m2fnuz'");
  EXPECT_MENTIONS(refused(untyped_tensor("uint16", "0", 4, {2}, {1})), "unsupported type 'torch.uint16'");
  EXPECT_MENTIONS(refused(untyped_tensor("FloatStorage", "0", 4, {4}, {1})), "a tensor's dtype is no dtype");
  EXPECT_MENTIONS(refused(untyped_tensor("load", "0", 4, {4}, {1})),
                  "refused: its pickle asks for the global 'torch.load'");
  EXPECT_MENTIONS(refused(global("torch", "float8_e5m2") + ")R"), "a dtype is called");
  EXPECT_MENTIONS(refused(global("torch.storage", "UntypedStorage") + ")R"), "a storage type is called");
  const std::string untyped = "(" + text("storage") + global("torch.storage", "UntypedStorage") + text("0") +
                              text("cpu") + integer(4) + "tQ";
  EXPECT_MENTIONS(refused(tensor(untyped, 0, {4}, {1})), "_rebuild_tensor_v2 with a storage without a type");
}

}  // namespace
}  // namespace focus::formats::testing
