#include "values_hdf5.h"

#include <algorithm>
#include <string>
#include <vector>

#include "data/hdf5_output.h"
#include "focus/core/file.h"

namespace focus::report {
namespace {

using data::Hdf5Handle;

void write_tables(const FidelityResult& result, const data::Hdf5Output& out, const Hdf5Handle& file) {
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
  const auto num_segments = static_cast<hsize_t>(result.segments.size()),
             positions = static_cast<hsize_t>(result.positions);
  {
    const Hdf5Handle segments = out.group(file, "segments");
    std::vector<std::string> names;
    std::vector<int64_t> begins;
    std::vector<double> repeats;
    for (const Segment& segment : result.segments) {
      names.push_back(segment.name);
      begins.push_back(segment.begin);
      repeats.push_back(segment.repeat);
    }
    out.texts(segments, "name", names, {});
    out.write(out.dataset(segments, "begin", H5T_STD_I64LE, {num_segments}, {}), "begin", H5T_NATIVE_INT64,
              begins.data());
    out.write(out.dataset(segments, "repeat", H5T_IEEE_F64LE, {num_segments}, {}), "repeat",
              H5T_NATIVE_DOUBLE, repeats.data());
  }
  const Hdf5Handle methods = out.group(file, "methods");
  for (const MethodResult& method : result.methods) {
    std::string name = method.name;
    std::replace(name.begin(), name.end(), '/', '_');
    const Hdf5Handle entry = out.group(methods, name);
    out.attribute(entry, "name", method.name);
    out.attribute(entry, "description", method.description);
    out.attribute(entry, "kept_entries", method.kept_entries);
    out.attribute(entry, "kept_bytes", method.kept_bytes);
    out.attribute(entry, "open_bytes", method.open_bytes);
    out.attribute(entry, "far_bytes", method.far_bytes);
    out.attribute(entry, "seconds", method.seconds);
    if (!method.right_bases.empty()) {
      const hsize_t questions = result.needle_depths.size();
      out.write(out.dataset(entry, "right_bases", H5T_IEEE_F32LE, {num_segments, questions}, {}),
                "right_bases", H5T_NATIVE_FLOAT, method.right_bases.data());
    }
    const hsize_t chunk_positions = std::min<hsize_t>(positions, 1 << 16);
    const hsize_t chunk_segments = std::clamp<hsize_t>((1 << 16) / chunk_positions, 1, num_segments);
    for (std::size_t m = 0; m < kNumMeasures; ++m) {
      if (method.values[m].empty()) continue;
      const Hdf5Handle values = out.dataset(entry, kMeasureNames[m], H5T_IEEE_F32LE,
                                            {num_segments, positions}, {chunk_segments, chunk_positions});
      out.write(values, kMeasureNames[m], H5T_NATIVE_FLOAT, method.values[m].data());
    }
  }
}

}  // namespace

void write_values_hdf5(const FidelityResult& result, const std::filesystem::path& path) {
  AtomicFile file(path);
  file.close();
  {
    const data::Hdf5Section section;
    const std::string name = path.string();
    const data::Hdf5Output out(name);
    Hdf5Handle hdf5 = out.create_file(file.temporary().string());
    write_tables(result, out, hdf5);
    out.check(hdf5.reset() ? 0 : -1, "the file");
  }
  file.commit();
}

}  // namespace focus::report
