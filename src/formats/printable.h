// Text from an untrusted file, made fit for a message.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace focus::formats {

/// Quoted, at most 120 characters, everything but printable ASCII as \xHH: a file must not be able to send
/// escape codes to a terminal.
std::string printable(std::string_view text);

/// Strict UTF-8: no overlong forms, no surrogates, nothing beyond U+10FFFF.
bool is_utf8(std::string_view text);

/// One byte for each character of a UTF-8 text; nothing where one is beyond U+00FF.
std::optional<std::string> latin1_of(std::string_view utf8);
/// The reverse: bytes as the characters U+0000 to U+00FF, in UTF-8.
std::string utf8_of(std::string_view latin1);

}  // namespace focus::formats
