#include "focus/data/jsonl.h"

#include <nlohmann/json.hpp>
#include <string_view>

#include "focus/core/error.h"
#include "focus/core/json_depth.h"
#include "line_reader.h"

namespace focus::data {

struct JsonlReader::Impl {
  Impl(const std::filesystem::path& path, const std::string& before_numbers)
      : lines(path), prefix(before_numbers) {}
  LineReader lines;
  std::string prefix;
  std::string line;
};

JsonlReader::JsonlReader(const std::filesystem::path& path, const std::string& prefix)
    : impl_(std::make_unique<Impl>(path, prefix)) {}
JsonlReader::~JsonlReader() = default;

bool JsonlReader::next(JsonlRecord& record) {
  do {
    if (!impl_->lines.next(impl_->line)) return false;
  } while (impl_->line.find_first_not_of(" \t") == std::string::npos);
  record.line = impl_->lines.number();
  const std::string line = impl_->lines.where(), where = line + ": ";
  nlohmann::json value;
  try {
    value = nlohmann::json::parse(impl_->line, DepthWatch<DataError>{line});
  } catch (const nlohmann::json::exception& error) {
    constexpr std::size_t kMostSaid = 200;  // the library shows all that it has read of a text
    // The library's own "[json.exception....] " in front says nothing to a user.
    const std::string_view what = error.what();
    const std::size_t prefix = what.find("] ");
    fail<DataError>(where, "not JSON (", prefix == what.npos ? what : what.substr(prefix + 2, kMostSaid),
                    "); each line must be one object such as {\"text\": \"ACGT\"}");
  }
  if (!value.is_object())
    fail<DataError>(where, "expected an object such as {\"text\": \"ACGT\"}, got ", value.type_name());
  const auto text = value.find("text");
  if (text == value.end()) fail<DataError>(where, "the object has no \"text\"");
  if (!text->is_string()) fail<DataError>(where, "\"text\" must be a string, got ", text->type_name());
  record.text = text->get<std::string>();
  if (record.text.empty()) fail<DataError>(where, "\"text\" is empty");
  record.name = concat(impl_->prefix, "line-", record.line);
  for (const char* key : {"name", "id"}) {
    const auto name = value.find(key);
    if (name != value.end()) record.name = name->is_string() ? name->get<std::string>() : name->dump();
  }
  return true;
}

}  // namespace focus::data
