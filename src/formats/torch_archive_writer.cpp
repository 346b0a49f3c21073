#include "focus/formats/torch_archive_writer.h"

#include <map>
#include <tuple>

#include "focus/core/error.h"
#include "focus/core/file.h"
#include "pickle_writer.h"
#include "printable.h"
#include "writable.h"
#include "zip_writer.h"

namespace focus::formats {

void write_torch_archive(const std::filesystem::path& path, const std::vector<TensorView>& tensors,
                         const std::vector<OpaqueEntry>& opaque, const WriteProgress& progress) {
  check_writable(path, tensors, opaque);
  PickleWriter pickle;
  std::vector<std::string_view> storages;
  std::map<std::tuple<const std::byte*, DType, std::int64_t>, std::size_t> known;
  const auto add = [&](const TensorView& tensor) {
    std::size_t storage = storages.size();
    const std::int64_t num_bytes = tensor.num_bytes();
    if (num_bytes > 0)
      storage = known.emplace(std::tuple(tensor.data, tensor.dtype, num_bytes), storage).first->second;
    if (storage == storages.size()) {
      storages.push_back(num_bytes > 0 ? std::string_view(reinterpret_cast<const char*>(tensor.data),
                                                          static_cast<std::size_t>(num_bytes))
                                       : std::string_view());
    }
    pickle.tensor(tensor, storage);
  };
  for (const TensorView& tensor : tensors) add(tensor);
  for (const OpaqueEntry& entry : opaque) {
    if (entry.kind == OpaqueEntry::Kind::other) {
      fail<DataError>("cannot write '", path.string(), "': entry ", printable(entry.name),
                      " is neither a tensor nor bytes nor None, and its value was not read; leave it out");
    }
    if (entry.kind == OpaqueEntry::Kind::byte_tensor) {
      add({entry.name,
           DType::uint8,
           {static_cast<std::int64_t>(entry.content.size())},
           entry.content.data()});
    } else {
      pickle.opaque(entry);
    }
  }
  const std::string objects = pickle.finish();
  std::int64_t room = static_cast<std::int64_t>(objects.size());
  for (const std::string_view storage : storages) room += static_cast<std::int64_t>(storage.size());
  check_room(path, room);

  std::string folder = path.stem().string();
  // Headers have 16 bits for a name, and a file's name can hold bytes that are not UTF-8: such a folder gets
  // a plain name.
  if (folder.empty() || folder.size() > 255 || folder.find_first_of("/\\") != std::string::npos ||
      !is_utf8(folder))
    folder = "archive";
  AtomicFile file(path, progress);
  ZipWriter zip(file);
  zip.add(folder + "/data.pkl", objects);
  zip.add(folder + "/.format_version", "1");
  zip.add(folder + "/.storage_alignment", std::to_string(ZipWriter::kAlignment));
  zip.add(folder + "/byteorder", "little");
  for (std::size_t i = 0; i < storages.size(); ++i) zip.add(concat(folder, "/data/", i), storages[i]);
  zip.add(folder + "/version", "3\n");
  zip.finish();
  file.commit();
}

}  // namespace focus::formats
