#include "focus/data/token_store.h"

#include <algorithm>
#include <optional>
#include <unordered_map>

#include "data/hdf5_handle.h"
#include "focus/core/error.h"
#include "focus/data/region.h"
#include "store_writer.h"

namespace focus::data {
namespace fs = std::filesystem;
namespace {

/// Reads what a store must have; everything that is missing or of another kind is a DataError.
class Input {
 public:
  explicit Input(std::string path) : path_(std::move(path)) {}

  template <class... Args>
  [[noreturn]] void damaged(const Args&... args) const {
    fail<DataError>("the token store '", path_, "' is damaged (", args..., "); pack it again");
  }

  std::string text_attribute(hid_t object, const char* name) const {
    const Hdf5Handle id(H5Aopen(object, name, H5P_DEFAULT), H5Aclose);
    if (!id.valid()) return {};
    const Hdf5Handle type(H5Aget_type(id), H5Tclose), space(H5Aget_space(id), H5Sclose);
    if (H5Tget_class(type) != H5T_STRING || H5Tis_variable_str(type) != 0 ||
        H5Sget_simple_extent_npoints(space) != 1)
      return {};
    std::string text(H5Tget_size(type), '\0');
    if (H5Aread(id, type, text.data()) < 0) damaged("attribute ", name, " cannot be read");
    text.resize(std::min(text.size(), text.find('\0')));
    return text;
  }
  int64_t integer_attribute(hid_t object, const char* name) const {
    const Hdf5Handle id(H5Aopen(object, name, H5P_DEFAULT), H5Aclose);
    if (!id.valid()) damaged("it has no attribute ", name);
    const Hdf5Handle type(H5Aget_type(id), H5Tclose), space(H5Aget_space(id), H5Sclose);
    int64_t value = 0;
    if (H5Tget_class(type) != H5T_INTEGER || H5Sget_simple_extent_npoints(space) != 1 ||
        H5Aread(id, H5T_NATIVE_INT64, &value) < 0)
      damaged("attribute ", name, " is no whole number");
    return value;
  }
  Hdf5Handle dataset(hid_t file, const char* name, H5T_class_t wanted, int64_t& size) const {
    Hdf5Handle id(H5Dopen2(file, name, H5P_DEFAULT), H5Dclose);
    if (!id.valid()) damaged("it has no dataset ", name);
    const Hdf5Handle type(H5Dget_type(id), H5Tclose), space(H5Dget_space(id), H5Sclose);
    hsize_t extent = 0;
    if (H5Tget_class(type) != wanted || H5Sget_simple_extent_ndims(space) != 1 ||
        H5Sget_simple_extent_dims(space, &extent, nullptr) != 1 ||
        extent > static_cast<hsize_t>(INT64_MAX / 2))
      damaged("dataset ", name, " has another type or shape");
    size = static_cast<int64_t>(extent);
    return id;
  }
  std::vector<int64_t> column(hid_t file, const char* name) const {
    int64_t size = 0;
    const Hdf5Handle id = dataset(file, name, H5T_INTEGER, size);
    check_size(id, name, size, sizeof(int64_t));
    std::vector<int64_t> values(static_cast<std::size_t>(size));
    if (H5Dread(id, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()) < 0)
      damaged("dataset ", name, " cannot be read");
    return values;
  }
  std::vector<std::string> texts(hid_t file, const char* name) const {
    int64_t size = 0;
    const Hdf5Handle id = dataset(file, name, H5T_STRING, size);
    const Hdf5Handle type(H5Dget_type(id), H5Tclose);
    if (H5Tis_variable_str(type) != 0) damaged("dataset ", name, " has another type");
    const std::size_t width = H5Tget_size(type);
    check_size(id, name, size, width);
    std::string all(static_cast<std::size_t>(size) * width, '\0');
    if (H5Dread(id, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, all.data()) < 0)
      damaged("dataset ", name, " cannot be read");
    std::vector<std::string> result;
    for (std::size_t i = 0; i < static_cast<std::size_t>(size); ++i) {
      const std::string_view cell = std::string_view(all).substr(i * width, width);
      result.emplace_back(cell.substr(0, cell.find('\0')));
    }
    return result;
  }

 private:
  /// A damaged size must not become an allocation: deflate packs no more than 1,032 to 1, so what is stored
  /// bounds what can come out.
  void check_size(hid_t id, const char* name, int64_t size, std::size_t width) const {
    const auto stored = static_cast<double>(H5Dget_storage_size(id));
    if (width == 0 || static_cast<double>(size) * static_cast<double>(width) > stored * 1100 + (1 << 20))
      damaged("dataset ", name, " says it has ", size, " entries, but stores ", stored, " bytes");
  }

  std::string path_;
};

}  // namespace

struct TokenStore::Impl {
  Hdf5Handle file, bases;
  Drawing drawing = Drawing::windows;
  std::vector<Region> stretches;
  std::vector<int64_t> offsets;
  std::unordered_map<std::string, std::vector<std::size_t>> by_record;  // places in stretches, by begin

