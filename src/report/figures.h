// The figures of a report's page.
#pragma once

#include <string>

#include "digest.h"

namespace focus::report {

/// The figures of the page, each a <figure> element with its legend and caption.
std::string render_figures(const ReportDigest& digest);

/// Style rules of the figures: colours of the methods, light and dark.
std::string figure_styles();

}  // namespace focus::report
