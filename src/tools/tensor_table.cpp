#include "tensor_table.h"

#include <fnmatch.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <tuple>

#include "focus/core/error.h"

namespace focus::tools {
namespace {

/// A name cut around its first component that is a number.
struct NumberedName {
  std::string before, after;
  std::optional<int64_t> number;
};

NumberedName split(const std::string& name) {
  for (std::size_t begin = 0; begin < name.size();) {
    const std::size_t end = std::min(name.find('.', begin), name.size());
    int64_t number = 0;
    const auto [stop, error] = std::from_chars(name.data() + begin, name.data() + end, number);
    // "007" would not come back as it was.
    if (error == std::errc() && stop == name.data() + end && (end - begin == 1 || name[begin] != '0') &&
        number >= 0)
      return {name.substr(0, begin), name.substr(end), number};
    begin = end + 1;
  }
  return {name, "", std::nullopt};
}

struct Group {
  TensorRow row;
  NumberedName name;
  std::vector<int64_t> numbers;
};

class Grouping {
 public:
  Grouping(const std::string& glob, bool collapse) : glob_(glob), collapse_(collapse) {}

  void add(TensorRow row) {
    if (!glob_.empty() && ::fnmatch(glob_.c_str(), row.name.c_str(), 0) != 0) return;
    NumberedName name = collapse_ ? split(row.name) : NumberedName{row.name, "", std::nullopt};
    const auto [found, is_first] = known_.emplace(
        std::tuple(name.before, name.after, name.number.has_value(), row.dtype, row.shape), groups_.size());
    if (is_first) groups_.push_back({row, name, {}});
    Group& group = groups_[found->second];
    if (!is_first) {
      group.row.count += row.count;
      group.row.num_bytes += row.num_bytes;
    }
    if (name.number) group.numbers.push_back(*name.number);
  }

  std::vector<TensorRow> finish() {
    std::vector<TensorRow> out;
    for (Group& group : groups_) {
      std::sort(group.numbers.begin(), group.numbers.end());
      if (group.numbers.size() > 1)
        group.row.name = concat(group.name.before, '{', ranges(group.numbers), '}', group.name.after);
      out.push_back(std::move(group.row));
    }
    return out;
  }

 private:
  const std::string& glob_;
  bool collapse_;
  std::vector<Group> groups_;
  std::map<std::tuple<std::string, std::string, bool, std::string, std::vector<int64_t>>, std::size_t> known_;
};

const char* kind_of(formats::OpaqueEntry::Kind kind) {
  switch (kind) {
    case formats::OpaqueEntry::Kind::byte_stream:
      return "BytesIO";
    case formats::OpaqueEntry::Kind::byte_tensor:
    case formats::OpaqueEntry::Kind::bytes:
      return "bytes";
    case formats::OpaqueEntry::Kind::none:
      return "None";
    case formats::OpaqueEntry::Kind::other:
      return "other";
  }
  return "?";
}

}  // namespace

std::vector<TensorRow> tensor_rows(const formats::TensorFile& file, const std::string& glob, bool collapse) {
  Grouping rows(glob, collapse);
  for (const formats::TensorView& tensor : file.tensors())
    rows.add({tensor.name, formats::name_of(tensor.dtype), tensor.shape, 1, tensor.num_bytes()});
  return rows.finish();
}

std::vector<TensorRow> opaque_rows(const formats::TensorFile& file, const std::string& glob, bool collapse) {
  Grouping rows(glob, collapse);
  for (const formats::OpaqueEntry& entry : file.opaque())
    rows.add({entry.name, kind_of(entry.kind), {}, 1, static_cast<int64_t>(entry.content.size())});
  return rows.finish();
}

std::map<std::string, Total> totals(const formats::TensorFile& file) {
  std::map<std::string, Total> out;
  for (const formats::TensorView& tensor : file.tensors()) {
    Total& total = out[formats::name_of(tensor.dtype)];
    ++total.count;
    total.elements += tensor.num_elements();
    total.num_bytes += tensor.num_bytes();
  }
  return out;
}

std::string ranges(const std::vector<int64_t>& numbers) {
  std::string out;
  for (std::size_t i = 0; i < numbers.size();) {
    std::size_t last = i;
    while (last + 1 < numbers.size() && numbers[last + 1] <= numbers[last] + 1) ++last;
    out += concat(out.empty() ? "" : ",", numbers[i]);
    if (numbers[last] != numbers[i])
      out += concat(numbers[last] == numbers[i] + 1 ? "," : "-", numbers[last]);
    i = last + 1;
  }
  return out;
}

std::string visible(const std::string& text) {
  std::string out = text;
  for (char& c : out) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return out;
}

}  // namespace focus::tools
