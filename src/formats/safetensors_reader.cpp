// safetensors: 8 bytes header length, a JSON header, then the tensors' bytes without gaps.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "focus/core/error.h"
#include "little_endian.h"
#include "mapped_tensor_file.h"
#include "printable.h"

namespace focus::formats {
namespace {

constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit
constexpr std::size_t kMaxRank = 64;

struct Entry {
  std::string name;
  std::optional<DType> dtype;
  bool has_shape = false, has_offsets = false;
  std::vector<std::int64_t> shape, offsets;
};

/// Reads the header event by event, so that a repeated key is seen and a deep or huge document is refused
/// where it leaves the format.
class HeaderReader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit HeaderReader(const std::string& where) : where_(where) {}

  std::vector<Entry> entries;
  std::map<std::string, std::string> metadata;

  bool null() override { return unexpected("null"); }
  bool boolean(bool) override { return unexpected("a boolean"); }
  bool number_integer(number_integer_t value) override { return unexpected(concat("the number ", value)); }
  bool number_float(number_float_t, const string_t& text) override {
    return unexpected(concat("the number ", printable(text)));
  }
  bool binary(binary_t&) override { return unexpected("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (state_ != State::array || value > static_cast<number_unsigned_t>(INT64_MAX))
      return unexpected(concat("the number ", value));
    std::vector<std::int64_t>& values = key_ == "shape" ? entries.back().shape : entries.back().offsets;
    if (values.size() >= kMaxRank) return unexpected("more than 64 numbers in a list");
    values.push_back(static_cast<std::int64_t>(value));
    return true;
  }

  bool string(string_t& text) override {
    if (state_ == State::metadata) {
      if (!metadata.emplace(key_, text).second) return unexpected("the same key again");
      return true;
    }
    if (state_ != State::entry || key_ != "dtype" || entries.back().dtype)
      return unexpected(concat("the text ", printable(text)));
    entries.back().dtype = dtype_named(text);
    if (!entries.back().dtype) {
      fail<WeightsError>(where_, ": tensor ", printable(entries.back().name), " has the unsupported dtype ",
                         printable(text),
                         ", expected one of F32 BF16 F16 F64 I64 I32 I16 I8 U8 BOOL F8_E4M3 F8_E5M2");
    }
    return true;
  }

  bool start_object(std::size_t) override {
    if (state_ == State::outside) {
      state_ = State::top;
    } else if (state_ != State::top) {
      return unexpected("an object");
    } else if (!names_.insert(key_).second) {
      return unexpected("the same name again");
    } else if (key_ == "__metadata__") {
      state_ = State::metadata;
    } else {
      entries.emplace_back().name = key_;
      state_ = State::entry;
    }
    return true;
  }

  bool key(string_t& text) override {
    key_ = text;
    if (state_ == State::entry && text != "dtype" && text != "shape" && text != "data_offsets")
      return unexpected("an unknown key");
    return true;
  }

  bool end_object() override {
    if (state_ == State::entry) {
      const Entry& entry = entries.back();
      if (!entry.dtype || !entry.has_shape || entry.offsets.size() != 2) {
        fail<WeightsError>(where_, ": tensor ", printable(entry.name),
                           " lacks a dtype, a shape or two data_offsets in the safetensors header");
      }
    }
    state_ = state_ == State::top ? State::done : State::top;
    return true;
  }

  bool start_array(std::size_t) override {
    if (state_ != State::entry || key_ == "dtype") return unexpected("a list");
    bool& seen = key_ == "shape" ? entries.back().has_shape : entries.back().has_offsets;
    if (seen) return unexpected("the same key again");
    seen = true;
    state_ = State::array;
    return true;
  }

  bool end_array() override {
    state_ = State::entry;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) override {
    fail<WeightsError>(where_, ": malformed JSON at byte ", position,
                       " of its safetensors header; the file is damaged or of another format");
  }

 private:
  enum class State { outside, top, entry, array, metadata, done };

  [[noreturn]] bool unexpected(const std::string& what) const {
    fail<WeightsError>(where_, ": its safetensors header has ", what, " at key ", printable(key_),
                       state_ == State::entry || state_ == State::array
                           ? " of tensor " + printable(entries.back().name)
                           : std::string(),
                       "; the file is damaged or of another format");
  }

  const std::string& where_;
  State state_ = State::outside;
  std::string key_;
  std::set<std::string> names_;
};

class Safetensors final : public MappedTensorFile {
 public:
  explicit Safetensors(std::unique_ptr<FileBytes> file) : MappedTensorFile(std::move(file), "safetensors") {
    const std::uint64_t size = file_->size();
    if (size < 9) fail<WeightsError>(where(), ": ", size, " bytes, too short for weights; ", file_->advice());
    const auto header_bytes = file_->load<std::uint64_t>(0);
    if (header_bytes > kMaxHeaderBytes || header_bytes > size - 8 || header_bytes < 2 ||
        file_->load<char>(8) != '{')
      refuse(header_bytes);
    HeaderReader header(where());
    const std::span<const std::byte> text = file_->contiguous(8, header_bytes);
    const auto* first = reinterpret_cast<const char*>(text.data());
    nlohmann::json::sax_parse(first, first + text.size(), &header);
    metadata_ = std::move(header.metadata);
    add_entries(std::move(header.entries), 8 + header_bytes);
  }

