#include "multiqc.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "focus/core/error.h"
#include "focus/core/file.h"

namespace focus::report {

std::vector<MultiqcColumn> multiqc_columns() {
  return {{"recovered", "R, %", "Share of state_only's loss that is avoided", "{:,.1f}"},
          {"kl", "KL, nats", "Mean KL(full || method) behind the first boundary", "{:,.5f}"},
          {"recall", "Recall, %", "Share of full memory's gain at bases copied from behind the window",
           "{:,.1f}"},
          {"top1", "Top-1, %", "Positions whose most probable token is full memory's", "{:,.1f}"},
          {"delta", "Loss above full, nats", "Cross entropy less full memory's", "{:,.5f}"},
          {"kept", "Kept, KiB", "Held for closed windows, all layers", "{:,.1f}"},
          {"seconds", "Seconds", "Time of this method", "{:,.1f}"}};
}

void write_multiqc(const std::filesystem::path& folder, const std::string& title,
                   const std::string& description, const std::vector<MultiqcColumn>& columns,
                   const std::vector<MultiqcRow>& rows) {
  nlohmann::ordered_json root{{"id", "focus"},
                              {"section_name", title},
                              {"description", description},
                              {"plot_type", "table"},
                              {"pconfig", {{"id", "focus_table"}, {"title", title}}}};
  for (const MultiqcColumn& column : columns)
    root["headers"][column.id] = {
        {"title", column.title}, {"description", column.description}, {"format", column.format}};
  root["data"] = nlohmann::ordered_json::object();
  for (const MultiqcRow& row : rows) {
    auto& sample = root["data"][row.sample] = nlohmann::ordered_json::object();
    for (std::size_t i = 0; i < columns.size(); ++i) {
      if (std::isfinite(row.values[i])) sample[columns[i].id] = row.values[i];
    }
  }
  write_file(folder / kMultiqcFile,
             root.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
}

}  // namespace focus::report
