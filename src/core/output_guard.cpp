#include "focus/core/output_guard.h"

#include <sys/stat.h>

#include <optional>

#include "focus/core/error.h"

namespace focus {
namespace {

namespace fs = std::filesystem;

struct Identity {
  dev_t device = 0;
  ino_t inode = 0;
  bool operator==(const Identity&) const = default;
};

std::optional<Identity> identity_of(const fs::path& path) {
  struct stat info{};
  if (::stat(path.c_str(), &info) != 0) return std::nullopt;
  return Identity{info.st_dev, info.st_ino};
}

/// Links followed, also one whose target is not there yet; no slash at the end.
fs::path real_path(fs::path path) {
  constexpr int kMostLinks = 40;  // as the kernel has it
  std::error_code error;
  path = fs::absolute(path, error);
  for (int i = 0; i < kMostLinks && fs::is_symlink(path, error); ++i)
    path = path.parent_path() / fs::read_symlink(path, error);
  const fs::path whole = fs::weakly_canonical(path, error);
  path = error ? path.lexically_normal() : whole;
  return path.has_filename() ? path : path.parent_path();
}

struct Place {
  const NamedPath* named = nullptr;
  fs::path path;
  std::optional<Identity> identity;  // nothing: it is not there yet
};

std::vector<Place> places_of(const std::vector<NamedPath>& all, const char* stream) {
  std::vector<Place> out;
  for (const NamedPath& named : all) {
    if (named.path.empty()) continue;
    const fs::path path = named.path == "-" ? fs::path(stream) : named.path;
    std::error_code error;
    const fs::file_status status = fs::status(path, error);
    if (fs::exists(status) && !fs::is_regular_file(status) && !fs::is_directory(status)) continue;
    out.push_back({&named, real_path(path), identity_of(path)});
  }
  return out;
}

bool same(const Place& a, const Place& b) {
  return (a.identity && a.identity == b.identity) || a.path == b.path;
}

bool lies_in(const Place& inner, const Place& folder) {
  if (!folder.identity) return false;
  for (fs::path above = inner.path; above.has_relative_path();) {
    above = above.parent_path();
    if (above == folder.path || identity_of(above) == folder.identity) return true;
  }
  return false;
}

std::string shown(const Place& place) {
  return place.named->path == "-" ? concat(place.named->what, " -")
                                  : concat(place.named->what, " '", place.named->path.string(), "'");
}

}  // namespace

void require_separate(const std::vector<NamedPath>& outputs, const std::vector<NamedPath>& inputs) {
  const std::vector<Place> written = places_of(outputs, "/dev/stdout"),
                           read = places_of(inputs, "/dev/stdin");
  for (const Place& output : written) {
    for (const Place& input : read) {
      if (same(output, input))
        fail<ConfigError>(shown(output), " is the input ", shown(input),
                          ", which would be destroyed; name another output");
      if (lies_in(input, output))
        fail<ConfigError>(shown(output), " holds the input ", shown(input),
                          ", which would be destroyed; name another output");
    }
    for (const Place& other : written) {
      if (&other != &output && same(output, other))
        fail<ConfigError>(shown(output), " and ", shown(other),
                          " are one file; give each output a name of its own");
    }
  }
}

}  // namespace focus
