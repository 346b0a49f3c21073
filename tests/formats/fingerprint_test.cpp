#include <gtest/gtest.h>

#include "archive_builder.h"
#include "focus/formats/digest.h"
#include "focus/formats/safetensors_writer.h"
#include "focus/formats/torch_archive_writer.h"
#include "sha256.h"

namespace focus::formats::testing {
namespace {

std::string number(std::uint64_t value) { return little(value); }
std::string counted(const std::string& value) { return number(value.size()) + value; }

std::string bytes_like(std::size_t count) {
  std::string bytes(count, '\0');
  for (std::size_t i = 0; i < count; ++i) bytes[i] = static_cast<char>(i * 2654435761U >> 13);
  return bytes;
}

std::string fingerprint_of(const std::string& bytes, const std::vector<std::int64_t>& shape = {},
                           DType dtype = DType::uint8, const std::string& name = "t") {
  const TemporaryFolder folder;
  const std::vector<std::int64_t> sizes =
      shape.empty() ? std::vector<std::int64_t>{static_cast<std::int64_t>(bytes.size())} : shape;
  write_safetensors(folder / "f", {{name, dtype, sizes, as_bytes(bytes).data()}});
  return fingerprint(*TensorFile::open(folder / "f"));
}

TEST(FingerprintTest, IsTheDocumentedHash) {
  const std::string small = bytes_like(65'536), large = bytes_like(1'000'003), state = "state";
  const TemporaryFolder folder;
  write_safetensors(folder / "f",
                    {{"b", DType::uint8, {1'000'003}, as_bytes(large).data()},
                     {"a", DType::bfloat16, {2, 16'384}, as_bytes(small).data()}},
                    {}, {{"m._extra_state", OpaqueEntry::Kind::byte_stream, as_bytes(state)}});
  std::string hashed = "focus fingerprint 1";
  hashed += counted("a") + counted("BF16") + number(2) + number(2) + number(16'384) + small;
  hashed += counted("b") + counted("U8") + number(1) + number(1'000'003) + large.substr(0, 16'384);
  for (std::size_t i = 0; i < 8; ++i) hashed += large.substr(16'384 + i * ((1'000'003 - 36'864) / 7), 4096);
  hashed += large.substr(1'000'003 - 16'384);
  hashed += counted("m._extra_state") + counted("opaque") + number(1) + number(5) + state;
  Sha256 hash;
  hash.update(hashed.data(), hashed.size());
  EXPECT_EQ(fingerprint(*TensorFile::open(folder / "f")), hash.hex());
}

TEST(FingerprintTest, TellsContentApart) {
  const std::string bytes = bytes_like(200'000);
  const std::string whole = fingerprint_of(bytes);
  const auto changed = [&](std::size_t at) {
    std::string copy = bytes;
    copy[at] = static_cast<char>(copy[at] ^ 1);
    return fingerprint_of(copy) != whole;
  };
  for (const std::size_t at : {std::size_t{0}, std::size_t{16'383}, std::size_t{16'384}, std::size_t{20'479},
                               std::size_t{183'614}, std::size_t{183'616}, std::size_t{199'999}}) {
    EXPECT_TRUE(changed(at)) << at;
  }
  EXPECT_FALSE(changed(20'480)) << "between two sampled blocks: the price of its speed";
  EXPECT_NE(fingerprint_of(bytes, {2, 100'000}), whole);
  EXPECT_NE(fingerprint_of(bytes, {200'000}, DType::int8), whole);
  EXPECT_NE(fingerprint_of(bytes, {200'000}, DType::uint8, "u"), whole);
  const std::string exactly = bytes_like(65'536);
  std::string other = exactly;
  other[20'480] = static_cast<char>(other[20'480] ^ 1);
  EXPECT_NE(fingerprint_of(exactly), fingerprint_of(other)) << "up to 64 KiB every byte counts";
}

TEST(FingerprintTest, DoesNotDependOnContainerOrOrder) {
  const auto golden = TensorFile::open(golden_checkpoint());
  const std::string expected = fingerprint(*golden);
  const TemporaryFolder folder;
  std::vector<TensorView> reversed(golden->tensors().rbegin(), golden->tensors().rend());
  write_safetensors(folder / "f.safetensors", reversed, {{"k", "v"}}, golden->opaque());
  EXPECT_EQ(fingerprint(*TensorFile::open(folder / "f.safetensors")), expected);
  split(read_bytes(golden_checkpoint()), folder / "p.pt", {311'743, 623'486});
  EXPECT_EQ(fingerprint(*TensorFile::open(folder / "p.pt")), expected);
  write_safetensors(folder / "g.safetensors", reversed);
  EXPECT_NE(fingerprint(*TensorFile::open(folder / "g.safetensors")), expected)
      << "FP8 scales belong to the model";
}

TEST(FingerprintTest, EntriesWithoutBytesDoNotCount) {
  const TemporaryFolder folder;
  write_torch_archive(folder / "a.pt", {}, {{"m._extra_state", OpaqueEntry::Kind::none, {}}});
  write_torch_archive(folder / "b.pt", {});
  EXPECT_EQ(fingerprint(*TensorFile::open(folder / "a.pt")), fingerprint(*TensorFile::open(folder / "b.pt")));
}

}  // namespace
}  // namespace focus::formats::testing
