// Appending records to a log that outlives a kill.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string_view>

namespace focus::train {

/// In one write call where the system allows it, so that another reader of the file sees whole records. DataError.
void append_whole(int fd, const std::filesystem::path& path, std::string_view record);
/// Waits for the disk. DataError.
void sync_file(int fd, const std::filesystem::path& path);

}  // namespace focus::train
