#include "yaml_reader.h"

#include <algorithm>

namespace focus::model {

YamlReader::YamlReader(const std::string& yaml, std::string source) : source_(std::move(source)) {
  std::vector<YAML::Node> documents;
  try {
    documents = YAML::LoadAll(yaml);
  } catch (const YAML::Exception& e) {
    fail<ConfigError>(source_, ":", e.mark.line + 1, ":", e.mark.column + 1, ": not valid YAML: ", e.msg);
  }
  if (documents.size() > 1)
    fail<ConfigError>(source_, ": holds ", documents.size(), " YAML documents, expected one");
  if (documents.empty() || !documents[0].IsMap())
    fail<ConfigError>(source_, ": expected a YAML mapping of model settings");
  root_ = documents[0];
  for (const auto& item : root_) {
    const int line = item.first.Mark().line + 1;
    if (!item.first.IsScalar()) fail<ConfigError>(source_, ":", line, ": a key must be a plain name");
    const auto [first, inserted] = lines_.emplace(item.first.Scalar(), line);
    if (!inserted)
      fail<ConfigError>(source_, ":", line, ": key '", first->first, "' appears twice, first on line ",
                        first->second);
  }
}

int64_t YamlReader::count(const std::string& key, int64_t max, int64_t fallback) {
  const int64_t value = fallback > 0 ? get<int64_t>(key, fallback) : get<int64_t>(key);
  if (value < 1 || value > max) wrong(key, "must lie in 1..", max, ", got ", value);
  return value;
}

std::string YamlReader::written(const std::string& key) const {
  YAML::Emitter out;
  out << YAML::Flow << root_[key];
  std::string text = out.good() ? out.c_str() : "";
  std::replace(text.begin(), text.end(), '\n', ' ');
  constexpr std::size_t kShown = 60;
  if (text.size() > kShown) {
    text.resize(kShown);
    text += "...";
  }
  return text.empty() ? "nothing" : text;
}

void YamlReader::finish(const std::set<std::string>& ignored) const {
  for (const auto& [key, line] : lines_) {
    if (!used_.contains(key) && !ignored.contains(key))
      fail<ConfigError>(source_, ":", line, ": unknown key '", key,
                        "'; correct or remove it, or this focus is too old for this model");
  }
}

}  // namespace focus::model
