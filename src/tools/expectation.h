// What a released model is expected to predict of known sequences.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace focus::tools {

struct Expectation {
  std::string name;
  double loss = 0, tolerance = 0;
  std::optional<double> accuracy;  // share of bases, 0 to 1; reported, not judged
};

/// The entry `name` of a JSON file (comments allowed): {"NAME": {"loss": ..., "tolerance": ..., "accuracy": ...}, ...}.
/// ConfigError: missing or malformed file, an unknown key, a missing or impossible number, no such entry (the known ones are listed).
Expectation read_expectation(const std::filesystem::path& path, const std::string& name);

}  // namespace focus::tools
