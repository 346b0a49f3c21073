#include "zip_writer.h"

#include <zlib.h>

#include <algorithm>
#include <vector>

#include "little_endian.h"

namespace focus::formats {
namespace {

constexpr std::uint32_t kIn64 = 0xffffffff;
constexpr std::size_t kChunkBytes = std::size_t{8} << 20;
constexpr std::uint16_t kMadeBy = 0x031e;
// Names are UTF-8; size and checksum follow the data, as in torch.save's files: the bytes are then read once,
// not twice.
constexpr std::uint16_t kFlags = 0x0808;

std::uint32_t clipped(std::uint64_t value) {
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(value, kIn64));
}

void append_zip64(std::string& to, const std::vector<std::uint64_t>& values) {
  append_little(to, std::uint16_t{1});
  append_little(to, static_cast<std::uint16_t>(8 * values.size()));
  for (const std::uint64_t value : values) append_little(to, value);
}

/// The fields that local and central headers share, from "version needed" to "name length".
void append_fields(std::string& to, const std::string& name, std::uint32_t crc, std::uint64_t size,
                   bool large) {
  append_little(to, static_cast<std::uint16_t>(large ? 45 : 20));
  append_little(to, kFlags);
  append_little(to, std::uint16_t{0});  // stored
  append_little(
      to, std::uint16_t{0});  // time and date: the format's first day, so that equal tensors give equal files
  append_little(to, std::uint16_t{0x0021});
  append_little(to, crc);
  append_little(to, clipped(size));
  append_little(to, clipped(size));
  append_little(to, static_cast<std::uint16_t>(name.size()));
}

}  // namespace

void ZipWriter::add(const std::string& name, std::string_view content) {
  const auto offset = static_cast<std::uint64_t>(file_.size());
  const std::uint64_t size = content.size();
  const bool large = size >= kIn64;
  std::string extra;
  if (large) append_zip64(extra, {0, 0});
  const std::uint64_t unpadded = offset + 30 + name.size() + extra.size() + 4;
  // An extra field of torch.save's own kind ("FB") carries the padding; readers skip what they do not know.
  const std::uint64_t padding = (kAlignment - unpadded % kAlignment) % kAlignment;
  extra += "FB";
  append_little(extra, static_cast<std::uint16_t>(padding));
  extra.append(static_cast<std::size_t>(padding), 'Z');

  std::string local = "PK\x03\x04";
  append_fields(local, name, 0, large ? kIn64 : 0, large);
  append_little(local, static_cast<std::uint16_t>(extra.size()));
  file_.write(local + name + extra);

  uLong crc = crc32_z(0, nullptr, 0);
  for (std::size_t at = 0; at < content.size(); at += kChunkBytes) {
    const std::string_view chunk = content.substr(at, kChunkBytes);
    crc = crc32_z(crc, reinterpret_cast<const Bytef*>(chunk.data()), chunk.size());
    file_.write(chunk);
  }
  std::string descriptor = "PK\x07\x08";
  append_little(descriptor, static_cast<std::uint32_t>(crc));
  for (int i = 0; i < 2; ++i)
    large ? append_little(descriptor, size) : append_little(descriptor, static_cast<std::uint32_t>(size));
  file_.write(descriptor);
  list(name, static_cast<std::uint32_t>(crc), size, offset);
}

void ZipWriter::list(const std::string& name, std::uint32_t crc, std::uint64_t size, std::uint64_t offset) {
  std::vector<std::uint64_t> large;
  if (size >= kIn64) large = {size, size};
  if (offset >= kIn64) large.push_back(offset);
  std::string extra;
  if (!large.empty()) append_zip64(extra, large);
  directory_ += "PK\x01\x02";
  append_little(directory_, kMadeBy);
  append_fields(directory_, name, crc, size, !large.empty());
  append_little(directory_, static_cast<std::uint16_t>(extra.size()));
  directory_.append(10, '\0');  // comment length, disk, internal and external attributes
  append_little(directory_, clipped(offset));
  directory_ += name + extra;
  ++num_entries_;
}

void ZipWriter::finish() {
  const auto offset = static_cast<std::uint64_t>(file_.size());
  file_.write(directory_);
  const auto size = static_cast<std::uint64_t>(directory_.size());
  const auto end_offset = static_cast<std::uint64_t>(file_.size());
  // The zip64 records are always written, as torch.save does: files below and above 4 GiB look the same.
  std::string end = "PK\x06\x06";
  append_little(end, std::uint64_t{44});
  append_little(end, kMadeBy);
  append_little(end, std::uint16_t{45});
  append_little(end, std::uint64_t{0});  // this disk, disk of the directory
  for (const std::uint64_t value : {num_entries_, num_entries_, size, offset}) append_little(end, value);
  end += "PK\x06\x07";
  append_little(end, std::uint32_t{0});
  append_little(end, end_offset);
  append_little(end, std::uint32_t{1});
  end += "PK\x05\x06";
  append_little(end, std::uint32_t{0});
  const auto short_count = static_cast<std::uint16_t>(std::min<std::uint64_t>(num_entries_, 0xffff));
  append_little(end, short_count);
  append_little(end, short_count);
  append_little(end, clipped(size));
  append_little(end, clipped(offset));
  append_little(end, std::uint16_t{0});
  file_.write(end);
}

}  // namespace focus::formats
