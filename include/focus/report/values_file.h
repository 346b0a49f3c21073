// The values of a run at every position, for other programs.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>

#include "focus/report/fidelity_result.h"

namespace focus::report {

inline constexpr const char* kValuesFile = "values.h5";  // in a run's folder

/// Called with a method's values in a segment as soon as they are there. Of `run` sizes, segments' places and
/// methods' names are known by then.
using OnValues = std::function<void(const FidelityResult& run, std::size_t method, std::size_t segment,
                                    const PositionValues& values)>;

/// An HDF5 file that is written while the run is measured: /methods/<name>/<measure>, float32 [segments,
/// positions], deflated; attributes carry what the tables say of a method.
class ValuesFile {
 public:
  /// `path` is there after finish(), or not at all.
  explicit ValuesFile(std::filesystem::path path);
  ~ValuesFile();
  /// The values of one segment, in any order. Of `run` its sizes, segments and methods' names are known, and
  /// do not change. DataError when HDF5 cannot write.
  void write(const FidelityResult& run, std::size_t method, std::size_t segment,
             const PositionValues& values);
  /// Everything else, once all is measured. DataError.
  void finish(const FidelityResult& result);

 private:
  struct File;
  std::filesystem::path path_;
  std::unique_ptr<File> file_;
};

/// Writes into `file`; nothing where there is none.
OnValues writer(std::optional<ValuesFile>& file);

}  // namespace focus::report
