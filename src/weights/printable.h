// Text from an untrusted file, made fit for a message.
#pragma once

#include <string>
#include <string_view>

namespace focus::weights {

/// Quoted, at most 120 characters, everything but printable ASCII as \xHH: a file must not be able to send escape codes to a terminal.
std::string printable(std::string_view text);

/// Strict UTF-8: no overlong forms, no surrogates, nothing beyond U+10FFFF.
bool is_utf8(std::string_view text);

}  // namespace focus::weights
