#include "focus/data/region.h"

#include <algorithm>
#include <charconv>
#include <unordered_map>

#include "focus/core/error.h"
#include "formats/printable.h"
#include "line_reader.h"

namespace focus::data {
namespace {

using formats::printable;

/// Commas may stand before each three last digits, and nowhere else: 1,5 is no 15.
bool commas_fit(std::string_view digits) {
  for (std::size_t comma = digits.find(','); comma != digits.npos; comma = digits.find(',', comma + 1)) {
    if (comma == 0 || (digits.size() - comma) % 4 != 0) return false;
  }
  return digits.find(',') == digits.npos || digits.find(',') <= 3;
}

// A 1-based position with optional thousands commas.
int64_t parse_position(std::string_view digits, std::string_view text) {
  std::string plain(commas_fit(digits) ? digits : "");
  plain.erase(std::remove(plain.begin(), plain.end(), ','), plain.end());
  int64_t value = 0;
  const auto [stop, error] = std::from_chars(plain.data(), plain.data() + plain.size(), value);
  if (plain.empty() || error != std::errc() || stop != plain.data() + plain.size())
    fail<DataError>(
        "region ", printable(text), ": ", printable(digits),
        " is not a position; write name:start-end with 1-based whole numbers, e.g. chr1:1,001-2,000");
  if (value < 1) fail<DataError>("region ", printable(text), ": positions are counted from 1, got ", value);
  return value;
}

Region with_range(const std::string& name, std::string_view range, std::string_view text,
                  const SequenceFile& file) {
  const int64_t length = file.length(name);
  const std::size_t dash = range.find('-');
  Region region{name, parse_position(range.substr(0, dash), text) - 1, length};
  if (dash != std::string_view::npos && dash + 1 < range.size())
    region.end = parse_position(range.substr(dash + 1), text);
  if (region.end > length || region.begin >= length)
    fail<DataError>("region ", printable(text), " reaches past the end of record ", printable(name),
                    ", which has ", length, " bases in '", file.path().string(), "'");
  if (region.end <= region.begin) fail<DataError>("region ", printable(text), " ends before it starts");
  return region;
}

constexpr std::string_view kBlanks = " \t";

/// The columns of a BED line: tabs separate where there is one, and a column may then hold blanks or nothing;
/// else runs of blanks do.
std::vector<std::string_view> bed_columns(std::string_view line) {
  const bool tabs = line.find('\t') != line.npos;
  std::vector<std::string_view> columns;
  while (true) {
    const std::size_t begin = std::min(line.find_first_not_of(' '), line.size());
    line.remove_prefix(begin);
    const std::size_t end = std::min(line.find(tabs ? '\t' : ' '), line.size());
    std::string_view column = line.substr(0, end);
    column = column.substr(0, column.find_last_not_of(' ') + 1);
    if (tabs || !column.empty()) columns.push_back(column);
    if (end == line.size()) return columns;
    line.remove_prefix(end + 1);
  }
}

std::errc read_whole(std::string_view text, int64_t& value) {
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && stop != text.data() + text.size() ? std::errc::invalid_argument : error;
}

/// Lines that tell a genome browser how to show the regions. A record may be called like them: then a tab
/// follows, or a number.
bool is_browser_line(std::string_view line) {
  const std::string_view word = line.substr(0, line.find_first_of(kBlanks));
  if (word != "track" && word != "browser") return false;
  if (word.size() < line.size() && line[word.size()] == '\t') return false;
  const auto columns = bed_columns(line);
  return columns.size() < 2 ||
         std::string_view("+-.0123456789").find(columns[1][0]) == std::string_view::npos;
}

int64_t bed_position(const std::vector<std::string_view>& columns, std::size_t column, const char* what,
                     const LineReader& reader) {
  const std::string where = concat(reader.where(), ", column ", column + 1, " (", what, "): ");
  if (column >= columns.size() || columns[column].empty())
    fail<DataError>(
        where, "missing; expected name, begin, end (BED, 0-based half-open), separated by tabs or by blanks");
  int64_t value = 0;
  const std::errc error = read_whole(columns[column], value);
  if (error == std::errc::result_out_of_range)
    fail<DataError>(where, printable(columns[column]), " is too large");
  if (error != std::errc())
    fail<DataError>(where, printable(columns[column]),
                    " is not a whole number; write it in digits only, as in 1000000");
  if (value < 0) fail<DataError>(where, value, " is negative; BED positions are counted from 0");
  return value;
}

/// Calls check(region, place) for each row.
template <class Check>
std::vector<BedRow> read_bed_lines(const std::filesystem::path& path, Check&& check) {
  LineReader reader(path);
  std::vector<BedRow> rows;
  std::string line;
  while (reader.next(line)) {
    if (line.find_first_not_of(kBlanks) == line.npos || line[0] == '#' || is_browser_line(line)) continue;
    const auto columns = bed_columns(line);
    BedRow row;
    row.region.name = columns[0];
    if (row.region.name.empty())
      fail<DataError>(reader.where(), ", column 1 (name): missing; expected name, begin, end (BED)");
    row.region.begin = bed_position(columns, 1, "begin", reader);
    row.region.end = bed_position(columns, 2, "end", reader);
    if (row.region.end <= row.region.begin)
      fail<DataError>(reader.where(), ": the range ", row.region.begin, "..", row.region.end,
                      " is empty or negative");
    if (columns.size() > 3) row.name = columns[3];
    if (columns.size() > 5)
      row.strand = columns[5] == "+" || columns[5] == "-" || columns[5] == "." ? columns[5][0] : '?';
    check(row.region, reader.where());
    rows.push_back(std::move(row));
  }
  if (rows.empty()) fail<DataError>("'", path.string(), "' holds no region");
  return rows;
}

std::vector<Region> regions_of(std::vector<BedRow> rows) {
  std::vector<Region> regions;
  for (BedRow& row : rows) regions.push_back(std::move(row.region));
  return regions;
}

}  // namespace

Region parse_region(std::string_view text, const SequenceFile& file) {
  if (text.empty()) fail<DataError>("an empty region; write name or name:start-end");
  if (file.contains(text)) return {std::string(text), 0, file.length(text)};
  if (text.front() == '{') {
    const std::size_t close = text.rfind('}');
    if (close == std::string_view::npos) fail<DataError>("region ", printable(text), ": '{' without '}'");
    const std::string name(text.substr(1, close - 1));
    const std::string_view rest = text.substr(close + 1);
    if (rest.empty()) return {name, 0, file.length(name)};
    if (rest.front() != ':') fail<DataError>("region ", printable(text), ": expected ':' after '}'");
    return with_range(name, rest.substr(1), text, file);
  }
  for (std::size_t colon = text.rfind(':'); colon != std::string_view::npos;
       colon = colon == 0 ? colon - 1 : text.rfind(':', colon - 1)) {
    const std::string name(text.substr(0, colon));
    if (file.contains(name)) return with_range(name, text.substr(colon + 1), text, file);
  }
  // No record matches; length() reports the unknown name. A part behind the last ':' that looks like a range
  // is not taken as name.
  const std::size_t colon = text.rfind(':');
  const bool has_range = colon != std::string_view::npos &&
                         text.find_first_not_of("0123456789,-", colon + 1) == std::string_view::npos;
  const std::string name(has_range ? text.substr(0, colon) : text);
  return {name, 0, file.length(name)};
}

std::string format_region(const Region& region) {
  const bool braces = region.name.find(':') != std::string::npos;
  return concat(braces ? "{" : "", region.name, braces ? "}" : "", ":", region.begin + 1, "-", region.end);
}

bool is_bed(std::string_view text) {
  for (const std::string_view packed : {".gz", ".bgz"}) {
    if (text.ends_with(packed)) text.remove_suffix(packed.size());
  }
  return text.ends_with(".bed") || text.ends_with(".BED");
}

std::vector<BedRow> read_bed_rows(const std::filesystem::path& path, const SequenceFile& file) {
  return read_bed_lines(path, [&](const Region& region, const std::string& where) {
    if (!file.contains(region.name)) {
      const std::string near = nearest_name(region.name, file.names());
      fail<DataError>(where, ": no record ", printable(region.name), " in '", file.path().string(), "'",
                      near.empty() ? std::string() : concat("; did you mean '", near, "'?"));
    }
    if (region.end > file.length(region.name))
      fail<DataError>(where, ": ", region.name, " has ", file.length(region.name),
                      " bases, but the region ends at ", region.end);
  });
}

std::vector<Region> read_bed(const std::filesystem::path& path, const SequenceFile& file) {
  return regions_of(read_bed_rows(path, file));
}

std::vector<Region> read_bed(const std::filesystem::path& path) {
  return regions_of(read_bed_lines(path, [](const Region&, const std::string&) {}));
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
    std::stable_sort(list.begin(), list.end(),
                     [](const Region& a, const Region& b) { return a.begin < b.begin; });
  return result;
}

// Overlapping or touching regions made one: then the ends rise with the begins, and a search by end finds the
// first of interest.
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
      if (part.end > region.begin)
        result.push_back({region.name, std::max(region.begin, part.begin), std::min(region.end, part.end)});
    }
  }
  return result;
}

std::vector<Region> subtract_regions(const std::vector<Region>& regions,
                                     const std::vector<Region>& excluded) {
  const ByRecord holes = merged_by_record(excluded);
  std::vector<Region> result;
  for (const Region& region : regions) {
    int64_t begin = region.begin;
    const auto found = holes.find(region.name);
    if (found != holes.end()) {
      const std::vector<Region>& list = found->second;
      auto hole = std::upper_bound(list.begin(), list.end(), begin,
                                   [](int64_t at, const Region& r) { return at < r.end; });
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
