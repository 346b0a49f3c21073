// Files that the writers make, read back.
#include <gtest/gtest.h>

#include "archive_builder.h"
#include "focus/formats/digest.h"
#include "focus/formats/safetensors_writer.h"
#include "focus/formats/torch_archive_writer.h"

namespace focus::formats::testing {
namespace {

using Shape = std::vector<std::int64_t>;

TEST(WriterTest, GoldenCheckpointSurvivesEveryRoundTrip) {
  const TemporaryFolder folder;
  const auto golden = TensorFile::open(golden_checkpoint());
  write_torch_archive(folder / "again.pt", golden->tensors());
  const auto again = TensorFile::open(folder / "again.pt");
  EXPECT_EQ(digest(*again), digest(*golden));
  EXPECT_EQ(again->find("unembed.weight")->data, again->find("embedding_layer.weight")->data)
      << "a shared storage is written once";
  for (std::size_t i = 0; i < golden->tensors().size(); ++i) {
    EXPECT_EQ(again->tensors()[i].name, golden->tensors()[i].name);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(again->tensors()[i].data) % 64, 0U)
        << again->tensors()[i].name;
  }
  write_safetensors(folder / "model.safetensors", again->tensors(), {{"source", "tiny7b"}});
  const auto safe = TensorFile::open(folder / "model.safetensors");
  EXPECT_EQ(digest(*safe), digest(*golden));
  write_torch_archive(folder / "back.pt", safe->tensors());
  EXPECT_EQ(digest(*TensorFile::open(folder / "back.pt")), digest(*golden));
}

TEST(WriterTest, PieceByPieceMakesTheSameFile) {
  const TemporaryFolder folder;
  std::vector<float> numbers(1000);
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<float>(i);
  const auto* bytes = reinterpret_cast<const std::byte*>(numbers.data());
  const std::vector<TensorView> whole = {{"b", DType::float32, {10, 60}, bytes},
                                         {"a", DType::float32, {400}, bytes + 2400}};
  write_safetensors(folder / "whole.safetensors", whole, {{"key", "value"}});
  std::vector<TensorView> announced = whole;
  for (TensorView& tensor : announced) tensor.data = nullptr;
  {
    SafetensorsStream stream(folder / "pieces.safetensors", announced, {{"key", "value"}});
    for (std::size_t at = 0; at < 4000; at += 160) stream.write(bytes + at, 160);
    EXPECT_FALSE(std::filesystem::exists(folder / "pieces.safetensors"));
    EXPECT_THROW(stream.write(bytes, 1), InternalError);
    stream.commit();
  }
  EXPECT_EQ(read_bytes(folder / "pieces.safetensors"), read_bytes(folder / "whole.safetensors"));
  {
    SafetensorsStream half(folder / "half.safetensors", announced, {});
    half.write(bytes, 2000);
    EXPECT_THROW(half.commit(), InternalError);
  }
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 2);
}

TEST(WriterTest, EveryTypeAndOddShapeSurvives) {
  const TemporaryFolder folder;
  std::vector<std::byte> memory(4096);
  for (std::size_t i = 0; i < memory.size(); ++i) memory[i] = static_cast<std::byte>(i * 31 + 7);
  std::vector<TensorView> tensors;
  for (const DType dtype :
       {DType::float32, DType::bfloat16, DType::float16, DType::float64, DType::int64, DType::int32,
        DType::int16, DType::int8, DType::uint8, DType::boolean, DType::float8_e4m3, DType::float8_e5m2}) {
    for (const Shape& shape : {Shape{}, Shape{0}, Shape{3}, Shape{2, 0, 5}, Shape{1, 300}, Shape{2, 3, 5}}) {
      tensors.push_back({"t" + std::to_string(tensors.size()) + "." + name_of(dtype) + " \"\xc3\xa9\n", dtype,
                         shape, memory.data()});
    }
  }
  write_torch_archive(folder / "all.pt", tensors);
  write_safetensors(folder / "all.safetensors", tensors);
  const auto archive = TensorFile::open(folder / "all.pt");
  const auto safe = TensorFile::open(folder / "all.safetensors");
  ASSERT_EQ(archive->tensors().size(), tensors.size());
  for (const TensorView& tensor : tensors) {
    for (const auto& file : {archive, safe}) {
      const TensorView* found = file->find(tensor.name);
      ASSERT_NE(found, nullptr) << tensor.name;
      EXPECT_EQ(found->dtype, tensor.dtype);
      EXPECT_EQ(found->shape, tensor.shape);
      const auto num_bytes = static_cast<std::size_t>(tensor.num_bytes());
      EXPECT_TRUE(num_bytes == 0 || std::memcmp(found->data, tensor.data, num_bytes) == 0) << tensor.name;
    }
  }
  EXPECT_EQ(digest(*archive), digest(*safe));
  write_torch_archive(folder / "none.pt", {});
  EXPECT_TRUE(TensorFile::open(folder / "none.pt")->tensors().empty());
}

TEST(WriterTest, WhatCannotBeWrittenIsRefusedAndLeavesNothing) {
  const TemporaryFolder folder;
  const float value = 1;
  const auto* data = reinterpret_cast<const std::byte*>(&value);
  const std::vector<std::vector<TensorView>> bad = {
      {{"a", DType::float32, {1}, data}, {"a", DType::float32, {1}, data}},
      {{"a", DType::float32, {-1}, data}},
      {{"a", DType::float32, {std::int64_t{1} << 40, std::int64_t{1} << 40}, data}},
      {{"a", DType::float32, {1}, nullptr}},
      {{"\xff", DType::float32, {1}, data}},
      {{"", DType::float32, {1}, data}}};
  for (const auto& tensors : bad) {
    EXPECT_THROW(write_torch_archive(folder / "bad.pt", tensors), DataError);
    EXPECT_THROW(write_safetensors(folder / "bad.pt", tensors), DataError);
  }
  EXPECT_THROW(write_safetensors(folder / "bad.pt", {{"__metadata__", DType::float32, {1}, data}}),
               DataError);
  EXPECT_THROW(write_torch_archive(folder / "no folder" / "bad.pt", {}), DataError);
  EXPECT_FALSE(std::filesystem::exists(folder / "bad.pt"));
  EXPECT_TRUE(std::filesystem::is_empty((folder / "x").parent_path()));
}

}  // namespace
}  // namespace focus::formats::testing
