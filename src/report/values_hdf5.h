// The values of a report for other programs.
#pragma once

#include <filesystem>

#include "focus/report/fidelity_result.h"

namespace focus::report {

/// values.h5 of the report (see write_fidelity_report). DataError when HDF5 cannot write it.
void write_values_hdf5(const FidelityResult& result, const std::filesystem::path& path);

}  // namespace focus::report
