// Evo-2's .pt: a torch.save zip that holds a dict of tensors.
#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <utility>

#include "focus/core/error.h"
#include "mapped_tensor_file.h"
#include "printable.h"
#include "torch_zip.h"

namespace focus::formats {
namespace {

using Kind = PickleNode::Kind;

constexpr std::array<std::string_view, 4> kUsualKeys = {"state_dict", "model", "module", "model_state_dict"};
constexpr int kMaxNesting = 4;

class TorchArchive final : public MappedTensorFile {
 public:
  explicit TorchArchive(std::unique_ptr<FileBytes> file) : MappedTensorFile(std::move(file), "pt") {
    const TorchZip zip(*file_, PickleMode::strict);
    read_state_dict(zip, state_dict(zip.pickle()));
  }

 private:
  const PickleNode& state_dict(const Pickle& pickle) const {
    const PickleNode* dict = &pickle[pickle.root];
    for (int level = 0; level < kMaxNesting; ++level) {
      if (dict->kind != Kind::dict)
        fail<WeightsError>(where(), ": it holds a ", name_of(dict->kind), ", expected a dict of tensors");
      const PickleNode* inner = nested(pickle, *dict);
      if (inner == nullptr) return *dict;
      dict = inner;
    }
    fail<WeightsError>(where(), ": its tensors lie more than ", kMaxNesting - 1,
                       " dicts deep; save the state dict itself");
  }

  static bool is_usual(const PickleNode& key) {
    return key.kind == Kind::text &&
           std::find(kUsualKeys.begin(), kUsualKeys.end(), key.text) != kUsualKeys.end();
  }

  /// The one dict to descend into, or nullptr when `dict` holds the tensors itself.
  const PickleNode* nested(const Pickle& pickle, const PickleNode& dict) const {
    const PickleNode* inner = nullptr;
    for (std::size_t i = 0; i < dict.items.size(); i += 2) {
      const PickleNode& key = pickle[dict.items[i]];
      const PickleNode& value = pickle[dict.items[i + 1]];
      if (value.kind == Kind::tensor) return nullptr;
      if (value.kind != Kind::dict || !(is_usual(key) || dict.items.size() == 2)) continue;
      if (inner != nullptr) {
        fail<WeightsError>(where(), ": several of its entries could be the state dict, ", printable(key.text),
                           " among them; save the one to load");
      }
      inner = &value;
    }
    return inner;
  }

  /// `prefix` stands before the names: of a state dict that lies beside other tensors, its key and a dot.
  void read_state_dict(const TorchZip& zip, const PickleNode& dict, const std::string& prefix = "") {
    const Pickle& pickle = zip.pickle();
    std::set<std::string_view> names;
    for (std::size_t i = 0; i < dict.items.size(); i += 2) {
      const PickleNode& key = pickle[dict.items[i]];
      const PickleNode& value = pickle[dict.items[i + 1]];
      if (key.kind != Kind::text)
        fail<WeightsError>(where(), ": an entry is named by a ", name_of(key.kind), ", expected a str");
      if (!names.insert(key.text).second)
        fail<WeightsError>(where(), ": two entries are called ", printable(key.text));
      const std::string name = prefix + std::string(key.text);
      switch (value.kind) {
        case Kind::tensor:
          read_tensor(zip, name, value);
          break;
        case Kind::byte_stream:
          add_opaque({name, OpaqueEntry::Kind::byte_stream,
                      content_of(value.items.empty() ? PickleNode() : pickle[value.items[0]], name)},
                     where());
          break;
        case Kind::bytes:
          add_opaque({name, OpaqueEntry::Kind::bytes, content_of(value, name)}, where());
          break;
        case Kind::none:
          add_opaque({name, OpaqueEntry::Kind::none, {}}, where());
          break;
        case Kind::boolean:
        case Kind::integer:
        case Kind::real:
        case Kind::text:
          add_opaque({name, OpaqueEntry::Kind::other, {}}, where());
          break;
        case Kind::dict:
          if (prefix.empty() && is_usual(key)) {
            read_state_dict(zip, value, name + ".");
            break;
          }
          [[fallthrough]];
        case Kind::list:
        case Kind::tuple:
        case Kind::storage:
        case Kind::global:
        case Kind::object:
          // These could hide tensors, which would then be missing without a word.
          fail<WeightsError>(where(), ": entry ", printable(key.text), " is a ", name_of(value.kind),
                             ", expected a tensor; save only the state dict");
      }
    }
  }

  void read_tensor(const TorchZip& zip, const std::string& name, const PickleNode& node) {
    PlacedTensor placed = zip.place(name, node);
    if (placed.contiguous) return add(std::move(placed.view), placed.offset, OpaqueEntry::Kind::byte_tensor);
    std::byte* copy = allocate(placed.view.num_bytes(), name);
    zip.gather(placed, copy);
    placed.view.data = copy;
    add_copied(std::move(placed.view), OpaqueEntry::Kind::byte_tensor);
  }

  /// The bytes of a BytesIO. The pickle spells them as text, one character for each byte, so those beyond
  /// ASCII take two.
  std::span<const std::byte> content_of(const PickleNode& bytes, const std::string& name) {
    const std::span<const std::byte> raw(reinterpret_cast<const std::byte*>(bytes.text.data()),
                                         bytes.text.size());
    const auto is_wide = [](char c) { return static_cast<unsigned char>(c) >= 0x80; };
    if (!bytes.latin1 || std::none_of(bytes.text.begin(), bytes.text.end(), is_wide)) return raw;
    // Many entries may share one text; it is decoded once.
    const auto [known, added] = decoded_.try_emplace(bytes.text.data());
    if (!added) return known->second;
    const std::optional<std::string> plain = latin1_of(bytes.text);
    if (!plain)
      fail<WeightsError>(where(), ": the bytes of entry ", printable(name),
                         " hold a character beyond U+00FF; ", file_->advice());
    std::byte* copy = allocate(static_cast<std::int64_t>(plain->size()), name);
    std::copy_n(reinterpret_cast<const std::byte*>(plain->data()), plain->size(), copy);
    return known->second = {copy, plain->size()};
  }

  std::map<const char*, std::span<const std::byte>> decoded_;
};

}  // namespace

std::shared_ptr<TensorFile> read_torch_archive(std::unique_ptr<FileBytes> file) {
  return std::make_shared<TorchArchive>(std::move(file));
}

}  // namespace focus::formats