  ~Impl() {
    const Hdf5Section section;
    bases.reset();
    file.reset();
  }
};

TokenStore::TokenStore(const fs::path& path) : SequenceFile(path), impl_(std::make_unique<Impl>()) {
  const std::string name = path.string();
  std::error_code error;
  if (!fs::exists(path, error)) fail<DataError>("token store '", name, "' does not exist");
  if (!fs::is_regular_file(path, error))
    fail<DataError>("'", name, "' is not a regular file; a token store must be a file on disk");
  const Hdf5Section section;
  const Input in(name);
  if (H5Fis_hdf5(path.c_str()) <= 0)
    fail<DataError>("'", name,
                    "' is not an HDF5 file; sources.N.hdf5 takes what focus-train pack writes (FASTA goes to "
                    "sources.N.fasta)");
  impl_->file = Hdf5Handle(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose);
  if (!impl_->file.valid()) {
    const std::string lock = hdf5_lock_refused();
    if (!lock.empty()) fail<DataError>("cannot open '", name, "': ", lock);
    fail<DataError>("cannot open '", name, "': it is not readable, being written, or damaged or cut short");
  }
  const hid_t file = impl_->file;
  const std::string format = in.text_attribute(file, "format");
  if (format != kStoreFormat)
    fail<DataError>("'", name, "' is an HDF5 file, but no token store: its attribute format is '", format,
                    "', expected '", kStoreFormat, "'; make one with focus-train pack");
  const int64_t version = in.integer_attribute(file, "format_version");
  if (version != kStoreVersion)
    fail<DataError>("'", name, "' is a token store of version ", version, ", but this program reads version ",
                    kStoreVersion, "; pack it again");
  const std::string drawing = in.text_attribute(file, "drawing");
  if (drawing != "windows" && drawing != "documents")
    in.damaged("attribute drawing is '", drawing, "', expected windows or documents");
  impl_->drawing = drawing == "documents" ? Drawing::documents : Drawing::windows;

  int64_t num_bases = 0;
  impl_->bases = in.dataset(file, "bases", H5T_INTEGER, num_bases);
  const std::vector<std::string> names = in.texts(file, "records/name");
  const std::vector<int64_t> lengths = in.column(file, "records/length");
  if (names.empty() || names.size() != lengths.size())
    in.damaged(names.size(), " record names, ", lengths.size(), " lengths");
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (names[i].empty() || lengths[i] < 1 || contains(names[i]))
      in.damaged("record ", i, ", '", names[i], "', has ", lengths[i], " bases");
    add_record(names[i], lengths[i]);
  }
  const std::vector<int64_t> record = in.column(file, "stretches/record"),
                             begin = in.column(file, "stretches/begin"),
                             end = in.column(file, "stretches/end");
  impl_->offsets = in.column(file, "stretches/offset");
  if (record.empty() || begin.size() != record.size() || end.size() != record.size() ||
      impl_->offsets.size() != record.size())
    in.damaged("its stretches are empty or of unequal number");
  for (std::size_t i = 0; i < record.size(); ++i) {
    const int64_t r = record[i], offset = impl_->offsets[i];
    if (r < 0 || r >= static_cast<int64_t>(names.size()) || begin[i] < 0 || end[i] <= begin[i] ||
        end[i] > lengths[static_cast<std::size_t>(r)] || offset < 0 ||
        offset > num_bases - (end[i] - begin[i]))
      in.damaged("stretch ", i, " does not lie in its record or in the bases");
    impl_->stretches.push_back({names[static_cast<std::size_t>(r)], begin[i], end[i]});
    impl_->by_record[names[static_cast<std::size_t>(r)]].push_back(i);
  }
  for (auto& [key, places] : impl_->by_record)
    std::stable_sort(places.begin(), places.end(),
                     [&](std::size_t a, std::size_t b) { return begin[a] < begin[b]; });
}

TokenStore::~TokenStore() = default;
Drawing TokenStore::drawing() const { return impl_->drawing; }
std::vector<Region> TokenStore::held() const { return impl_->stretches; }

std::string TokenStore::read(const std::string& name, int64_t begin, int64_t end) const {
  const Impl& impl = *impl_;
  std::optional<std::size_t> place;
  if (const auto found = impl.by_record.find(name); found != impl.by_record.end()) {
    const std::vector<std::size_t>& places = found->second;
    auto after = std::upper_bound(places.begin(), places.end(), begin,
                                  [&](int64_t at, std::size_t i) { return at < impl.stretches[i].begin; });
    while (after != places.begin() && !place) {
      if (impl.stretches[*--after].end >= end) place = *after;
    }
  }
  if (!place)
    fail<DataError>("bases ", format_region({name, begin, end}), " were not packed into '", path().string(),
                    "'; pack it again with them, or ask for what it holds");
  const Hdf5Section section;
  const auto first = static_cast<hsize_t>(impl.offsets[*place] + begin - impl.stretches[*place].begin),
             count = static_cast<hsize_t>(end - begin);
  const Hdf5Handle space(H5Dget_space(impl.bases), H5Sclose),
      memory(H5Screate_simple(1, &count, nullptr), H5Sclose);
  std::string letters(static_cast<std::size_t>(count), '\0');
  if (H5Sselect_hyperslab(space, H5S_SELECT_SET, &first, nullptr, &count, nullptr) < 0 ||
      H5Dread(impl.bases, H5T_NATIVE_UINT8, memory, space, H5P_DEFAULT, letters.data()) < 0)
    fail<DataError>("cannot read bases ", format_region({name, begin, end}), " of the token store '",
                    path().string(),
                    "': the file is damaged or was changed after it was opened; pack it again");
  return letters;
}

}  // namespace focus::data
