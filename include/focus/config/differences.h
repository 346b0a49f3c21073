// What sets two configurations apart.
#pragma once

#include <string>
#include <vector>

namespace focus::config {

/// "path: old -> new" for each setting in which two texts of to_json() differ; an element of a list by its
/// place, "stages.1.steps". Left out: paths in `ignored` and all that lies below them. ConfigError: one of
/// the texts is no JSON.
std::vector<std::string> differences(const std::string& before, const std::string& after,
                                     const std::vector<std::string>& ignored = {});
/// `text` with the settings that it lacks, at any depth but in lists, as `defaults` has them: what an earlier
/// version wrote, read by this one. ConfigError as above.
std::string with_defaults(const std::string& text, const std::string& defaults);

}  // namespace focus::config
