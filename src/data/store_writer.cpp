#include "store_writer.h"

#include <algorithm>

#include "data/hdf5_output.h"

namespace focus::data {
namespace {

// A draw unpacks whole chunks, so they are small beside the time of a step; a write covers several.
constexpr hsize_t kChunk = 1 << 16;
constexpr std::size_t kWrite = std::size_t{16} << 16;

/// A one-dimensional dataset of whole numbers.
void write_column(const Hdf5Output& out, hid_t group, const std::string& name,
                  const std::vector<int64_t>& values) {
  const hsize_t size = values.size();
  out.write(out.dataset(group, name, H5T_STD_I64LE, {size}, {std::min(size, kChunk)}), name, H5T_NATIVE_INT64,
            values.data());
}

}  // namespace

StoreWriter::StoreWriter(const std::filesystem::path& path) : path_(path.string()), atomic_(path) {
  atomic_.close();
  const Hdf5Section section;
  const Hdf5Output out(path_);
  file_ = out.create_file(atomic_.temporary().string());
  bases_ = out.dataset(file_, "bases", H5T_STD_U8LE, {0}, {kChunk}, true);
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
  const Hdf5Output out(path_);
  const auto size = static_cast<hsize_t>(count), begin = static_cast<hsize_t>(written_), all = begin + size;
  out.check(H5Dset_extent(bases_, &all), "the bases");
  const Hdf5Handle space = out.open(H5Dget_space(bases_), H5Sclose, "a data space");
  const Hdf5Handle memory = out.open(H5Screate_simple(1, &size, nullptr), H5Sclose, "a data space");
  out.check(H5Sselect_hyperslab(space, H5S_SELECT_SET, &begin, nullptr, &size, nullptr), "a selection");
  out.check(H5Dwrite(bases_, H5T_NATIVE_UINT8, memory, space, H5P_DEFAULT, buffer_.data()), "the bases");
  written_ += static_cast<int64_t>(count);
  buffer_.clear();
}

void StoreWriter::finish(const StoreIndex& index, Drawing drawing,
                         const std::map<std::string, std::string>& about,
                         const std::vector<std::map<std::string, std::string>>& sources) {
  flush(buffer_.size());
  const Hdf5Section section;
  const Hdf5Output out(path_);
  {
    const Hdf5Handle records = out.group(file_, "records"), stretches = out.group(file_, "stretches"),
                     origins = out.group(file_, "sources");
    out.texts(records, "name", index.names, {std::min<hsize_t>(index.names.size(), kChunk)});
    write_column(out, records, "length", index.lengths);
    write_column(out, stretches, "record", index.record);
    write_column(out, stretches, "begin", index.begin);
    write_column(out, stretches, "end", index.end);
    write_column(out, stretches, "offset", index.offset);
    for (std::size_t i = 0; i < sources.size(); ++i) {
      const Hdf5Handle origin = out.group(origins, std::to_string(i));
      for (const auto& [key, value] : sources[i]) out.attribute(origin, key, value);
    }
    for (const auto& [key, value] : about) out.attribute(file_, key, value);
    out.attribute(file_, "drawing", drawing == Drawing::documents ? "documents" : "windows");
    out.attribute(file_, "format_version", kStoreVersion);
    out.attribute(file_, "format", kStoreFormat);
  }
  out.check(bases_.reset() ? 0 : -1, "the bases");
  out.check(file_.reset() ? 0 : -1, "the file");
  atomic_.commit();
}

}  // namespace focus::data
