#include "control_groups.h"

#include <fstream>

#include "focus/core/error.h"

namespace focus {

namespace fs = std::filesystem;

std::optional<int64_t> number_in(const fs::path& path) {
  std::ifstream file(path);
  int64_t value = 0;
  return file >> value ? std::optional(value) : std::nullopt;
}

std::vector<fs::path> group_folders(const fs::path& root, const std::string& controller) {
  std::vector<fs::path> out;
  std::ifstream file(root / "proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {  // NUMBER:CONTROLLERS:PATH
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (controller.empty()
            ? !controllers.empty()
            : concat(',', controllers, ',').find(concat(',', controller, ',')) == std::string::npos)
      continue;
    // Beside version 1, version 2 lies one folder deeper. Controllers that share a folder may lack links of
    // their own.
    const fs::path all = root / "sys/fs/cgroup";
    const std::vector<fs::path> tops = controller.empty() ? std::vector{all, all / "unified"}
                                                          : std::vector{all / controller, all / controllers};
    for (const fs::path& top : tops) {
      // Inside a container the path may name folders that only the host sees; the root is then the
      // container's own.
      for (fs::path below = fs::path(line.substr(second + 1)).relative_path(); !below.empty();
           below = below.parent_path())
        out.push_back(top / below);
      out.push_back(top);
    }
  }
  return out;
}

}  // namespace focus
