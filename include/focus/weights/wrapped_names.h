// Training frameworks put a word of their own before every name: "module." (DistributedDataParallel),
// "_orig_mod." (torch.compile), "model." (Lightning), "state_dict.".
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "focus/formats/tensor_file.h"

namespace focus::weights {

/// What stands before a model's own names in this file, "module.", found by the name of the token embedding;
/// "" where nothing does, or no model is in it.
std::string name_prefix(const formats::TensorFile& file);

/// The entries, tensors and others, whose names do not begin so.
std::vector<std::string> names_without_prefix(const formats::TensorFile& file, const std::string& prefix);

/// The file with the prefix, which all names have, taken off.
std::shared_ptr<formats::TensorFile> without_prefix(std::shared_ptr<formats::TensorFile> file,
                                                    const std::string& prefix);

/// TensorFile::open(); a prefix that all entries share is taken off, so that the file is what it would be
/// without, in its digests too. WeightsError: only some of them have it; the message names those that do not,
/// and the conversion that helps.
std::shared_ptr<formats::TensorFile> open_model_file(const std::filesystem::path& path);

}  // namespace focus::weights
