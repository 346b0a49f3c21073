#include "sha256.h"

#include <gtest/gtest.h>

#include <string>

#include "archive_builder.h"
#include "focus/formats/digest.h"

namespace focus::formats {
namespace {

std::string hash_of(const std::string& text, std::size_t chunk = 1 << 20) {
  Sha256 hash;
  for (std::size_t at = 0; at < text.size(); at += chunk)
    hash.update(text.data() + at, std::min(chunk, text.size() - at));
  return hash.hex();
}

// The example messages of FIPS 180-4.
TEST(Sha256Test, GivesTheStandardsExamples) {
  EXPECT_EQ(hash_of(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(hash_of("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(hash_of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(hash_of(std::string(1'000'000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256Test, ChunksDoNotMatter) {
  const std::string bytes(300, 'g');
  for (const std::size_t chunk : {1, 7, 63, 64, 65, 128})
    EXPECT_EQ(hash_of(bytes, chunk), hash_of(bytes)) << chunk;
}

TEST(Sha256Test, FileDigestIsThatOfTheJoinedParts) {
  const testing::TemporaryFolder folder;
  testing::write_bytes(folder / "all", "abc");
  testing::write_bytes(folder / "split.part0", "a");
  testing::write_bytes(folder / "split.part1", "bc");
  EXPECT_EQ(file_digest(folder / "all"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(file_digest(folder / "split"), file_digest(folder / "all"));
}

}  // namespace
}  // namespace focus::formats
