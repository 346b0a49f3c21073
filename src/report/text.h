// Numbers of the report as text.
#pragma once

#include <cstddef>
#include <string>

namespace focus::report {

/// For tables that programs read: nine significant digits, "NA" for NaN.
std::string exact(double value);
/// For people: three significant digits, "1.2e-6" for small ones, an en dash for NaN.
std::string rounded(double value);
/// A difference with its sign.
std::string rounded_difference(double value);
/// Columns on a terminal.
std::size_t width_of(const std::string& text);
/// A share as "97.3 %".
std::string percent(double share);

}  // namespace focus::report
