// Which files sequences are read from.
#pragma once

#include <string>
#include <vector>

#include "focus/core/output_guard.h"
#include "focus/data/sampler.h"

namespace focus::data {

/// A FASTA file, or those of a folder, and the index files beside it, whether they are there or not.
std::vector<NamedPath> fasta_files(const std::string& what, const std::string& path);
/// Every source of a sampler with its indices, and the .bed files of its regions and exclusions. `setting`:
/// the sampler's path in the configuration, "data".
std::vector<NamedPath> sampler_files(const std::string& setting, const SamplerConfig& config);

}  // namespace focus::data
