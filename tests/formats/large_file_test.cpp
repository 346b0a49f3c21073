// Checkpoints beyond 4 GiB, in sparse files: 64-bit offsets, and no more memory than the tensors that need a
// copy.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <thread>

#include "archive_builder.h"
#include "focus/formats/torch_archive_writer.h"

namespace focus::formats::testing {
namespace {

constexpr std::uint64_t kGibibyte = std::uint64_t{1} << 30;

/// A .pt of the float tensors t0, t1, ...: zeros but for the last number of each, which is its position plus
/// one. False where it cannot be made.
bool make_sparse_archive(const std::filesystem::path& path, const std::vector<std::uint64_t>& counts) {
  std::string items;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const auto count = static_cast<std::int64_t>(counts[i]);
    items += text("t" + std::to_string(i)) +
             tensor(storage("FloatStorage", std::to_string(i), count), 0, {count}, {1});
  }
  struct Placed {
    std::string name;
    std::uint64_t size, offset;
  };
  std::vector<Placed> placed;
  std::ofstream out(path, std::ios::binary);
  const auto add = [&](const std::string& name, std::uint64_t size) {
    placed.push_back({name, size, static_cast<std::uint64_t>(out.tellp())});
    // Local sizes stay zero, as torch.save leaves them: only the directory counts. Aligned data are mapped,
    // not copied.
    const auto padding = 64 - (static_cast<std::uint64_t>(out.tellp()) + 34 + name.size()) % 64;
    out << "PK\x03\x04" << std::string(22, '\0') << little(static_cast<std::uint16_t>(name.size()))
        << little(static_cast<std::uint16_t>(padding + 4)) << name << "FB"
        << little(static_cast<std::uint16_t>(padding)) << std::string(padding, 'Z');
  };
  const std::string bytes = pickle(dict(items));
  add("a/data.pkl", bytes.size());
  out << bytes;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    add("a/data/" + std::to_string(i), counts[i] * 4);
    out.seekp(static_cast<std::streamoff>(counts[i] * 4 - 4), std::ios::cur);
    out << raw_bytes<float>({static_cast<float>(i + 1)});
  }
  const auto directory_at = static_cast<std::uint64_t>(out.tellp());
  std::string directory;
  for (const Placed& entry : placed) {
    const std::string extra = little<std::uint16_t>(1) + little<std::uint16_t>(24) + little(entry.size) +
                              little(entry.size) + little(entry.offset);
    directory += "PK\x01\x02" + std::string(16, '\0') + std::string(8, '\xff') +
                 little(static_cast<std::uint16_t>(entry.name.size())) +
                 little(static_cast<std::uint16_t>(extra.size())) + std::string(10, '\0') +
                 std::string(4, '\xff') + entry.name + extra;
  }
  out << directory << "PK\x06\x06" << little<std::uint64_t>(44) << std::string(12, '\0')
      << little<std::uint64_t>(placed.size()) << little<std::uint64_t>(placed.size())
      << little<std::uint64_t>(directory.size()) << little(directory_at) << "PK\x06\x07"
      << std::string(4, '\0') << little<std::uint64_t>(directory_at + directory.size())
      << std::string("\1\0\0\0", 4) << "PK\x05\x06" << std::string(4, '\0') << std::string(12, '\xff')
      << std::string(2, '\0');
  out.close();
  return static_cast<bool>(out);
}

float last_of(const TensorFile& file, const std::string& name) {
  const TensorView* view = file.find(name);
  float last = -1;
  if (view != nullptr) std::memcpy(&last, view->data + view->num_bytes() - 4, 4);
  return last;
}

std::int64_t resident_bytes() {
  std::int64_t pages = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> pages >> resident;
  return resident * ::sysconf(_SC_PAGESIZE);
}

TEST(LargeFileTest, RecordsBeyondFourGibibytesAreRead) {
  const TemporaryFolder folder;
  if (!make_sparse_archive(folder / "large.pt", {5 * kGibibyte / 4, 6}))
    GTEST_SKIP() << "no sparse file of 5 GiB can be made here";
  const auto file = TensorFile::open(folder / "large.pt");
  EXPECT_EQ(file->find("t0")->num_bytes(), static_cast<std::int64_t>(5 * kGibibyte));
  EXPECT_EQ(last_of(*file, "t0"), 1.0F);
  EXPECT_EQ(values_of<float>(*file->find("t1")), (std::vector<float>{0, 0, 0, 0, 0, 2}));
}

