// HDF5 identifiers that close themselves, and the lock that every use of the library needs.
#pragma once

#include <hdf5.h>

#include <mutex>
#include <string>
#include <utility>

namespace focus::data {

class Hdf5Handle {
 public:
  Hdf5Handle() = default;
  Hdf5Handle(hid_t id, herr_t (*close)(hid_t)) : id_(id), close_(close) {}
  ~Hdf5Handle() { reset(); }
  Hdf5Handle(Hdf5Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}
  Hdf5Handle& operator=(Hdf5Handle&& other) noexcept {
    reset();
    id_ = std::exchange(other.id_, -1);
    close_ = other.close_;
    return *this;
  }
  operator hid_t() const { return id_; }
  bool valid() const { return id_ >= 0; }
  /// Closes now; false when that failed, e.g. because what was still to be written could not be.
  bool reset() { return id_ < 0 || close_(std::exchange(id_, -1)) >= 0; }

 private:
  hid_t id_ = -1;
  herr_t (*close_)(hid_t) = nullptr;
};

/// While it lives, no other thread is in the HDF5 library (Debian's is not built for threads), and the
/// library prints no error stacks: failures become DataErrors.
class Hdf5Section {
 public:
  Hdf5Section() : lock_(mutex()) {
    H5Eget_auto2(H5E_DEFAULT, &handler_, &data_);
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  }
  ~Hdf5Section() { H5Eset_auto2(H5E_DEFAULT, handler_, data_); }
  Hdf5Section(const Hdf5Section&) = delete;
  Hdf5Section& operator=(const Hdf5Section&) = delete;

 private:
  static std::recursive_mutex& mutex() {
    // At its end the library would close again what a full disk kept it from closing, and crash. All that is
    // written is closed before.
    static const herr_t without_end = H5dont_atexit();
    (void)without_end;
    static std::recursive_mutex one;
    return one;
  }
  std::lock_guard<std::recursive_mutex> lock_;
  H5E_auto2_t handler_ = nullptr;
  void* data_ = nullptr;
};

/// Why the call that has just failed could not lock its file, and what to do; empty where that was not the
/// reason.
inline std::string hdf5_lock_refused() {
  std::string told;
  const auto look = [](unsigned, const H5E_error2_t* entry, void* out) -> herr_t {
    const std::string text = entry->desc == nullptr ? "" : entry->desc;
    if (text.find("lock file") != std::string::npos) *static_cast<std::string*>(out) = text;
    return 0;
  };
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, look, &told);
  if (told.empty()) return {};
  // HDF5 quotes errno's text: a lock that another process holds is the only one to wait for.
  if (told.find("Resource temporarily unavailable") != std::string::npos)
    return "another process holds its HDF5 lock; wait until that has ended, or set "
           "HDF5_USE_FILE_LOCKING=FALSE where nothing writes to it";
  return "its file system refuses the lock that HDF5 asks for; set the environment variable "
         "HDF5_USE_FILE_LOCKING=FALSE, and let one "
         "process at a time write there";
}

}  // namespace focus::data
