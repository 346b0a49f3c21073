// A folder that disappears with the test, with a small random model and a FASTA file in it.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "focus/eval/fidelity.h"
#include "support/small_model.h"
#include "support/temporary_folder.h"

namespace focus::eval {

/// A run and its values at every position.
struct Measured : report::FidelityResult {
  std::vector<report::PositionValues> values;  // [method], all segments one after the other
};

inline Measured measured(const FidelityConfig& config) {
  std::vector<report::PositionValues> values;
  const auto keep = [&](const report::FidelityResult& run, std::size_t method, std::size_t segment,
                        const report::PositionValues& of_segment) {
    values.resize(run.methods.size());
    for (std::size_t m = 0; m < of_segment.values.size(); ++m) {
      std::vector<float>& all = values[method].values[m];
      EXPECT_EQ(all.size(), segment * static_cast<std::size_t>(run.positions));
      all.insert(all.end(), of_segment.values[m].begin(), of_segment.values[m].end());
    }
  };
  Measured out{run_fidelity(config, "cpu", at::kFloat, keep), {}};
  out.values = std::move(values);
  return out;
}

/// [segment * positions + position]
inline const std::vector<float>& values_of(const Measured& run, const std::string& method,
                                           report::Measure measure) {
  for (std::size_t m = 0; m < run.methods.size(); ++m) {
    if (run.methods[m].name == method) return run.values[m].values[static_cast<std::size_t>(measure)];
  }
  throw std::runtime_error("no method " + method);
}

class Workspace {
 public:
  const std::filesystem::path& path() const { return folder_.path(); }
  std::filesystem::path operator/(const std::string& name) const { return folder_ / name; }
  std::string text(const std::string& name, const std::string& content) const {
    std::ofstream(folder_ / name) << content;
    return (folder_ / name).string();
  }
  /// Windows of 64 bases, k 8, over `sequence`.
  FidelityConfig config(const std::string& sequence, int64_t length) const {
    FidelityConfig c;
    c.model_config = (folder_ / "small.yml").string();
    c.model_checkpoint = (folder_ / "small.pt").string();
    c.memory.window.size = 64;
    c.memory.focus.k = 8;
    c.fasta = text("input.fa", ">chr\n" + sequence + "\n");
    c.segments = 2;
    c.length = length;
    return c;
  }

 private:
  testing::TemporaryFolder folder_;
};

}  // namespace focus::eval
