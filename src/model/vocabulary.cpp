#include "focus/model/vocabulary.h"

#include <algorithm>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "focus/core/error.h"
#include "focus/core/file.h"
#include "focus/core/json_depth.h"

namespace focus::model {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

constexpr std::string_view kBases = "ACGT";

constexpr char lower(char letter) { return static_cast<char>(letter | 0x20); }
bool is_letter(int byte) { return (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z'); }

/// Tokens of one character by their byte, and what else decides how text becomes tokens.
struct Alphabet {
  std::array<int64_t, 256> token;
  bool lowercases = false;
  Alphabet() { token.fill(Vocabulary::kNone); }
};

bool is_bases_only(const std::string& text) {
  return text.size() > 1 && text.find_first_not_of("ACGTNacgtn") == std::string::npos;
}

void add_token(Alphabet& alphabet, const std::string& text, int64_t id, const std::string& where) {
  if (is_bases_only(text))
    fail<ConfigError>(where, ": token '", text, "' stands for ", text.size(),
                      " bases: k-mer and byte-pair vocabularies are not supported, since one prediction must "
                      "be of one base");
  if (text.size() == 1) alphabet.token[static_cast<uint8_t>(text[0])] = id;
}

Json parse(const fs::path& path) {
  try {
    return Json::parse(read_file(path), DepthWatch<ConfigError>{path.string()});
  } catch (const Json::exception& e) {
    fail<ConfigError>("'", path.string(), "': not valid JSON: ", e.what());
  }
}

void add_map(Alphabet& alphabet, const Json& map, const std::string& where) {
  if (!map.is_object()) fail<ConfigError>(where, ": expected a map from tokens to numbers");
  for (const auto& [text, id] : map.items()) {
    if (!id.is_number_integer()) fail<ConfigError>(where, ": token '", text, "' has no whole number");
    add_token(alphabet, text, id.get<int64_t>(), where);
  }
}

/// What is done to a text before it is cut into tokens.
void read_normalizer(const Json& node, Alphabet& alphabet, const std::string& where) {
  if (node.is_null()) return;
  const std::string type = node.value("type", "");
  if (type == "Sequence") {
    for (const Json& part : node.at("normalizers")) read_normalizer(part, alphabet, where);
  } else if (type == "Lowercase") {
    alphabet.lowercases = true;
  } else if (type == "BertNormalizer") {
    alphabet.lowercases = alphabet.lowercases || node.value("lowercase", true);
  } else if (!std::set<std::string>{"NFC", "NFD", "NFKC", "NFKD", "StripAccents", "Strip"}.contains(type)) {
    fail<ConfigError>(where, ": normalizer '", type,
                      "' is not supported: it may change which token a letter becomes");
  }
}

Alphabet from_tokenizer(const fs::path& path) {
  const std::string where = concat("'", path.string(), "'");
  const Json file = parse(path);
  try {
    Alphabet alphabet;
    const Json& model = file.at("model");
    read_normalizer(file.value("normalizer", Json()), alphabet, where);
    if (model.contains("merges") && !model.at("merges").empty())
      fail<ConfigError>(where, ": a byte-pair vocabulary with ", model.at("merges").size(),
                        " merges: not supported, since one prediction must be of one base");
    const Json& vocabulary = model.at("vocab");
    if (vocabulary.is_array()) {  // Unigram: [text, score] in the order of their numbers
      for (std::size_t id = 0; id < vocabulary.size(); ++id)
        add_token(alphabet, vocabulary[id].at(0).get<std::string>(), static_cast<int64_t>(id), where);
    } else {
      add_map(alphabet, vocabulary, where);
    }
    for (const Json& token : file.value("added_tokens", Json::array()))
      add_token(alphabet, token.at("content").get<std::string>(), token.at("id").get<int64_t>(), where);
    return alphabet;
  } catch (const Json::exception& e) {
    fail<ConfigError>(where, ": not a tokenizer as expected here: ", e.what());
  }
}

Alphabet from_lines(const fs::path& path) {
  Alphabet alphabet;
  std::istringstream lines(read_file(path));
  int64_t id = 0;
  for (std::string line; std::getline(lines, line); ++id) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    add_token(alphabet, line, id, concat("'", path.string(), "'"));
  }
  return alphabet;
}

Alphabet from_bytes(int64_t size, int64_t offset) {
  Alphabet alphabet;
  for (std::size_t byte = 0; byte < 256; ++byte) {
    const int64_t token = static_cast<int64_t>(byte) + offset;
    if (token < size) alphabet.token[byte] = token;
  }
  return alphabet;
}

Alphabet read_alphabet(const fs::path& folder, int64_t size, std::string& where) {
  const fs::path tokenizer = folder / "tokenizer.json", map = folder / "vocab.json",
                 list = folder / "vocab.txt", config = folder / "tokenizer_config.json";
  const auto found = [&](const fs::path& path) {
    where = concat("'", path.string(), "'");
    return fs::exists(path);
  };
  if (found(tokenizer)) return from_tokenizer(tokenizer);
  if (fs::exists(folder / "merges.txt"))
    fail<ConfigError>(
        "'", (folder / "merges.txt").string(),
        "': byte-pair vocabularies are not supported, since one prediction must be of one base");
  if (found(map)) {
    Alphabet alphabet;
    add_map(alphabet, parse(map), where);
    return alphabet;
  }
  if (found(list)) return from_lines(list);
  if (found(config)) {
    const Json file = parse(config);
    const bool named =
        file.is_object() && file.contains("tokenizer_class") && file.at("tokenizer_class").is_string();
    const std::string name = named ? file.at("tokenizer_class").get<std::string>() : "";
    // Bytes behind the three special tokens: padding, end, unknown.
    if (name == "ByT5Tokenizer") return from_bytes(size, 3);
    fail<ConfigError>(where, ": tokenizer class '", name,
                      "' keeps its tokens in its own code; only ByT5Tokenizer is known here. Add a "
                      "vocab.json with the tokens of A, C, G, T and N");
  }
  where = "'" + folder.string() + "' (no tokenizer files: a letter's token is its byte)";
  if (size < 256)
    fail<ConfigError>("'", folder.string(), "' has no tokenizer file, and a vocabulary of ", size,
                      " tokens is none of bytes; add a vocab.json with the tokens of A, C, G, T and N");
  return from_bytes(size, 0);
}

}  // namespace

Vocabulary Vocabulary::bytes(int64_t size) {
  if (size <= 'T')
    fail<ConfigError>("a vocabulary of ", size,
                      " tokens is too small: a letter's token is its byte, and T is ", int{'T'});
  Vocabulary out;
  for (std::size_t byte = 0; byte < 256; ++byte)
    out.token_of_byte[byte] = static_cast<int64_t>(byte) < size ? static_cast<int32_t>(byte) : kNone;
  out.bases = {'A', 'C', 'G', 'T'};
  out.unknown_base = 'N';
  return out;
}

std::vector<int64_t> Vocabulary::encode(std::span<const uint8_t> letters, std::string_view record,
                                        int64_t offset) const {
  std::vector<int64_t> out(letters.size());
  for (std::size_t i = 0; i < letters.size(); ++i) {
    const int32_t token = token_of_byte[letters[i]];
    if (token == kNone) {
      const bool base_in_lowercase =
          is_letter(letters[i]) &&
          kBases.find(static_cast<char>(letters[i] & 0xDF)) != std::string_view::npos;
      fail<DataError>("the model has no token for '", static_cast<char>(letters[i]), "', position ",
                      offset + static_cast<int64_t>(i) + 1, " of '", record, "'; ",
                      base_in_lowercase ? "read lowercase as uppercase"
                                        : "replace such letters or leave the sequence out");
    }
    out[i] = token;
  }
  return out;
}

Vocabulary read_vocabulary(const fs::path& folder, int64_t size) {
  std::string where;
  Alphabet alphabet = read_alphabet(folder, size, where);
  auto& token = alphabet.token;
  for (const char letter : std::string_view("ACGTN")) {
    int64_t& upper = token[static_cast<uint8_t>(letter)];
    const int64_t low = token[static_cast<uint8_t>(lower(letter))];
    if (low != Vocabulary::kNone && (upper == Vocabulary::kNone || alphabet.lowercases)) upper = low;
  }
  for (const char letter : kBases) {
    if (token[static_cast<uint8_t>(letter)] == Vocabulary::kNone)
      fail<ConfigError>(
          where, ": there is no token for the single letter ", letter,
          "; models that read bases through longer tokens (k-mers, byte pairs) are not supported");
  }
  for (const char c : std::string_view("ACGTNacgtn")) {
    const int64_t id = token[static_cast<uint8_t>(c)];
    if (id < Vocabulary::kNone || id >= size)
      fail<ConfigError>(where, ": token ", id, " of '", c, "' is outside the model's vocabulary of ", size,
                        " tokens");
  }
  Vocabulary out;
  out.unknown_base = static_cast<int32_t>(token['N']);
  for (int byte = 0; byte < 256; ++byte) {
    const int64_t id = token[static_cast<std::size_t>(byte)];
    const bool other_letter =
        is_letter(byte) && kBases.find(static_cast<char>(byte & 0xDF)) == std::string_view::npos;
    const bool known = id >= 0 && id < size;
    out.token_of_byte[static_cast<std::size_t>(byte)] = known          ? static_cast<int32_t>(id)
                                                        : other_letter ? out.unknown_base
                                                                       : Vocabulary::kNone;
  }
  for (std::size_t i = 0; i < kBases.size(); ++i)
    out.bases[i] = out.token_of_byte[static_cast<uint8_t>(kBases[i])];
  if (std::set<int32_t>(out.bases.begin(), out.bases.end()).size() != out.bases.size())
    fail<ConfigError>(where, ": two of A, C, G and T have the same token");
  return out;
}

}  // namespace focus::model
