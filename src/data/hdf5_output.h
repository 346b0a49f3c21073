// Writing HDF5: every call is checked.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/hdf5_handle.h"
#include "focus/core/error.h"

namespace focus::data {

/// DataError, naming what could not be written of `path`.
class Hdf5Output {
 public:
  explicit Hdf5Output(const std::string& path) : path_(path) {}

  Hdf5Handle open(hid_t id, herr_t (*close)(hid_t), const std::string& what) const {
    if (id < 0) failed(what);
    return Hdf5Handle(id, close);
  }
  void check(herr_t status, const std::string& what) const {
    if (status < 0) failed(what);
  }
  [[noreturn]] void failed(const std::string& what) const {
    std::string reason;
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, find_reason, &reason);
    fail<DataError>("cannot write ", what, " of '", path_, "'; is the disk full?",
                    reason.empty() ? "" : " " + reason + ".", " Nothing was left under that name");
  }

  Hdf5Handle create_file(const std::string& temporary) const {
    const hid_t id = H5Fcreate(temporary.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    if (id < 0) {
      const std::string lock = hdf5_lock_refused();
      if (!lock.empty()) fail<DataError>("cannot write '", path_, "': ", lock);
    }
    return open(id, H5Fclose, "the file");
  }
  Hdf5Handle group(hid_t parent, const std::string& name) const {
    return open(H5Gcreate2(parent, name.c_str(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT), H5Gclose,
                "group " + name);
  }
  /// UTF-8 of a fixed size in bytes, of at least one.
  Hdf5Handle text_type(std::size_t size) const {
    Hdf5Handle type = open(H5Tcopy(H5T_C_S1), H5Tclose, "a text type");
    check(H5Tset_size(type, std::max<std::size_t>(1, size)), "a text size");
    check(H5Tset_cset(type, H5T_CSET_UTF8), "a text encoding");
    check(H5Tset_strpad(type, H5T_STR_NULLPAD), "a text padding");
    return type;
  }

  void attribute(hid_t object, const std::string& name, hid_t file_type, hid_t memory_type,
                 const void* value) const {
    const Hdf5Handle space = open(H5Screate(H5S_SCALAR), H5Sclose, "a data space");
    const Hdf5Handle id = open(H5Acreate2(object, name.c_str(), file_type, space, H5P_DEFAULT, H5P_DEFAULT),
                               H5Aclose, "attribute " + name);
    check(H5Awrite(id, memory_type, value), "attribute " + name);
  }
  void attribute(hid_t object, const std::string& name, int64_t value) const {
    attribute(object, name, H5T_STD_I64LE, H5T_NATIVE_INT64, &value);
  }
  void attribute(hid_t object, const std::string& name, double value) const {
    attribute(object, name, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, &value);
  }
  /// Cut to what an attribute can hold.
  void attribute(hid_t object, const std::string& name, const std::string& value) const {
    constexpr std::size_t kLimit = 60000;  // HDF5 takes 64 KiB
    const Hdf5Handle type = text_type(std::min(value.size(), kLimit));
    attribute(object, name, type, type, value.empty() ? "" : value.data());
  }

  /// Chunked and deflated where `chunk` is given, shuffled too where the numbers are of several bytes;
  /// `growing` in its first dimension.
  Hdf5Handle dataset(hid_t group, const std::string& name, hid_t type, const std::vector<hsize_t>& dims,
                     const std::vector<hsize_t>& chunk, bool growing = false) const {
    constexpr unsigned kDeflateLevel =
        4;  // higher levels take several times as long on DNA for a few per cent
    std::vector<hsize_t> most = dims;
    if (growing) most[0] = H5S_UNLIMITED;
    const int rank = static_cast<int>(dims.size());
    const Hdf5Handle space = open(H5Screate_simple(rank, dims.data(), most.data()), H5Sclose, "a data space");
    const Hdf5Handle creation = open(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, "properties");
    if (!chunk.empty()) {
      check(H5Pset_chunk(creation, rank, chunk.data()), "chunks of " + name);
      if (H5Tget_class(type) == H5T_FLOAT) check(H5Pset_shuffle(creation), "the shuffle filter");
      check(H5Pset_deflate(creation, kDeflateLevel), "the deflate filter");
    }
    return open(H5Dcreate2(group, name.c_str(), type, space, H5P_DEFAULT, creation, H5P_DEFAULT), H5Dclose,
                "dataset " + name);
  }
  void write(hid_t dataset, const std::string& name, hid_t memory_type, const void* values) const {
    check(H5Dwrite(dataset, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values), "dataset " + name);
  }
  /// One-dimensional texts, all as wide as the longest.
  void texts(hid_t group, const std::string& name, const std::vector<std::string>& values,
             const std::vector<hsize_t>& chunk) const {
    std::size_t longest = 1;
    for (const std::string& value : values) longest = std::max(longest, value.size());
    std::string all(longest * values.size(), '\0');
    for (std::size_t i = 0; i < values.size(); ++i) values[i].copy(all.data() + i * longest, longest);
    const Hdf5Handle type = text_type(longest);
    write(dataset(group, name, type, {values.size()}, chunk), name, type, all.data());
  }

 private:
  /// The system's own words in an entry of the library's error stack: "..., errno = 28, error message = 'No
  /// space left on device', ...".
  static herr_t find_reason(unsigned, const H5E_error2_t* entry, void* reason) {
    constexpr std::string_view kMark = "error message = '";
    const std::string_view text = entry->desc != nullptr ? entry->desc : "";
    const std::size_t at = text.find(kMark);
    auto& out = *static_cast<std::string*>(reason);
    if (at == text.npos || !out.empty()) return 0;
    const std::string_view rest = text.substr(at + kMark.size());
    out = rest.substr(0, rest.find('\''));
    return 0;
  }

  const std::string& path_;
};

}  // namespace focus::data