TEST(LargeFileTest, PartsCutAtOddPlacesTakeNoMemory) {
  const TemporaryFolder folder;
  const auto whole = folder / "whole.pt";
  if (!make_sparse_archive(whole, {2 * kGibibyte / 4, 1024, 3 * kGibibyte / 4}))
    GTEST_SKIP() << "no sparse file of 5 GiB can be made here";
  const std::uint64_t size = std::filesystem::file_size(whole);
  // Inside t1, at a place that leaves all of t2 misaligned.
  const std::uint64_t cut = 2 * kGibibyte + 3001;
  const auto copy = [&](const std::filesystem::path& part, std::uint64_t begin, std::uint64_t end) {
    std::ifstream in(whole, std::ios::binary);
    std::ofstream out(part, std::ios::binary);
    constexpr std::uint64_t kEdge = 1 << 16;  // only zeros lie farther from the edges
    for (const std::uint64_t from : {begin, end - kEdge}) {
      std::string bytes(kEdge, '\0');
      in.seekg(static_cast<std::streamoff>(from)).read(bytes.data(), static_cast<std::streamsize>(kEdge));
      out.seekp(static_cast<std::streamoff>(from - begin))
          .write(bytes.data(), static_cast<std::streamsize>(kEdge));
    }
  };
  copy(folder / "large.pt.part0", 0, cut);
  copy(folder / "large.pt.part1", cut, size);
  const std::int64_t before = resident_bytes();
  const auto file = TensorFile::open(folder / "large.pt");
  const std::int64_t grown = resident_bytes() - before;
  EXPECT_LT(grown, std::int64_t{64} << 20) << "as much as the pages that were looked at, not 3 GiB";
  EXPECT_EQ(last_of(*file, "t0"), 1.0F);
  EXPECT_EQ(last_of(*file, "t1"), 2.0F);
  EXPECT_EQ(last_of(*file, "t2"), 3.0F);
  EXPECT_TRUE(file->find("t0")->is_aligned());
  EXPECT_TRUE(file->find("t1")->is_aligned());
  EXPECT_FALSE(file->find("t2")->is_aligned());
}

/// Drains a pipe into a file, with holes where it carries zeros.
void drain(const std::filesystem::path& pipe, const std::filesystem::path& path) {
  const int in = ::open(pipe.c_str(), O_RDONLY);
  const int out = ::open(path.c_str(), O_WRONLY | O_CREAT, 0600);
  std::vector<char> chunk(1 << 20);
  const std::vector<char> zeros(chunk.size(), 0);
  off_t at = 0;
  for (ssize_t got = 0; (got = ::read(in, chunk.data(), chunk.size())) > 0; at += got) {
    const auto count = static_cast<std::size_t>(got);
    if (std::memcmp(chunk.data(), zeros.data(), count) != 0 && ::pwrite(out, chunk.data(), count, at) != got)
      break;
  }
  EXPECT_EQ(::ftruncate(out, at), 0);
  ::close(in);
  ::close(out);
}

TEST(LargeFileTest, AnArchiveBeyondFourGibibytesIsWritten) {
  const std::size_t size = 4 * kGibibyte + 64;
  void* zeros =
      ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (zeros == MAP_FAILED) GTEST_SKIP() << "no 4 GiB of addresses";
  auto* data = static_cast<std::byte*>(zeros);
  const float last = 5;
  std::memcpy(data + size - 4, &last, 4);
  const TemporaryFolder folder;
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  std::thread reader(drain, folder / "pipe", folder / "large.pt");
  // The small tensor comes after it, so its own place needs 64 bits too.
  write_torch_archive(folder / "pipe",
                      {{"large", DType::float32, {static_cast<std::int64_t>(size / 4)}, data},
                       {"small", DType::float32, {1}, reinterpret_cast<const std::byte*>(&last)}});
  reader.join();
  const auto file = TensorFile::open(folder / "large.pt");
  EXPECT_EQ(file->find("large")->num_bytes(), static_cast<std::int64_t>(size));
  EXPECT_EQ(last_of(*file, "large"), 5.0F);
  EXPECT_EQ(last_of(*file, "small"), 5.0F);
  ::munmap(zeros, size);
}

}  // namespace
}  // namespace focus::formats::testing