 private:
  [[noreturn]] void refuse(std::uint64_t header_bytes) const {
    std::string head(std::min<std::uint64_t>(file_->size(), 32), '\0');
    file_->copy(0, head.size(), head.data());
    if (head.starts_with("version https://git-lfs")) {
      fail<WeightsError>(where(),
                         ": a Git LFS pointer, not the weights themselves; fetch them with 'git lfs pull'");
    }
    if (head.starts_with("\x80\x02")) {
      fail<WeightsError>(
          where(), ": a .pt in torch's old format without a zip; load it in Python and torch.save it again");
    }
    fail<WeightsError>(where(), ": neither a .pt (no zip signature) nor safetensors (header of ",
                       header_bytes, " bytes in a file of ", file_->size(),
                       "); expected one of the two. If it should be one, ", file_->advice());
  }

  void add_entries(std::vector<Entry> entries, std::uint64_t data_offset) {
    const std::uint64_t available = file_->size() - data_offset;
    // Stable: tensors without elements keep their place in the header.
    std::stable_sort(entries.begin(), entries.end(),
                     [](const Entry& a, const Entry& b) { return a.offsets < b.offsets; });
    std::int64_t end = 0;
    for (Entry& entry : entries) {
      const std::int64_t from = entry.offsets[0], to = entry.offsets[1];
      const auto broken = [&](const auto&... args) {
        fail<WeightsError>(where(), ": tensor ", printable(entry.name), " at bytes ", from, " to ", to, ": ",
                           args..., "; ", file_->advice());
      };
      if (from != end)
        broken(from < end ? "overlaps the tensor before it, which ends at "
                          : "leaves a gap after the tensor before it, which ends at ",
               end);
      if (to < from || static_cast<std::uint64_t>(to) > available)
        broken("leaves the ", available, " bytes of data");
      const std::optional<std::int64_t> num_bytes = checked_num_bytes(entry.shape, *entry.dtype);
      if (!num_bytes || *num_bytes != to - from) {
        broken("does not fit ", name_of(*entry.dtype), ' ', shape_text(entry.shape),
               num_bytes ? concat(", which needs ", *num_bytes, " bytes") : "");
      }
      end = to;
      add({std::move(entry.name), *entry.dtype, std::move(entry.shape)},
          data_offset + static_cast<std::uint64_t>(from), OpaqueEntry::Kind::byte_stream);
    }
    if (static_cast<std::uint64_t>(end) != available) {
      fail<WeightsError>(where(), ": its tensors end at byte ", end, " of ", available, " bytes of data; ",
                         file_->advice());
    }
  }
};

}  // namespace

std::shared_ptr<TensorFile> read_safetensors(std::unique_ptr<FileBytes> file) {
  return std::make_shared<Safetensors>(std::move(file));
}

}  // namespace focus::formats
