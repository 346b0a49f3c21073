#include "focus/report/values_file.h"

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "data/hdf5_output.h"
#include "focus/core/error.h"
#include "focus/core/file.h"

namespace focus::report {

using data::Hdf5Handle;

struct ValuesFile::File {
  explicit File(const std::filesystem::path& path) : atomic(path), name(path.string()), out(name) {
    atomic.close();
    hdf5 = out.create_file(atomic.temporary().string());
  }
  AtomicFile atomic;
  std::string name;
  data::Hdf5Output out;
  Hdf5Handle hdf5, methods;
  std::vector<Hdf5Handle> entries;
  std::vector<std::array<Hdf5Handle, kNumMeasures>> values;  // of each method
};

namespace {

/// One segment of a chunk each, so that a chunk is written once.
constexpr hsize_t kChunkPositions = 1 << 16;

void write_run(const FidelityResult& result, const data::Hdf5Output& out, const Hdf5Handle& file) {
  out.attribute(file, "window", result.window);
  out.attribute(file, "kmer", result.kmer);
  out.attribute(file, "length", result.length);
  out.attribute(file, "positions", result.positions);
  out.attribute(file, "skipped_n_rich", result.skipped_n_rich);
  out.attribute(file, "layout",
                "methods/<name>/<measure>[segment, position]; position p holds the prediction of base p+1 "
                "from bases 0..p; NaN: not measured");
  {  // A dataset, as attributes are limited.
    const Hdf5Handle type = out.text_type(result.config_json.size());
    out.write(out.dataset(file, "config", type, {}, {}), "config", type,
              result.config_json.empty() ? "" : result.config_json.data());
  }
  {
    const Hdf5Handle provenance = out.group(file, "provenance");
    for (const auto& [key, value] : result.provenance) out.attribute(provenance, key, value);
  }
  const Hdf5Handle segments = out.group(file, "segments");
  std::vector<std::string> names;
  std::vector<int64_t> begins;
  std::vector<double> repeats;
  for (const Segment& segment : result.segments) {
    names.push_back(segment.name);
    begins.push_back(segment.begin);
    repeats.push_back(segment.repeat);
  }
  const auto num_segments = static_cast<hsize_t>(result.segments.size());
  out.texts(segments, "name", names, {});
  out.write(out.dataset(segments, "begin", H5T_STD_I64LE, {num_segments}, {}), "begin", H5T_NATIVE_INT64,
            begins.data());
  out.write(out.dataset(segments, "repeat", H5T_IEEE_F64LE, {num_segments}, {}), "repeat", H5T_NATIVE_DOUBLE,
            repeats.data());
}

void write_method(const MethodResult& method, const data::Hdf5Output& out, const Hdf5Handle& entry) {
  out.attribute(entry, "name", method.name);
  out.attribute(entry, "description", method.description);
  out.attribute(entry, "kept_entries", method.kept_entries);
  out.attribute(entry, "kept_bytes", method.kept_bytes);
  out.attribute(entry, "open_bytes", method.open_bytes);
  out.attribute(entry, "far_bytes", method.far_bytes);
  out.attribute(entry, "seconds", method.seconds);
}

}  // namespace

ValuesFile::ValuesFile(std::filesystem::path path) : path_(std::move(path)) {}

ValuesFile::~ValuesFile() {
  const data::Hdf5Section section;
  file_.reset();
}

void ValuesFile::write(const FidelityResult& run, std::size_t method, std::size_t segment,
                       const PositionValues& values) {
  const data::Hdf5Section section;
  if (!file_) {
    file_ = std::make_unique<File>(path_);
    file_->methods = file_->out.group(file_->hdf5, "methods");
    for (const MethodResult& m : run.methods) {
      std::string name = m.name;
      std::replace(name.begin(), name.end(), '/', '_');
      file_->entries.push_back(file_->out.group(file_->methods, name));
    }
    file_->values.resize(run.methods.size());
  }
  const auto positions = static_cast<hsize_t>(run.positions);
  for (std::size_t m = 0; m < kNumMeasures; ++m) {
    if (values.values[m].empty()) continue;
    const data::Hdf5Output& out = file_->out;
    Hdf5Handle& dataset = file_->values[method][m];
    if (!dataset.valid())
      dataset = out.dataset(file_->entries[method], kMeasureNames[m], H5T_IEEE_F32LE,
                            {static_cast<hsize_t>(run.segments.size()), positions},
                            {1, std::min(positions, kChunkPositions)});
    const std::array<hsize_t, 2> begin = {segment, 0}, size = {1, positions};
    const Hdf5Handle file_space = out.open(H5Dget_space(dataset), H5Sclose, "a data space"),
                     memory_space =
                         out.open(H5Screate_simple(2, size.data(), nullptr), H5Sclose, "a data space");
    out.check(H5Sselect_hyperslab(file_space, H5S_SELECT_SET, begin.data(), nullptr, size.data(), nullptr),
              "a selection");
    out.check(
        H5Dwrite(dataset, H5T_NATIVE_FLOAT, memory_space, file_space, H5P_DEFAULT, values.values[m].data()),
        std::string("dataset ") + kMeasureNames[m]);
  }
}

void ValuesFile::finish(const FidelityResult& result) {
  FOCUS_CHECK(file_ != nullptr, "no values were written to '", path_.string(), "'");
  {
    const data::Hdf5Section section;
    write_run(result, file_->out, file_->hdf5);
    for (std::size_t m = 0; m < result.methods.size(); ++m)
      write_method(result.methods[m], file_->out, file_->entries[m]);
    for (auto& datasets : file_->values) {
      for (std::size_t m = 0; m < kNumMeasures; ++m)
        file_->out.check(datasets[m].reset() ? 0 : -1, std::string("dataset ") + kMeasureNames[m]);
    }
    file_->entries.clear();
    file_->methods.reset();
    file_->out.check(file_->hdf5.reset() ? 0 : -1, "the file");
  }
  file_->atomic.commit();
}

OnValues writer(std::optional<ValuesFile>& file) {
  if (!file) return {};
  return [&file](const FidelityResult& run, std::size_t method, std::size_t segment,
                 const PositionValues& values) { file->write(run, method, segment, values); };
}

}  // namespace focus::report
