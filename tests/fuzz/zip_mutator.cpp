#include "zip_mutator.h"

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "file_bytes.h"
#include "focus/core/error.h"
#include "formats/archive_bytes.h"
#include "pickle_mutator.h"
#include "zip_directory.h"

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

namespace focus::formats::fuzz {
namespace {

using testing::ZipEntry;

std::string mutate_raw(const std::string& bytes, std::size_t max_size) {
  std::string out = bytes;
  out.resize(std::max(max_size, bytes.size()) + 1);
  out.resize(LLVMFuzzerMutate(reinterpret_cast<std::uint8_t*>(out.data()), bytes.size(),
                              std::max<std::size_t>(max_size, 1)));
  return out;
}

/// The entries of a good zip; none for other bytes.
std::vector<ZipEntry> entries_of(const std::uint8_t* data, std::size_t size) {
  std::vector<ZipEntry> entries;
  try {
    FileBytes file({{reinterpret_cast<const std::byte*>(data), size}}, "", "");
    const ZipDirectory zip(file);
    for (const auto& [name, record] : zip.records()) {
      entries.push_back({std::string(name), std::string(record.num_bytes, '\0')});
      file.copy(record.offset, record.num_bytes, entries.back().content.data());
    }
  } catch (const WeightsError&) {
    entries.clear();
  }
  return entries;
}

void mutate_entries(std::vector<ZipEntry>& entries, std::size_t max_size, std::minstd_rand& random) {
  ZipEntry& any = entries[random() % entries.size()];
  switch (random() % 16) {
    case 0:
      any.content = mutate_raw(any.content, std::min<std::size_t>(max_size, 256));
      return;
    case 1:
      any.name = mutate_raw(any.name, 32);
      return;
    case 2:
      entries.push_back({"archive/data/" + std::to_string(random() % 4), any.content});
      return;
    case 3:
      if (entries.size() > 1)
        entries.erase(entries.begin() + static_cast<std::ptrdiff_t>(random() % entries.size()));
      return;
    default:
      break;
  }
  for (ZipEntry& entry : entries) {
    if (entry.name.ends_with("/data.pkl")) entry.content = mutate_pickle(entry.content, max_size, random);
  }
}

}  // namespace

std::size_t mutate_torch_zip(std::uint8_t* data, std::size_t size, std::size_t max_size, unsigned int seed) {
  std::minstd_rand random(seed);
  std::vector<ZipEntry> entries = entries_of(data, size);
  if (entries.empty() && random() % 2 == 0) {
    entries = {{"archive/data.pkl", std::string(reinterpret_cast<const char*>(data), size)},
               {"archive/data/0", std::string(24, '\1')}};
  }
  if (entries.empty() || random() % 8 == 0) return LLVMFuzzerMutate(data, size, max_size);
  mutate_entries(entries, max_size, random);
  const std::string out = testing::zip_of(entries, random() % 4 == 0 ? random() % 64 : 0);
  if (out.size() > max_size) return LLVMFuzzerMutate(data, size, max_size);
  std::memcpy(data, out.data(), out.size());
  return out.size();
}

}  // namespace focus::formats::fuzz
