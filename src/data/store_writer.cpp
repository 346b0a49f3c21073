#include "store_writer.h"

#include <algorithm>

#include "focus/core/error.h"

namespace focus::data {
namespace {

// A draw unpacks whole chunks, so they are small beside the time of a step; a write covers several.
constexpr hsize_t kChunk = 1 << 16;
constexpr std::size_t kWrite = std::size_t{16} << 16;
constexpr unsigned kDeflateLevel = 4;           // higher levels take several times as long on DNA for a few per cent
constexpr std::size_t kAttributeLimit = 60000;  // HDF5 takes 64 KiB

class Output {
 public:
  explicit Output(const std::string& path) : path_(path) {}
  Hdf5Handle open(hid_t id, herr_t (*close)(hid_t), const std::string& what) const {
    if (id < 0) failed(what);
    return Hdf5Handle(id, close);
  }
  void check(herr_t status, const std::string& what) const {
    if (status < 0) failed(what);
  }
  [[noreturn]] void failed(const std::string& what) const {
    fail<DataError>("cannot write ", what, " of '", path_, "'; is the disk full? Nothing was left under that name");
  }

  Hdf5Handle text_type(std::size_t size) const {
    Hdf5Handle type = open(H5Tcopy(H5T_C_S1), H5Tclose, "a text type");
    check(H5Tset_size(type, std::max<std::size_t>(1, size)), "a text size");
    check(H5Tset_cset(type, H5T_CSET_UTF8), "a text encoding");
    check(H5Tset_strpad(type, H5T_STR_NULLPAD), "a text padding");
    return type;
  }
  void attribute(hid_t object, const std::string& name, hid_t type, const void* value) const {
    const Hdf5Handle space = open(H5Screate(H5S_SCALAR), H5Sclose, "a data space");
    const Hdf5Handle id = open(H5Acreate2(object, name.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose, "attribute " + name);
    check(H5Awrite(id, type, value), "attribute " + name);
  }
  void attribute(hid_t object, const std::string& name, const std::string& value) const {
    const Hdf5Handle type = text_type(std::min(value.size(), kAttributeLimit));
    attribute(object, name, type, value.empty() ? "" : value.data());
  }
  Hdf5Handle chunked(hid_t group, const std::string& name, hid_t type, hsize_t size, hsize_t chunk, bool growing) const {
    const hsize_t most = growing ? H5S_UNLIMITED : size;
    const Hdf5Handle space = open(H5Screate_simple(1, &size, &most), H5Sclose, "a data space");
    const Hdf5Handle creation = open(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, "properties");
    check(H5Pset_chunk(creation, 1, &chunk), "chunks of " + name);
    check(H5Pset_deflate(creation, kDeflateLevel), "the deflate filter");
    return open(H5Dcreate2(group, name.c_str(), type, space, H5P_DEFAULT, creation, H5P_DEFAULT), H5Dclose, "dataset " + name);
  }
  void column(hid_t group, const std::string& name, hid_t file_type, hid_t memory_type, std::size_t size, const void* values) const {
    const auto count = static_cast<hsize_t>(size);
    const Hdf5Handle id = chunked(group, name, file_type, count, std::min(count, kChunk), false);
    check(H5Dwrite(id, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values), "dataset " + name);
  }
  void column(hid_t group, const std::string& name, const std::vector<int64_t>& values) const {
    column(group, name, H5T_STD_I64LE, H5T_NATIVE_INT64, values.size(), values.data());
  }
  Hdf5Handle group(hid_t parent, const std::string& name) const {
    return open(H5Gcreate2(parent, name.c_str(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT), H5Gclose, "group " + name);
  }

 private:
  const std::string& path_;
};

}  // namespace

StoreWriter::StoreWriter(const std::filesystem::path& path) : path_(path.string()), atomic_(path) {
  atomic_.close();
  const Hdf5Section section;
  const Output out(path_);
  file_ = out.open(H5Fcreate(atomic_.temporary().c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), H5Fclose, "the file");
  bases_ = out.chunked(file_, "bases", H5T_STD_U8LE, 0, kChunk, true);
}

StoreWriter::~StoreWriter() {
  const Hdf5Section section;  // closing uses the library too
  bases_.reset();
  file_.reset();
}

void StoreWriter::append(std::string_view letters) {
  while (!letters.empty()) {
    const std::size_t count = std::min(letters.size(), kWrite - buffer_.size());
    buffer_.append(letters.substr(0, count));
    letters.remove_prefix(count);
    if (buffer_.size() == kWrite) flush(buffer_.size());
  }
}

void StoreWriter::flush(std::size_t count) {
  if (count == 0) return;
  const Hdf5Section section;
  const Output out(path_);
  const auto size = static_cast<hsize_t>(count), begin = static_cast<hsize_t>(written_), all = begin + size;
  out.check(H5Dset_extent(bases_, &all), "the bases");
  const Hdf5Handle space = out.open(H5Dget_space(bases_), H5Sclose, "a data space");
  const Hdf5Handle memory = out.open(H5Screate_simple(1, &size, nullptr), H5Sclose, "a data space");
  out.check(H5Sselect_hyperslab(space, H5S_SELECT_SET, &begin, nullptr, &size, nullptr), "a selection");
  out.check(H5Dwrite(bases_, H5T_NATIVE_UINT8, memory, space, H5P_DEFAULT, buffer_.data()), "the bases");
  written_ += static_cast<int64_t>(count);
  buffer_.clear();
}

void StoreWriter::finish(const StoreIndex& index, Drawing drawing, const std::map<std::string, std::string>& about,
                         const std::vector<std::map<std::string, std::string>>& sources) {
  flush(buffer_.size());
  const Hdf5Section section;
  const Output out(path_);
  {
    const Hdf5Handle records = out.group(file_, "records"), stretches = out.group(file_, "stretches"),
                     origins = out.group(file_, "sources");
    std::size_t longest = 1;
    for (const std::string& name : index.names) longest = std::max(longest, name.size());
    std::string names(longest * index.names.size(), '\0');
    for (std::size_t i = 0; i < index.names.size(); ++i) index.names[i].copy(names.data() + i * longest, longest);
    const Hdf5Handle type = out.text_type(longest);
    out.column(records, "name", type, type, index.names.size(), names.data());
    out.column(records, "length", index.lengths);
    out.column(stretches, "record", index.record);
    out.column(stretches, "begin", index.begin);
    out.column(stretches, "end", index.end);
    out.column(stretches, "offset", index.offset);
    for (std::size_t i = 0; i < sources.size(); ++i) {
      const Hdf5Handle origin = out.group(origins, std::to_string(i));
      for (const auto& [key, value] : sources[i]) out.attribute(origin, key, value);
    }
    for (const auto& [key, value] : about) out.attribute(file_, key, value);
    out.attribute(file_, "drawing", drawing == Drawing::documents ? "documents" : "windows");
    out.attribute(file_, "format_version", H5T_NATIVE_INT64, &kStoreVersion);
    out.attribute(file_, "format", kStoreFormat);
  }
  out.check(bases_.reset() ? 0 : -1, "the bases");
  out.check(file_.reset() ? 0 : -1, "the file");
  atomic_.commit();
}

}  // namespace focus::data
