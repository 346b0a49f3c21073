// The control groups (cgroups, version 1 or 2) that this process is in, for what they limit.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace focus {

/// The number that a file begins with; nothing where there is none ("max": no limit).
std::optional<int64_t> number_in(const std::filesystem::path& path);

/// Folders of this process's group, from its own up to the root: a limit may stand in each. `controller` of
/// version 1, e.g. "memory"; empty: version 2. `root` stands for "/". Some may not exist.
std::vector<std::filesystem::path> group_folders(const std::filesystem::path& root,
                                                 const std::string& controller);

}  // namespace focus
