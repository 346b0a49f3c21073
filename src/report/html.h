// The page of a report.
#pragma once

#include <string>

#include "digest.h"

namespace focus::report {

/// The page of the report.
std::string render_html(const ReportDigest& digest);

}  // namespace focus::report
