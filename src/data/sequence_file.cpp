#include "focus/data/sequence_file.h"

#include <algorithm>
#include <cctype>

#include "focus/core/error.h"
#include "focus/core/text.h"
#include "formats/printable.h"

namespace focus::data {
namespace {

std::string folded(std::string_view name, bool drop_chr) {
  std::string result(name);
  for (char& c : result) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  if (drop_chr && result.rfind("chr", 0) == 0) result.erase(0, 3);
  if (drop_chr && result == "m") result = "mt";
  return result;
}

}  // namespace

std::string nearest_name(std::string_view name, const std::vector<std::string>& known) {
  const std::string wanted = folded(name, true);
  for (const std::string& candidate : known) {
    if (folded(candidate, true) == wanted) return candidate;
  }
  return nearest(name, known);
}

void SequenceFile::add_record(const std::string& name, int64_t length) {
  FOCUS_CHECK(length > 0 && lengths_.emplace(name, length).second, "record '", name, "' of ", length,
              " bases");
  names_.push_back(name);
  total_length_ += length;
}

int64_t SequenceFile::length(std::string_view name) const {
  const auto found = lengths_.find(std::string(name));
  if (found != lengths_.end()) return found->second;
  const std::string near = nearest_name(name, names_);
  std::string hint = near.empty() ? concat("it holds ", names_.size(), " record(s), the first is ",
                                           formats::printable(names_.front()))
                                  : concat("did you mean '", near, "'?");
  if (!near.empty() && near != name && folded(near, true) == folded(name, true) &&
      folded(near, false) != folded(name, false))
    hint += " (the file and the request differ in the 'chr' prefix)";
  fail<DataError>("no record ", formats::printable(name), " in '", path_.string(), "'; ", hint);
}

std::string SequenceFile::fetch(std::string_view name, int64_t begin, int64_t end) const {
  const int64_t bases = length(name);
  if (begin < 0 || end < begin || end > bases)
    fail<DataError>("bases ", begin, "..", end, " (0-based, half-open) of record '", name, "' in '",
                    path_.string(), "' do not exist: the record has ", bases, " bases");
  return begin == end ? std::string() : read(std::string(name), begin, end);
}

std::vector<Region> SequenceFile::held() const {
  std::vector<Region> all;
  for (const std::string& name : names_) all.push_back({name, 0, length(name)});
  return all;
}

}  // namespace focus::data
