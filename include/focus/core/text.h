// Words as a person types them, and lists for messages.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace focus {

/// Edit distance where an insertion, deletion, replacement or swap of neighbours costs 1; case is ignored.
int64_t edit_distance(std::string_view a, std::string_view b);
/// The candidate with the smallest distance, if it is near enough to be a likely slip; else "". The first of
/// equals wins.
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);
/// "a", "b", "c".
std::string quoted_list(const std::vector<std::string>& words);
/// Adds "TITLE (N):" and the items, one a line; of more than twenty the first twenty. Nothing where there are
/// none.
void append_list(std::string& message, const char* title, const std::vector<std::string>& items);

}  // namespace focus
