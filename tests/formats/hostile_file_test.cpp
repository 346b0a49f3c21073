// Files made to harm: whatever the bytes are, opening gives a TensorFile or a WeightsError, in bounded time
// and memory.
#include <gtest/gtest.h>

#include <random>

#include "archive_builder.h"
#include "focus/formats/safetensors_writer.h"

namespace focus::formats::testing {
namespace {

const std::string kSix = raw_bytes<float>({1, 2, 3, 4, 5, 6});
const std::string kWeight = text("w") + tensor(storage("FloatStorage", "0", 6), 0, {6}, {1});

/// Opens and, where that succeeds, reads every byte of every tensor, which the sanitizers then watch. True
/// when it opened.
bool opens(const std::filesystem::path& path) {
  try {
    const auto file = TensorFile::open(path);
    unsigned sum = 0;
    for (const TensorView& view : file->tensors()) {
      for (std::int64_t i = 0; i < view.num_bytes(); i += 64) sum += static_cast<unsigned>(view.data[i]);
      if (view.num_bytes() > 0) sum += static_cast<unsigned>(view.data[view.num_bytes() - 1]);
    }
    volatile unsigned sink = sum;
    static_cast<void>(sink);
    return true;
  } catch (const WeightsError& error) {
    EXPECT_FALSE(std::string(error.what()).empty());
    return false;
  }
}

// ---- damage ----
TEST(HostileFileTest, EveryTruncationIsRefused) {
  const std::string golden = read_bytes(golden_checkpoint());
  const TemporaryFolder folder;
  write_bytes(folder / "file", golden);
  write_safetensors(folder / "safe", TensorFile::open(folder / "file")->tensors());
  const std::string safe = read_bytes(folder / "safe");
  for (const std::string& whole : {golden, safe}) {
    std::vector<std::size_t> lengths;
    for (std::size_t length = 0; length < 200; ++length) lengths.push_back(length);
    for (std::size_t length = 200; length < whole.size(); length += 4999) lengths.push_back(length);
    for (std::size_t missing = 1; missing < 200; ++missing) lengths.push_back(whole.size() - missing);
    for (const std::size_t length : lengths) {
      write_bytes(folder / "cut", whole.substr(0, length));
      EXPECT_FALSE(opens(folder / "cut")) << "cut to " << length << " of " << whole.size();
    }
  }
}

/// Changes single bytes of [begin, end) in place and opens each time; the number that still opened.
int mutate(const std::filesystem::path& path, const std::string& original, std::size_t begin, std::size_t end,
           int count) {
  std::mt19937_64 random(7);
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  int opened = 0;
  for (int i = 0; i < count; ++i) {
    const std::size_t at = begin + random() % (end - begin);
    // Half of the time a single bit, which keeps more of the structure alive.
    const char value =
        i % 2 == 0 ? static_cast<char>(random()) : static_cast<char>(original[at] ^ (1 << random() % 8));
    file.seekp(static_cast<std::streamoff>(at)).put(value).flush();
    opened += opens(path) ? 1 : 0;
    file.seekp(static_cast<std::streamoff>(at)).put(original[at]).flush();
  }
  return opened;
}

TEST(HostileFileTest, ChangedBytesOpenOrAreRefused) {
  const std::string golden = read_bytes(golden_checkpoint());
  const TemporaryFolder folder;
  write_bytes(folder / "file.pt", golden);
  const std::size_t directory = golden.find("PK\x01\x02");
  ASSERT_NE(directory, std::string::npos);
  ASSERT_TRUE(opens(folder / "file.pt"));
  EXPECT_GT(mutate(folder / "file.pt", golden, 0, 36'000, 4000), 0)
      << "changes inside names and opaque entries are invisible";
  mutate(folder / "file.pt", golden, directory, golden.size(), 3000);
  mutate(folder / "file.pt", golden, golden.size() - 98, golden.size(), 1000);
  EXPECT_TRUE(opens(folder / "file.pt")) << "every byte was put back";

  // A small file, where most bytes matter.
  const std::string small = archive_of(
      pickle(dict(kWeight + text("t") + tensor(storage("FloatStorage", "0", 6), 1, {2, 2}, {1, 2}))), {kSix});
  write_bytes(folder / "small.pt", small);
  EXPECT_GT(mutate(folder / "small.pt", small, 0, small.size(), 4000), 0);

  write_safetensors(folder / "file.safetensors", TensorFile::open(folder / "file.pt")->tensors());
  const std::string safe = read_bytes(folder / "file.safetensors");
  mutate(folder / "file.safetensors", safe, 0, 9000, 3000);
}

// ---- pickles that want to run something ----
TEST(HostileFileTest, GlobalsOutsideTheListAreRefusedByName) {
  const std::string system = pickle(global("os", "system") + text("touch pwned") + "\x85R");
  const std::string message = refusal_of(archive_of(system));
  EXPECT_MENTIONS(message, "'os.system'");
  EXPECT_MENTIONS(message, "nothing was executed");
  EXPECT_FALSE(std::filesystem::exists("pwned"));
  const std::string hidden =
      pickle(dict(kWeight + text("v") + global("builtins", "eval") + text("1") + "\x85R"));
  EXPECT_MENTIONS(refusal_of(archive_of(hidden, {kSix})), "'builtins.eval'");
  const std::string stacked = "\x80\x04" + text("posix") + text("system") + "\x93" + text("true") + "\x85R.";
  EXPECT_MENTIONS(refusal_of(archive_of(stacked)), "'posix.system'");
  const std::string nearly = pickle(global("torch._utils", "_rebuild_tensor_v2.__globals__") + ")R");
  EXPECT_MENTIONS(refusal_of(archive_of(nearly)), "__globals__'");
  EXPECT_MENTIONS(refusal_of(archive_of(pickle(global("evil\x1b[2J", "x") + ")R"))), "'evil\\x1b[2J.x'");
  // INST, OBJ, EXT1 and the text opcodes of protocol 0.
  for (const char opcode : {'i', 'o', '\x82', 'I', 'S', 'V', 'P', 'l', 'd'}) {
    EXPECT_MENTIONS(refusal_of(archive_of(std::string("\x80\x02") + opcode + "os\nsystem\n.")),
                    "is not one that files of tensors use");
  }
}

TEST(HostileFileTest, AllowedGlobalsCannotBeMisused) {
  const auto refused = [](const std::string& object) {
    return refusal_of(archive_of(pickle(object), {kSix}));
  };
  EXPECT_MENTIONS(refused(global("torch", "FloatStorage") + ")R"), "a storage type is called");
  EXPECT_MENTIONS(refused(global("_codecs", "encode") + text("x") + text("rot13") + "\x86R"),
                  "something else than latin1");
  EXPECT_MENTIONS(refused(global("collections", "OrderedDict") + "]\x85R"), "expected none");
  EXPECT_MENTIONS(refused(text("a") + ")R"), "a called object is a str");
  EXPECT_MENTIONS(refused("N}b"), "a state is set on a None");
  EXPECT_MENTIONS(refused(global("torch._utils", "_rebuild_tensor_v2") + ")R"), "with 0 arguments");
  EXPECT_MENTIONS(refused("(" + text("module") + "tQ"), "persistent id of 1 members");
  EXPECT_MENTIONS(refused("]]" + text("k") + "Ns"), "assignment is a list");
}

// ---- tensors that reach outside ----
TEST(HostileFileTest, TensorsMustStayInsideTheirStorage) {
  constexpr std::int64_t kHuge = std::numeric_limits<std::int64_t>::max();
  const auto refused = [](std::int64_t count, std::int64_t offset, const std::vector<std::int64_t>& shape,
                          const std::vector<std::int64_t>& strides) {
    const std::string message = refusal_of(archive_of(
        pickle(dict(text("w") + tensor(storage("FloatStorage", "0", count), offset, shape, strides))),
        {kSix}));
    return message != "it was opened";
  };
  EXPECT_FALSE(refused(6, 0, {2, 3}, {3, 1}));
  EXPECT_FALSE(refused(6, 3, {1, 3}, {kHuge, 1})) << "the stride of an axis of one is never used";
  EXPECT_TRUE(refused(7, 0, {6}, {1}));
  EXPECT_TRUE(refused(5, 0, {5}, {1}));
  EXPECT_TRUE(refused(-1, 0, {1}, {1}));
  EXPECT_TRUE(refused(kHuge, 0, {1}, {1}));
  EXPECT_TRUE(refused(6, 0, {7}, {1}));
  EXPECT_TRUE(refused(6, 1, {6}, {1}));
  EXPECT_TRUE(refused(6, -1, {1}, {1}));
  EXPECT_TRUE(refused(6, 7, {0}, {1}));
  EXPECT_TRUE(refused(6, 6, {1}, {1}));
  EXPECT_TRUE(refused(6, kHuge, {2}, {1}));
  EXPECT_TRUE(refused(6, 0, {-1}, {1}));
  EXPECT_TRUE(refused(6, 0, {kHuge}, {1}));
  EXPECT_TRUE(refused(6, 0, {kHuge, 0}, {0, 0}));
  EXPECT_TRUE(refused(6, 0, {std::int64_t{1} << 32, std::int64_t{1} << 32}, {0, 0}));
  EXPECT_TRUE(refused(6, 0, {2, 3}, {4, 1}));
  EXPECT_TRUE(refused(6, 0, {2}, {-1}));
  EXPECT_TRUE(refused(6, 0, {3}, {kHuge}));
  EXPECT_TRUE(refused(6, 0, {2, 2}, {kHuge, kHuge}));
  EXPECT_TRUE(refused(6, 0, {2}, {1, 1}));
  EXPECT_TRUE(refused(6, 0, {1 << 30}, {0})) << "one number expanded to 4 GiB";
}

TEST(HostileFileTest, CopiesOfStridedTensorsAreBoundedByTheFile) {
  std::vector<float> square(10'000, 1.0F);
  std::string items;
  for (int i = 0; i < 100; ++i)
    items +=
        text("t" + std::to_string(i)) + tensor(storage("FloatStorage", "0", 10'000), 0, {100, 100}, {1, 100});
  EXPECT_MENTIONS(refusal_of(archive_of(pickle(dict(items)), {raw_bytes(square)})),
                  "bytes of memory of its own");
}

// ---- pickles that want to exhaust ----
TEST(HostileFileTest, DeepWideAndCyclicPicklesEnd) {
  const auto refused = [](const std::string& bytes) { return refusal_of(archive_of(bytes, {kSix})); };
  constexpr std::size_t kMany = 900'000;
  std::string nested = "\x80\x02";
  for (std::size_t i = 0; i < kMany; ++i) nested += "]";
  for (std::size_t i = 0; i + 1 < kMany; ++i) nested += "a";
  EXPECT_MENTIONS(refused(nested + "."), "holds a list");
  EXPECT_MENTIONS(refused("\x80\x02" + std::string(5'000'000, '(') + "."), "open collections");
  EXPECT_MENTIONS(refused("\x80\x02" + std::string(5'000'000, '}') + "."), "more than 1000000 objects");
  std::string repeated = "\x80\x02Nq";
  repeated += '\0';
  for (int i = 0; i < 1'500'000; ++i) repeated += std::string("h\0", 2);
  EXPECT_MENTIONS(refused(repeated + "."), "on its stack");
  EXPECT_MENTIONS(refused(std::string("\x80\x02}q\0(", 6) + text("model") + std::string("h\0u.", 4)),
                  "dicts deep");
  EXPECT_MENTIONS(refused("\x80\x02Nr\xff\xff\xff\x7f."), "memo index 2147483647 is too large");
  EXPECT_MENTIONS(refused("\x80\x02j\x05" + std::string(3, '\0') + "."), "never set");
  EXPECT_MENTIONS(refused("\x80\x02X\xff\xff\xff\xff."), "ends inside a string");
  EXPECT_MENTIONS(refused("\x80\x04\x8d" + std::string(8, '\xff') + "."), "ends inside a string");
  EXPECT_MENTIONS(refused("\x80\x02\x8a\x09" + std::string(9, '\1') + "."), "an integer of 9 bytes");
  EXPECT_MENTIONS(refused("\x80\x02(("), "it ends early");
  EXPECT_MENTIONS(refused("\x80\x02t."), "without a beginning");
  EXPECT_MENTIONS(refused("\x80\x02N(\x85."), "empty stack");
  EXPECT_MENTIONS(refused("\x80\x02."), "ends with 0 objects");
  EXPECT_MENTIONS(refused("\x80\x02NN."), "ends with 2 objects");
  EXPECT_MENTIONS(refused(std::string("\x80\1N.", 4)), "protocol 1");
  EXPECT_MENTIONS(refused(""), "it ends early");
  EXPECT_MENTIONS(refused(pickle(dict(kWeight + kWeight))), "two entries are called 'w'");
  EXPECT_MENTIONS(refused(pickle(dict(integer(1) + "N"))), "named by a int");
  EXPECT_MENTIONS(refused(pickle(dict(text("w") + "NN"))), "a dict key without a value");
}

TEST(HostileFileTest, ManyTensorsOfOneHugeTupleAreRefusedAtOnce) {
  // One tuple of 400 000 numbers as the shape of 100 000 tensors would be 4e10 steps.
  std::string object = "(";
  for (int i = 0; i < 400'000; ++i) object += "K\1";
  object += std::string("tq\0", 3) + "0";
  EXPECT_MENTIONS(refusal_of(archive_of(pickle(object))), "is not one that files of tensors use");
  object.pop_back();
  const std::string rebuilt = global("torch._utils", "_rebuild_tensor_v2") + "(" +
                              storage("FloatStorage", "0", 6) + integer(0) + std::string("h\0h\0", 4) +
                              "\x89" + global("collections", "OrderedDict") + ")RtR";
  EXPECT_MENTIONS(refusal_of(archive_of(pickle(object + rebuilt + "\x86"), {kSix})), "expected at most 64");
}

// ---- zips ----
TEST(HostileFileTest, ZipsThatLieAreRefused) {
  const std::string bytes = pickle(dict(kWeight));
  const std::string good = archive_of(bytes, {kSix});
  EXPECT_EQ(refusal_of(good), "it was opened");
  EXPECT_EQ(refusal_of(good.substr(0, good.size() - 2) + std::string("\3\0abc", 5)), "it was opened")
      << "a comment";
  EXPECT_MENTIONS(refusal_of(good + "x"), "no zip directory at its end");
  EXPECT_MENTIONS(refusal_of("x" + good), "neither a .pt");
  EXPECT_MENTIONS(refusal_of("PK\x05\x06" + std::string(18, '\0')), "without a NAME/data.pkl");
  EXPECT_MENTIONS(refusal_of(zip_of({{"a/data.pkl", bytes, 0, 1}})), "encrypted");
  EXPECT_MENTIONS(refusal_of(zip_of({{"a/data.pkl", bytes}, {"a/data/0", kSix}, {"a/data/0", kSix}})),
                  "two zip entries are called 'a/data/0'");

  const std::size_t central = good.find("PK\x01\x02");
  const std::size_t end = good.find("PK\x05\x06");
  const auto changed = [&](std::size_t at, const std::string& to) {
    std::string copy = good;
    copy.replace(at, to.size(), to);
    return refusal_of(copy);
  };
  EXPECT_MENTIONS(changed(central + 20, little<std::uint32_t>(1 << 20) + little<std::uint32_t>(1 << 20)),
                  "more than the file has");
  EXPECT_MENTIONS(changed(central + 20, little<std::uint32_t>(1)), "is stored in 1 bytes");
  EXPECT_MENTIONS(changed(central + 42, little<std::uint32_t>(0x7fffffff)), "where no entry begins");
  EXPECT_MENTIONS(changed(central + 28, little<std::uint16_t>(0xffff)), "leaves the directory");
  EXPECT_MENTIONS(changed(central + 46, "b"), "another name in its own header");
  EXPECT_MENTIONS(changed(end + 10, little<std::uint16_t>(0xffff)), "cannot hold the 65535 entries");
  EXPECT_MENTIONS(changed(end + 10, little<std::uint16_t>(1)), "after the last entry");
  EXPECT_MENTIONS(changed(end + 12, little<std::uint32_t>(0xfffffff0)), "does not fit");
  EXPECT_MENTIONS(changed(end + 16, little<std::uint32_t>(0xfffffff0)), "does not fit");

  // Two entries over the same bytes, each with a header of its own: the outer one's data contain the inner
  // one whole.
  const std::string name = "a/data/0";
  const std::string fields = little<std::uint16_t>(20) + std::string(12, '\0');
  const auto header = [&](const std::string& entry, std::uint32_t size) {
    return fields + little(size) + little(size) + little(static_cast<std::uint16_t>(entry.size()));
  };
  const std::string inner = "PK\x03\x04" + header("a/data/1", 4) + std::string(2, '\0') + "a/data/1" + "1234";
  const std::string outer =
      "PK\x03\x04" + header(name, static_cast<std::uint32_t>(inner.size())) + std::string(2, '\0') + name;
  const auto listed = [&](const std::string& entry, std::size_t size, std::size_t offset) {
    return "PK\x01\x02" + little<std::uint16_t>(20) + header(entry, static_cast<std::uint32_t>(size)) +
           std::string(12, '\0') + little(static_cast<std::uint32_t>(offset)) + entry;
  };
  const std::string directory = listed(name, inner.size(), 0) + listed("a/data/1", 4, outer.size());
  const auto offset = static_cast<std::uint32_t>(outer.size() + inner.size());
  EXPECT_MENTIONS(
      refusal_of(outer + inner + directory + "PK\x05\x06" + std::string(4, '\0') + little<std::uint16_t>(2) +
                 little<std::uint16_t>(2) + little(static_cast<std::uint32_t>(directory.size())) +
                 little(offset) + std::string(2, '\0')),
      "overlap");
}

TEST(HostileFileTest, OtherKindsOfFilesAreNamed) {
  EXPECT_MENTIONS(refusal_of(""), "0 bytes, too short");
  EXPECT_MENTIONS(refusal_of("version https://git-lfs.github.com/spec/v1\n"), "Git LFS pointer");
  EXPECT_MENTIONS(refusal_of("\x80\x02\x8a\x0al\xfc\x9c\x46\xf9\x20"), "old format");
  EXPECT_MENTIONS(refusal_of(">chr1\nACGTACGTACGT\n"), "neither a .pt");
}

}  // namespace
}  // namespace focus::formats::testing
