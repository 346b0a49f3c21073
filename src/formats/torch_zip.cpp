#include "torch_zip.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "focus/core/error.h"
#include "mapped_tensor_file.h"
#include "printable.h"

namespace focus::formats {
namespace {

constexpr std::string_view kPickleSuffix = "/data.pkl";

bool is_contiguous(const std::vector<std::int64_t>& shape, const std::vector<std::int64_t>& strides) {
  std::int64_t expected = 1;
  for (std::size_t i = shape.size(); i-- > 0;) {
    if (shape[i] != 1 && strides[i] != expected) return false;
    expected *= shape[i];
  }
  return true;
}

/// Index of the last element that the strides reach, relative to the first; nothing where it leaves 64 bits
/// or a stride is negative.
std::optional<std::int64_t> reach(const std::vector<std::int64_t>& shape,
                                  const std::vector<std::int64_t>& strides) {
  std::int64_t last = 0;
  for (std::size_t i = 0; i < shape.size(); ++i) {
    std::int64_t step = 0;
    if (strides[i] < 0 || __builtin_mul_overflow(shape[i] - 1, strides[i], &step) ||
        __builtin_add_overflow(last, step, &last)) {
      return std::nullopt;
    }
  }
  return last;
}

}  // namespace

TorchZip::TorchZip(FileBytes& file, PickleMode mode) : file_(file) {
  file_.advise_all(Access::random);
  find_folder(ZipDirectory(file));
  file_.advise_all(Access::in_order);
  const ZipRecord pickle = record("data.pkl").value();
  if (const auto order = record("byteorder")) {
    std::string text(std::min<std::uint64_t>(order->num_bytes, 64), '\0');
    file_.copy(order->offset, text.size(), text.data());
    if (text != "little" || order->num_bytes != text.size()) {
      fail<WeightsError>(file_.where(), ": its byte order is ", printable(text),
                         ", expected 'little'; save it again on a little-endian machine");
    }
  }
  pickle_ =
      read_pickle(file_.contiguous(pickle.offset, pickle.num_bytes), mode, file_.where(), file_.advice());
}

void TorchZip::find_folder(const ZipDirectory& zip) {
  std::optional<std::string_view> folder;
  for (const auto& [name, record] : zip.records()) {
    if (!name.ends_with(kPickleSuffix)) continue;
    if (folder)
      fail<WeightsError>(file_.where(), ": more than one data.pkl: ", printable(*folder), " and ",
                         printable(name));
    folder = name.substr(0, name.size() - kPickleSuffix.size());
  }
  if (!folder) {
    fail<WeightsError>(file_.where(),
                       ": a zip without a NAME/data.pkl, so not a file that torch.save wrote; expected an "
                       "Evo-2 .pt or a safetensors file");
  }
  const std::string prefix = concat(*folder, "/");
  for (const auto& [name, record] : zip.records()) {
    if (name.starts_with(prefix)) records_.emplace(name.substr(prefix.size()), record);
  }
}

std::optional<ZipRecord> TorchZip::record(const std::string& name) const {
  const auto found = records_.find(name);
  if (found == records_.end()) return std::nullopt;
  return found->second;
}

std::vector<std::int64_t> TorchZip::integers(PickleNode::Ref tuple) const {
  std::vector<std::int64_t> values;
  for (const PickleNode::Ref item : pickle_[tuple].items) values.push_back(pickle_[item].integer);
  return values;
}

PlacedTensor TorchZip::place(const std::string& name, const PickleNode& node) const {
  const auto broken = [&](const auto&... args) {
    fail<WeightsError>(file_.where(), ": tensor ", printable(name), ": ", args..., "; ", file_.advice());
  };
  const PickleNode& storage = pickle_[node.items[0]];
  PlacedTensor placed{{name, node.dtype, integers(node.items[1])}, integers(node.items[2])};
  const std::vector<std::int64_t>& shape = placed.view.shape;

  const std::optional<ZipRecord> bytes = record("data/" + std::string(storage.text));
  if (!bytes) broken("its storage ", printable(storage.text), " is not in the file");
  const auto available = static_cast<std::int64_t>(bytes->num_bytes);
  const std::int64_t unit_bytes = size_of(storage.dtype), element_bytes = size_of(node.dtype);
  if (storage.integer != available / unit_bytes || available % unit_bytes != 0) {
    broken("storage ", printable(storage.text), " has ", available, " bytes, expected ", storage.integer,
           " elements of ", unit_bytes, " bytes");
  }
  const std::int64_t num_elements = available / element_bytes;
  const std::optional<std::int64_t> num_bytes = checked_num_bytes(shape, node.dtype);
  if (!num_bytes || placed.strides.size() != shape.size()) {
    broken("impossible shape ", shape_text(shape), " with strides ", shape_text(placed.strides));
  }
  if (node.integer < 0 || node.integer > num_elements)
    broken("offset ", node.integer, " in a storage of ", num_elements, " elements");
  placed.offset = bytes->offset + static_cast<std::uint64_t>(node.integer * element_bytes);
  if (*num_bytes == 0) return placed;

  const std::optional<std::int64_t> last = reach(shape, placed.strides);
  if (!last || *last >= num_elements - node.integer) {
    broken("shape ", shape_text(shape), " with strides ", shape_text(placed.strides), " at offset ",
           node.integer, " leaves its storage of ", num_elements, " elements");
  }
  placed.contiguous = is_contiguous(shape, placed.strides);
  return placed;
}

void TorchZip::gather(const PlacedTensor& tensor, std::byte* to) const {
  if (tensor.view.num_bytes() == 0) return;
  const std::vector<std::int64_t>& shape = tensor.view.shape;
  const auto element_bytes = static_cast<std::uint64_t>(size_of(tensor.view.dtype));
  std::vector<std::int64_t> index(shape.size(), 0);
  std::int64_t at = 0;
  const std::int64_t last = reach(shape, tensor.strides).value();
  const std::byte* from =
      file_.in_place(tensor.offset, (static_cast<std::uint64_t>(last) + 1) * element_bytes);
  while (true) {
    if (from != nullptr) {
      std::memcpy(to, from + static_cast<std::uint64_t>(at) * element_bytes, element_bytes);
    } else {
      file_.copy(tensor.offset + static_cast<std::uint64_t>(at) * element_bytes, element_bytes, to);
    }
    to += element_bytes;
    std::size_t axis = shape.size();
    while (axis-- > 0) {
      if (shape[axis] == 1)
        continue;  // the stride of such an axis may be anything, too large to add included
      at += tensor.strides[axis];
      if (++index[axis] < shape[axis]) break;
      at -= tensor.strides[axis] * shape[axis];
      index[axis] = 0;
    }
    if (axis == static_cast<std::size_t>(-1)) return;
  }
}

}  // namespace focus::formats
