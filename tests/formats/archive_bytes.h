// .pt and safetensors files byte by byte, honest and hostile ones, made without the code under test.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace focus::formats::testing {

template <class T>
std::string little(T value) {
  std::string raw(sizeof(T), '\0');
  std::memcpy(raw.data(), &value, sizeof(T));
  return raw;
}

template <class T>
std::string raw_bytes(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

struct ZipEntry {
  std::string name, content;
  std::uint16_t method = 0, flags = 0;
};

/// A plain zip; `padding` bytes of extra field shift every entry's data.
inline std::string zip_of(const std::vector<ZipEntry>& entries, std::size_t padding = 0) {
  std::string file, directory;
  for (const ZipEntry& entry : entries) {
    const auto offset = static_cast<std::uint32_t>(file.size());
    const auto size = static_cast<std::uint32_t>(entry.content.size());
    const std::string extra =
        padding == 0
            ? ""
            : "FB" + little<std::uint16_t>(static_cast<std::uint16_t>(padding)) + std::string(padding, 'Z');
    const std::string fields = little<std::uint16_t>(20) + little(entry.flags) + little(entry.method) +
                               std::string(8, '\0') + little(size) + little(size) +
                               little(static_cast<std::uint16_t>(entry.name.size()));
    file += "PK\x03\x04" + fields + little(static_cast<std::uint16_t>(extra.size())) + entry.name + extra +
            entry.content;
    directory += "PK\x01\x02" + little<std::uint16_t>(20) + fields + std::string(12, '\0') + little(offset) +
                 entry.name;
  }
  const auto count = static_cast<std::uint16_t>(entries.size());
  return file + directory + "PK\x05\x06" + std::string(4, '\0') + little(count) + little(count) +
         little(static_cast<std::uint32_t>(directory.size())) +
         little(static_cast<std::uint32_t>(file.size())) + std::string(2, '\0');
}

// ---- pickle fragments ----
inline std::string text(const std::string& value) {
  return "X" + little(static_cast<std::uint32_t>(value.size())) + value;
}
inline std::string global(const std::string& module, const std::string& name) {
  return "c" + module + "\n" + name + "\n";
}
inline std::string integer(std::int64_t value) { return "\x8a\x08" + little(value); }
inline std::string tuple(const std::vector<std::int64_t>& values) {
  std::string out = "(";
  for (const std::int64_t value : values) out += integer(value);
  return out + "t";
}
inline std::string storage(const std::string& type, const std::string& key, std::int64_t count) {
  return "(" + text("storage") + global("torch", type) + text(key) + text("cpu") + integer(count) + "tQ";
}
inline std::string tensor(const std::string& from_storage, std::int64_t offset,
                          const std::vector<std::int64_t>& shape, const std::vector<std::int64_t>& strides) {
  return global("torch._utils", "_rebuild_tensor_v2") + "(" + from_storage + integer(offset) + tuple(shape) +
         tuple(strides) + "\x89" + global("collections", "OrderedDict") + ")RtR";
}
/// A tensor of a type without a storage class of its own; `count` in bytes.
inline std::string untyped_tensor(const std::string& dtype, const std::string& key, std::int64_t count,
                                  const std::vector<std::int64_t>& shape,
                                  const std::vector<std::int64_t>& strides) {
  return global("torch._utils", "_rebuild_tensor_v3") + "((" + text("storage") +
         global("torch.storage", "UntypedStorage") + text(key) + text("cpu") + integer(count) + "tQ" +
         integer(0) + tuple(shape) + tuple(strides) + "\x89" + global("collections", "OrderedDict") + ")R" +
         global("torch", dtype) + "tR";
}
/// bytes as protocol 2 spells them: `utf8` holds one character for each byte.
inline std::string encoded_bytes(const std::string& utf8) {
  return global("_codecs", "encode") + text(utf8) + text("latin1") + "\x86R";
}
/// A BytesIO of such bytes.
inline std::string byte_stream(const std::string& bytes) {
  return global("_io", "BytesIO") + ")\x81(" + bytes + integer(0) + "Ntb";
}
/// `items`: keys and values in turn.
inline std::string dict(const std::string& items) { return "}(" + items + "u"; }
inline std::string pickle(const std::string& object) { return "\x80\x02" + object + "."; }

/// An archive of this pickle and storages 0, 1, ...
inline std::string archive_of(const std::string& pickle_bytes,
                              const std::vector<std::string>& storages = {}) {
  std::vector<ZipEntry> entries = {{"archive/data.pkl", pickle_bytes}, {"archive/byteorder", "little"}};
  for (std::size_t i = 0; i < storages.size(); ++i)
    entries.push_back({"archive/data/" + std::to_string(i), storages[i]});
  entries.push_back({"archive/version", "3\n"});
  return zip_of(entries);
}

inline std::string safetensors_of(const std::string& header, const std::string& data) {
  return little(static_cast<std::uint64_t>(header.size())) + header + data;
}

}  // namespace focus::formats::testing
