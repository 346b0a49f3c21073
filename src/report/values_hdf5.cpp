#include "values_hdf5.h"

#include <hdf5.h>

#include <algorithm>
#include <array>
#include <string>
#include <utility>
#include <vector>

#include "digest.h"
#include "focus/core/error.h"
#include "focus/core/file.h"

namespace focus::report {
namespace {

// An HDF5 identifier that closes itself; every call is checked.
class Handle {
 public:
  Handle(hid_t id, herr_t (*close)(hid_t), const std::string& what) : id_(id), close_(close) {
    if (id < 0) fail<DataError>("HDF5 cannot create ", what, " in values.h5; is the disk full?");
  }
  ~Handle() { close_(id_); }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  operator hid_t() const { return id_; }

 private:
  hid_t id_;
  herr_t (*close_)(hid_t);
};

void check(herr_t status, const std::string& what) {
  if (status < 0) fail<DataError>("HDF5 cannot write ", what, " in values.h5; is the disk full?");
}

Handle scalar_space() { return Handle(H5Screate(H5S_SCALAR), H5Sclose, "a data space"); }

Handle text_type(std::size_t size) {
  Handle type(H5Tcopy(H5T_C_S1), H5Tclose, "a text type");
  check(H5Tset_size(type, std::max<std::size_t>(1, size)), "a text size");
  check(H5Tset_cset(type, H5T_CSET_UTF8), "a text encoding");
  check(H5Tset_strpad(type, H5T_STR_NULLPAD), "a text padding");
  return Handle(H5Tcopy(type), H5Tclose, "a text type");
}

void attribute(hid_t object, const std::string& name, hid_t file_type, hid_t memory_type, const void* value) {
  const Handle space = scalar_space();
  const Handle id(H5Acreate2(object, name.c_str(), file_type, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose, "attribute " + name);
  check(H5Awrite(id, memory_type, value), "attribute " + name);
}
void attribute(hid_t object, const std::string& name, int64_t value) { attribute(object, name, H5T_STD_I64LE, H5T_NATIVE_INT64, &value); }
void attribute(hid_t object, const std::string& name, double value) { attribute(object, name, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, &value); }
void attribute(hid_t object, const std::string& name, const std::string& value) {
  const Handle type = text_type(value.size());
  const char none = '\0';
  attribute(object, name, type, type, value.empty() ? &none : value.data());
}

// A dataset of `dims`; chunked, shuffled and compressed when `chunk` is given.
void dataset(hid_t group, const std::string& name, hid_t file_type, hid_t memory_type, const std::vector<hsize_t>& dims,
             const std::vector<hsize_t>& chunk, const void* data) {
  const Handle space(H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr), H5Sclose, "a data space");
  const Handle creation(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, "properties");
  if (!chunk.empty()) {
    check(H5Pset_chunk(creation, static_cast<int>(chunk.size()), chunk.data()), "chunks of " + name);
    check(H5Pset_shuffle(creation), "the shuffle filter");
    check(H5Pset_deflate(creation, 4), "the gzip filter");
  }
  const Handle id(H5Dcreate2(group, name.c_str(), file_type, space, H5P_DEFAULT, creation, H5P_DEFAULT), H5Dclose, "dataset " + name);
  check(H5Dwrite(id, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data), "dataset " + name);
}

void write_file(const FidelityResult& result, const std::string& path) {
  const Handle file(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), H5Fclose, "the file");
  const auto group = [&](hid_t parent, const std::string& name) {
    return H5Gcreate2(parent, name.c_str(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  };
  attribute(file, "window", result.window);
  attribute(file, "kmer", result.kmer);
  attribute(file, "length", result.length);
  attribute(file, "positions", result.positions);
  attribute(file, "skipped_n_rich", result.skipped_n_rich);
  attribute(
      file, "layout",
      std::string(
          "methods/<name>/<measure>[segment, position]; position p holds the prediction of base p+1 from bases 0..p; NaN: not measured"));
  // A dataset, as attributes are limited to 64 KiB.
  {
    const Handle type = text_type(result.config_json.size());
    const Handle space = scalar_space();
    const Handle id(H5Dcreate2(file, "config", type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT), H5Dclose, "dataset config");
    check(H5Dwrite(id, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, result.config_json.empty() ? "" : result.config_json.data()), "dataset config");
  }
  {
    const Handle provenance(group(file, "provenance"), H5Gclose, "group provenance");
    for (const auto& [key, value] : result.provenance) attribute(provenance, key, value.substr(0, 60000));
  }
  const auto num_segments = static_cast<hsize_t>(result.segments.size()), positions = static_cast<hsize_t>(result.positions);
  {
    const Handle segments(group(file, "segments"), H5Gclose, "group segments");
    std::size_t longest = 1;
    for (const Segment& segment : result.segments) longest = std::max(longest, segment.name.size());
    std::string names(longest * result.segments.size(), '\0');
    std::vector<int64_t> begins;
    std::vector<double> repeats;
    for (std::size_t s = 0; s < result.segments.size(); ++s) {
      result.segments[s].name.copy(names.data() + s * longest, longest);
      begins.push_back(result.segments[s].begin);
      repeats.push_back(result.segments[s].repeat);
    }
    const Handle type = text_type(longest);
    dataset(segments, "name", type, type, {num_segments}, {}, names.data());
    dataset(segments, "begin", H5T_STD_I64LE, H5T_NATIVE_INT64, {num_segments}, {}, begins.data());
    dataset(segments, "repeat", H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, {num_segments}, {}, repeats.data());
  }
  const Handle methods(group(file, "methods"), H5Gclose, "group methods");
  for (const MethodResult& method : result.methods) {
    std::string name = method.name;
    std::replace(name.begin(), name.end(), '/', '_');
    const Handle entry(group(methods, name), H5Gclose, "group " + name);
    attribute(entry, "name", method.name);
    attribute(entry, "description", method.description);
    attribute(entry, "kept_entries", method.kept_entries);
    attribute(entry, "kept_bytes", method.kept_bytes);
    attribute(entry, "open_bytes", method.open_bytes);
    attribute(entry, "seconds", method.seconds);
    const hsize_t chunk_positions = std::min<hsize_t>(positions, 1 << 16);
    const hsize_t chunk_segments = std::clamp<hsize_t>((1 << 16) / chunk_positions, 1, num_segments);
    for (std::size_t m = 0; m < kNumMeasures; ++m) {
      if (method.values[m].empty()) continue;
      dataset(entry, kMeasureNames[m], H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, {num_segments, positions}, {chunk_segments, chunk_positions},
              method.values[m].data());
    }
  }
  check(H5Fflush(file, H5F_SCOPE_LOCAL), "the file");
}

}  // namespace

void write_values_hdf5(const FidelityResult& result, const std::filesystem::path& path) {
  AtomicFile file(path);
  file.close();
  // HDF5 prints its error stack to stderr; the DataError says what a user needs.
  H5E_auto2_t handler = nullptr;
  void* handler_data = nullptr;
  H5Eget_auto2(H5E_DEFAULT, &handler, &handler_data);
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  try {
    write_file(result, file.temporary().string());
  } catch (...) {
    H5Eset_auto2(H5E_DEFAULT, handler, handler_data);
    throw;
  }
  H5Eset_auto2(H5E_DEFAULT, handler, handler_data);
  file.commit();
}

}  // namespace focus::report
