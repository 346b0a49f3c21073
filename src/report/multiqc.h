// A table as MultiQC's custom content: MultiQC shows every file whose name ends in _mqc.json.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace focus::report {

inline constexpr const char* kMultiqcFile = "focus_mqc.json";

struct MultiqcColumn {
  std::string id, title, description, format;  // format: Python's, "{:,.4f}"
};
struct MultiqcRow {
  std::string sample;          // unique
  std::vector<double> values;  // by column; NaN: none
};

/// R, KL, recall and agreement in per cent, cross entropy above full memory's, KiB kept, seconds.
std::vector<MultiqcColumn> multiqc_columns();

/// Writes `folder`/focus_mqc.json. DataError: it cannot be written.
void write_multiqc(const std::filesystem::path& folder, const std::string& title,
                   const std::string& description, const std::vector<MultiqcColumn>& columns,
                   const std::vector<MultiqcRow>& rows);

}  // namespace focus::report
