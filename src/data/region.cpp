#include "focus/data/region.h"

#include <algorithm>
#include <charconv>
#include <sstream>
#include <unordered_map>

#include "focus/core/error.h"
#include "line_reader.h"

namespace focus::data {
namespace {

// A 1-based position with optional thousands commas.
int64_t parse_position(std::string_view digits, std::string_view text) {
  std::string plain(digits);
  plain.erase(std::remove(plain.begin(), plain.end(), ','), plain.end());
  int64_t value = 0;
  const auto [stop, error] = std::from_chars(plain.data(), plain.data() + plain.size(), value);
  if (plain.empty() || error != std::errc() || stop != plain.data() + plain.size())
    fail<DataError>("region '", text, "': '", digits,
                    "' is not a position; write name:start-end with 1-based whole numbers, e.g. chr1:1,001-2,000");
  if (value < 1) fail<DataError>("region '", text, "': positions are counted from 1, got ", value);
  return value;
}

Region with_range(const std::string& name, std::string_view range, std::string_view text, const SequenceFile& file) {
  const int64_t length = file.length(name);
  const std::size_t dash = range.find('-');
  Region region{name, parse_position(range.substr(0, dash), text) - 1, length};
  if (dash != std::string_view::npos && dash + 1 < range.size()) region.end = parse_position(range.substr(dash + 1), text);
  if (region.end > length || region.begin >= length)
    fail<DataError>("region '", text, "' reaches past the end of record '", name, "', which has ", length, " bases in '",
                    file.path().string(), "'");
  if (region.end <= region.begin) fail<DataError>("region '", text, "' ends before it starts");
  return region;
}

bool is_bed(std::string_view text) { return text.ends_with(".bed") || text.ends_with(".bed.gz"); }

template <class Check>
std::vector<Region> read_bed_lines(const std::filesystem::path& path, Check&& check) {
  LineReader reader(path);
  std::vector<Region> regions;
  std::string line;
  while (reader.next(line)) {
    if (line.empty() || line[0] == '#' || line.rfind("track", 0) == 0 || line.rfind("browser", 0) == 0) continue;
    std::istringstream columns(line);
    Region region;
    // Columns are separated by tabs or spaces; record names hold neither.
    if (!(columns >> region.name >> region.begin >> region.end))
      fail<DataError>("line ", reader.number(), " of '", path.string(), "': expected name, begin, end (BED, 0-based half-open), got '",
                      line.substr(0, 80), "'");
    if (region.begin < 0 || region.end <= region.begin)
      fail<DataError>("line ", reader.number(), " of '", path.string(), "': the range ", region.begin, "..", region.end,
                      " is empty or negative");
    check(region, reader.number());
    regions.push_back(std::move(region));
  }
  if (regions.empty()) fail<DataError>("'", path.string(), "' holds no region");
  return regions;
}

}  // namespace

Region parse_region(std::string_view text, const SequenceFile& file) {
  if (text.empty()) fail<DataError>("an empty region; write name or name:start-end");
  if (file.contains(text)) return {std::string(text), 0, file.length(text)};
  if (text.front() == '{') {
    const std::size_t close = text.rfind('}');
    if (close == std::string_view::npos) fail<DataError>("region '", text, "': '{' without '}'");
    const std::string name(text.substr(1, close - 1));
    const std::string_view rest = text.substr(close + 1);
    if (rest.empty()) return {name, 0, file.length(name)};
    if (rest.front() != ':') fail<DataError>("region '", text, "': expected ':' after '}'");
    return with_range(name, rest.substr(1), text, file);
  }
  for (std::size_t colon = text.rfind(':'); colon != std::string_view::npos; colon = colon == 0 ? colon - 1 : text.rfind(':', colon - 1)) {
    const std::string name(text.substr(0, colon));
    if (file.contains(name)) return with_range(name, text.substr(colon + 1), text, file);
  }
  // No record matches; length() reports the unknown name. A part behind the last ':' that looks like a range is not taken as name.
  const std::size_t colon = text.rfind(':');
  const bool has_range = colon != std::string_view::npos && text.find_first_not_of("0123456789,-", colon + 1) == std::string_view::npos;
  const std::string name(has_range ? text.substr(0, colon) : text);
  return {name, 0, file.length(name)};
}

std::string format_region(const Region& region) {
  const bool braces = region.name.find(':') != std::string::npos;
  return concat(braces ? "{" : "", region.name, braces ? "}" : "", ":", region.begin + 1, "-", region.end);
}

std::vector<Region> read_bed(const std::filesystem::path& path, const SequenceFile& file) {
  return read_bed_lines(path, [&](const Region& region, int64_t line) {
    if (!file.contains(region.name)) {
      const std::string near = nearest_name(region.name, file.names());
      fail<DataError>("line ", line, " of '", path.string(), "': no record '", region.name, "' in '", file.path().string(), "'",
                      near.empty() ? std::string() : concat("; did you mean '", near, "'?"));
    }
    if (region.end > file.length(region.name))
      fail<DataError>("line ", line, " of '", path.string(), "': ", region.name, " has ", file.length(region.name),
                      " bases, but the region ends at ", region.end);
  });
}

std::vector<Region> read_bed(const std::filesystem::path& path) {
  return read_bed_lines(path, [](const Region&, int64_t) {});
}

std::vector<Region> read_regions(const std::vector<std::string>& texts, const SequenceFile& file) {
  std::vector<Region> regions;
  for (const std::string& text : texts) {
    if (is_bed(text) && !file.contains(text)) {
      const std::vector<Region> bed = read_bed(text, file);
      regions.insert(regions.end(), bed.begin(), bed.end());
    } else {
      regions.push_back(parse_region(text, file));
    }
  }
  return regions;
}

namespace {

using ByRecord = std::unordered_map<std::string, std::vector<Region>>;

// By record and begin, so that lists of a hundred thousand regions take no quadratic time.
ByRecord sorted_by_record(const std::vector<Region>& regions) {
  ByRecord result;
  for (const Region& region : regions) result[region.name].push_back(region);
  for (auto& [name, list] : result)
    std::stable_sort(list.begin(), list.end(), [](const Region& a, const Region& b) { return a.begin < b.begin; });
  return result;
}

// Overlapping or touching regions made one: then the ends rise with the begins, and a search by end finds the first of interest.
ByRecord merged_by_record(const std::vector<Region>& regions) {
  ByRecord result = sorted_by_record(regions);
  for (auto& [name, list] : result) {
    std::size_t last = 0;
    for (std::size_t i = 1; i < list.size(); ++i) {
      if (list[i].begin <= list[last].end) {
        list[last].end = std::max(list[last].end, list[i].end);
      } else {
        list[++last] = list[i];
      }
    }
    list.resize(last + 1);
  }
  return result;
}

}  // namespace

std::vector<Region> intersect_regions(const std::vector<Region>& regions, const std::vector<Region>& held) {
  const ByRecord by_record = sorted_by_record(held);
  std::vector<Region> result;
  for (const Region& region : regions) {
    const auto found = by_record.find(region.name);
    if (found == by_record.end()) continue;
    for (const Region& part : found->second) {
      if (part.begin >= region.end) break;
      if (part.end > region.begin) result.push_back({region.name, std::max(region.begin, part.begin), std::min(region.end, part.end)});
    }
  }
  return result;
}

std::vector<Region> subtract_regions(const std::vector<Region>& regions, const std::vector<Region>& excluded) {
  const ByRecord holes = merged_by_record(excluded);
  std::vector<Region> result;
  for (const Region& region : regions) {
    int64_t begin = region.begin;
    const auto found = holes.find(region.name);
    if (found != holes.end()) {
      const std::vector<Region>& list = found->second;
      auto hole = std::upper_bound(list.begin(), list.end(), begin, [](int64_t at, const Region& r) { return at < r.end; });
      for (; hole != list.end() && hole->begin < region.end; ++hole) {
        if (hole->begin > begin) result.push_back({region.name, begin, hole->begin});
        begin = hole->end;
      }
    }
    if (begin < region.end) result.push_back({region.name, begin, region.end});
  }
  return result;
}

}  // namespace focus::data
