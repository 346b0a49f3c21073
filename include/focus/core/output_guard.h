// An output that is also an input destroys it. Every program asks here before it writes anything.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace focus {

/// A file or folder of a run, and what the user calls it: "--fasta", "model_checkpoint".
struct NamedPath {
  std::string what;
  std::filesystem::path path;
};

/// ConfigError where an output is the same file as an input or another output, or a folder that an input lies
/// in. Files are compared by device and inode, so that links of both kinds and other spellings count, and by
/// name where they are not there yet. "-" stands for standard input and output; devices, pipes and empty
/// names take part in nothing.
void require_separate(const std::vector<NamedPath>& outputs, const std::vector<NamedPath>& inputs);

}  // namespace focus
