// Numbers as a person writes and reads them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace focus {

/// "512 B", "1.5 KiB", "20.0 GiB": powers of 1024, one decimal from KiB on.
std::string format_bytes(int64_t num_bytes);
/// "12,345,678".
std::string format_count(int64_t count);
/// "0.25 s", "12.3 s", "3m 05s", "2h 07m", "4d 03h"; "?" when negative or not finite.
std::string format_duration(double seconds);

/// Bytes from "4096", "20G", "20GiB" or "1.5g" (K, M, G, T are powers of 1024, as samtools and dorado read
/// them) or "20GB" (KB, MB, GB, TB are powers of 1000). Throws ConfigError naming the text: no number,
/// unknown suffix, negative, more than 2^63 - 1.
int64_t parse_bytes(std::string_view text);
/// A count of bases, tokens or entries from "1024", "1,000,000", "100k" or "1.5M" (k, M, G are powers of
/// 1000); must come out whole. Throws ConfigError as parse_bytes does.
int64_t parse_count(std::string_view text);

}  // namespace focus
