#include "focus/core/temporary.h"

#include <set>
#include <utility>

namespace focus {
namespace {

namespace fs = std::filesystem;

struct Registry {
  std::recursive_mutex mutex;
  std::multiset<fs::path> paths;
};

/// Never destroyed: a temporary may be.
Registry& registry() {
  static Registry& one = *new Registry;
  return one;
}

void clear(const fs::path& path) {
  std::error_code ignored;
  // What another thread makes in a folder meanwhile goes with the next try.
  for (int tries = 0; tries < 10 && fs::exists(fs::symlink_status(path, ignored)); ++tries)
    fs::remove_all(path, ignored);
}

}  // namespace

Temporary::Temporary(fs::path path) : path_(std::move(path)) {
  if (path_.empty()) return;
  std::error_code ignored;
  if (const fs::path full = fs::absolute(path_, ignored); !ignored) path_ = full;
  const auto held = hold_temporaries();
  registry().paths.insert(path_);
}

Temporary::~Temporary() {
  if (path_.empty()) return;
  clear(path_);
  const auto held = hold_temporaries();
  registry().paths.erase(registry().paths.find(path_));
}

void remove_temporaries() {
  const auto held = hold_temporaries();
  for (const fs::path& path : registry().paths) clear(path);
}

std::unique_lock<std::recursive_mutex> hold_temporaries() { return std::unique_lock(registry().mutex); }

}  // namespace focus
