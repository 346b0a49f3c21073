// A folder that disappears with the test, with a small random model and a FASTA file in it.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>

#include "focus/eval/fidelity.h"
#include "support/small_model.h"
#include "support/temporary_folder.h"

namespace focus::eval {

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
