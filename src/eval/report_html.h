#pragma once

#include <string>

#include "report_digest.h"

namespace focus::eval {

/// The page of the report.
std::string render_html(const ReportDigest& digest);

/// The figures of the page, each a <figure> element with its legend and caption.
std::string render_figures(const ReportDigest& digest);

/// Style rules of the figures: colours of the methods, light and dark.
std::string figure_styles();

}  // namespace focus::eval
