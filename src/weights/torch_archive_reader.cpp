// Evo-2's .pt: FOLDER/data.pkl holds a dict of tensors, FOLDER/data/KEY the bytes of each storage. The folder's name is arbitrary.
#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "focus/core/error.h"
#include "mapped_tensor_file.h"
#include "pickle_reader.h"
#include "printable.h"
#include "zip_directory.h"

namespace focus::weights {
namespace {

using Kind = PickleNode::Kind;
using Ref = PickleNode::Ref;

constexpr std::string_view kPickleSuffix = "/data.pkl";
constexpr std::array<std::string_view, 4> kUsualKeys = {"state_dict", "model", "module", "model_state_dict"};
constexpr int kMaxNesting = 4;

std::string_view as_text(std::span<const std::byte> bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

bool is_contiguous(const std::vector<std::int64_t>& shape, const std::vector<std::int64_t>& strides) {
  std::int64_t expected = 1;
  for (std::size_t i = shape.size(); i-- > 0;) {
    if (shape[i] != 1 && strides[i] != expected) return false;
    expected *= shape[i];
  }
  return true;
}

/// Index of the last element that the strides reach, relative to the first; nothing where it leaves 64 bits or a stride is negative.
std::optional<std::int64_t> reach(const std::vector<std::int64_t>& shape, const std::vector<std::int64_t>& strides) {
  std::int64_t last = 0;
  for (std::size_t i = 0; i < shape.size(); ++i) {
    std::int64_t step = 0;
    if (strides[i] < 0 || __builtin_mul_overflow(shape[i] - 1, strides[i], &step) || __builtin_add_overflow(last, step, &last)) {
      return std::nullopt;
    }
  }
  return last;
}

/// Row-major copy of a strided tensor with at least one element; the caller has checked that every index lies in the storage.
void gather(const std::byte* from, const std::vector<std::int64_t>& shape, const std::vector<std::int64_t>& strides, std::int64_t element_bytes,
            std::byte* to) {
  std::vector<std::int64_t> index(shape.size(), 0);
  std::int64_t at = 0;
  while (true) {
    std::memcpy(to, from + at * element_bytes, static_cast<std::size_t>(element_bytes));
    to += element_bytes;
    std::size_t axis = shape.size();
    while (axis-- > 0) {
      if (shape[axis] == 1) continue;  // the stride of such an axis may be anything, too large to add included
      at += strides[axis];
      if (++index[axis] < shape[axis]) break;
      at -= strides[axis] * shape[axis];
      index[axis] = 0;
    }
    if (axis == static_cast<std::size_t>(-1)) return;
  }
}

class TorchArchive final : public MappedTensorFile {
 public:
  explicit TorchArchive(std::unique_ptr<FileBytes> file) : MappedTensorFile(std::move(file), "pt"), zip_(*file_) {
    const std::span<const std::byte> pickle_bytes = find_pickle();
    if (const auto* order = record("/byteorder"); order != nullptr && as_text(*order) != "little") {
      fail<WeightsError>(where(), ": its byte order is ", printable(as_text(*order)), ", expected 'little'; save it again on a little-endian machine");
    }
    pickle_ = read_pickle(pickle_bytes, where(), file_->advice());
    read_state_dict(state_dict());
    pickle_ = {};
  }

 private:
  std::span<const std::byte> find_pickle() {
    const std::span<const std::byte>* found = nullptr;
    for (const auto& [name, bytes] : zip_.records()) {
      if (!name.ends_with(kPickleSuffix)) continue;
      if (found != nullptr) fail<WeightsError>(where(), ": more than one data.pkl: ", printable(folder_), " and ", printable(name));
      found = &bytes;
      folder_ = name.substr(0, name.size() - kPickleSuffix.size());
    }
    if (found == nullptr) {
      fail<WeightsError>(where(), ": a zip without a NAME/data.pkl, so not a file that torch.save wrote; expected an Evo-2 .pt or a safetensors file");
    }
    return *found;
  }

  const std::span<const std::byte>* record(std::string_view suffix) const {
    const auto found = zip_.records().find(folder_ + std::string(suffix));
    return found == zip_.records().end() ? nullptr : &found->second;
  }

  const PickleNode& state_dict() const {
    const PickleNode* dict = &pickle_[pickle_.root];
    for (int level = 0; level < kMaxNesting; ++level) {
      if (dict->kind != Kind::dict) fail<WeightsError>(where(), ": it holds a ", name_of(dict->kind), ", expected a dict of tensors");
      const PickleNode* inner = nested(*dict);
      if (inner == nullptr) return *dict;
      dict = inner;
    }
    fail<WeightsError>(where(), ": its tensors lie more than ", kMaxNesting - 1, " dicts deep; save the state dict itself");
  }

  /// The one dict to descend into, or nullptr when `dict` holds the tensors itself.
  const PickleNode* nested(const PickleNode& dict) const {
    const PickleNode* inner = nullptr;
    for (std::size_t i = 0; i < dict.items.size(); i += 2) {
      const PickleNode& key = pickle_[dict.items[i]];
      const PickleNode& value = pickle_[dict.items[i + 1]];
      if (value.kind == Kind::tensor) return nullptr;
      const bool usual = key.kind == Kind::text && std::find(kUsualKeys.begin(), kUsualKeys.end(), key.text) != kUsualKeys.end();
      if (value.kind != Kind::dict || !(usual || dict.items.size() == 2)) continue;
      if (inner != nullptr) {
        fail<WeightsError>(where(), ": several of its entries could be the state dict, ", printable(key.text), " among them; save the one to load");
      }
      inner = &value;
    }
    return inner;
  }

  void read_state_dict(const PickleNode& dict) {
    std::map<std::string_view, bool> names;
    for (std::size_t i = 0; i < dict.items.size(); i += 2) {
      const PickleNode& key = pickle_[dict.items[i]];
      const PickleNode& value = pickle_[dict.items[i + 1]];
      if (key.kind != Kind::text) fail<WeightsError>(where(), ": an entry is named by a ", name_of(key.kind), ", expected a str");
      if (!names.emplace(key.text, true).second) fail<WeightsError>(where(), ": two entries are called ", printable(key.text));
      switch (value.kind) {
        case Kind::tensor:
          add_tensor(std::string(key.text), value);
          break;
        case Kind::dict:
        case Kind::list:
        case Kind::tuple:
        case Kind::storage:
        case Kind::global:
          // These could hide tensors, which would then be missing without a word.
          fail<WeightsError>(where(), ": entry ", printable(key.text), " is a ", name_of(value.kind), ", expected a tensor; save only the state dict");
        default:
          opaque_.emplace_back(key.text);
      }
    }
  }

  std::vector<std::int64_t> integers(Ref tuple) const {
    std::vector<std::int64_t> values;
    for (const Ref item : pickle_[tuple].items) values.push_back(pickle_[item].integer);
    return values;
  }

  void add_tensor(std::string name, const PickleNode& node) {
    const auto broken = [&](const auto&... args) {
      fail<WeightsError>(where(), ": tensor ", printable(name), ": ", args..., "; ", file_->advice());
    };
    const PickleNode& storage = pickle_[node.items[0]];
    TensorView tensor{std::move(name), storage.dtype, integers(node.items[1]), nullptr};
    name = tensor.name;
    const std::vector<std::int64_t> strides = integers(node.items[2]);
    const std::int64_t element_bytes = size_of(tensor.dtype);

    const std::span<const std::byte>* bytes = record("/data/" + std::string(storage.text));
    if (bytes == nullptr) broken("its storage ", printable(storage.text), " is not in the file");
    const auto available = static_cast<std::int64_t>(bytes->size());
    if (storage.integer != available / element_bytes || available % element_bytes != 0) {
      broken("storage ", printable(storage.text), " has ", available, " bytes, expected ", storage.integer, " elements of ", element_bytes, " bytes");
    }
    const std::optional<std::int64_t> num_bytes = checked_num_bytes(tensor.shape, tensor.dtype);
    if (!num_bytes || strides.size() != tensor.shape.size()) {
      broken("impossible shape ", shape_text(tensor.shape), " with strides ", shape_text(strides));
    }
    if (node.integer < 0 || node.integer > storage.integer) broken("offset ", node.integer, " in a storage of ", storage.integer, " elements");
    tensor.data = bytes->data() + node.integer * element_bytes;
    if (*num_bytes == 0) return add(std::move(tensor));

    const std::optional<std::int64_t> last = reach(tensor.shape, strides);
    if (!last || *last >= storage.integer - node.integer) {
      broken("shape ", shape_text(tensor.shape), " with strides ", shape_text(strides), " at offset ", node.integer, " leaves its storage of ",
             storage.integer, " elements");
    }
    if (!is_contiguous(tensor.shape, strides)) {
      std::byte* copy = allocate(*num_bytes, name);
      gather(tensor.data, tensor.shape, strides, element_bytes, copy);
      tensor.data = copy;
    }
    add(std::move(tensor));
  }

  ZipDirectory zip_;
  std::string folder_;
  Pickle pickle_;
};

}  // namespace

std::shared_ptr<TensorFile> read_torch_archive(std::unique_ptr<FileBytes> file) { return std::make_shared<TorchArchive>(std::move(file)); }

}  // namespace focus::weights
