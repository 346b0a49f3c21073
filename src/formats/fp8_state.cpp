#include "focus/formats/fp8_state.h"

#include <algorithm>
#include <cmath>
#include <string_view>

#include "focus/core/error.h"
#include "mapped_tensor_file.h"
#include "printable.h"
#include "torch_zip.h"

namespace focus::formats {
namespace {

using Kind = PickleNode::Kind;

class Fp8Reader {
 public:
  Fp8Reader(std::span<const std::byte> content, const std::string& where)
      : file_({content}, where,
              "save the module's state again, or drop the entry if the model does not use FP8") {}

  std::optional<Fp8State> read(std::string& why_not) {
    const TorchZip zip(file_, PickleMode::passive);
    const PickleNode& root = zip.pickle()[zip.pickle().root];
    if (root.kind == Kind::none) {
      why_not = "the entry holds None";
      return std::nullopt;
    }
    if (root.kind != Kind::dict)
      fail<WeightsError>(file_.where(), ": it holds a ", name_of(root.kind), ", expected a dict or None");
    const PickleNode* scale = value_of(zip.pickle(), root, "scale_fwd");
    if (scale == nullptr || scale->kind == Kind::none) {
      why_not = concat("the entry has no scale_fwd among its ", root.items.size() / 2, " values");
      return std::nullopt;
    }
    Fp8State state;
    std::vector<std::int64_t> shape;
    state.scale_fwd = floats(zip, "scale_fwd", *scale, shape);
    if (shape.size() != 1 || shape[0] == 0)
      fail<WeightsError>(file_.where(), ": scale_fwd has the shape ", shape_text(shape),
                         ", expected [scales] with one or more");
    for (std::size_t i = 0; i < state.scale_fwd.size(); ++i) {
      if (!std::isfinite(state.scale_fwd[i]) || state.scale_fwd[i] <= 0)
        fail<WeightsError>(file_.where(), ": scale_fwd[", i, "] is ", state.scale_fwd[i],
                           ", expected a finite positive number; ", file_.advice());
    }
    if (const PickleNode* history = value_of(zip.pickle(), root, "amax_history_fwd");
        history != nullptr && history->kind != Kind::none) {
      state.amax_history_fwd = floats(zip, "amax_history_fwd", *history, shape);
      if (shape.size() != 2 || shape[1] != static_cast<std::int64_t>(state.scale_fwd.size())) {
        fail<WeightsError>(file_.where(), ": amax_history_fwd has the shape ", shape_text(shape),
                           ", expected [steps, ", state.scale_fwd.size(), "]");
      }
      state.amax_history_length = static_cast<std::size_t>(shape[0]);
    }
    return state;
  }

 private:
  const PickleNode* value_of(const Pickle& pickle, const PickleNode& dict, std::string_view key) const {
    const PickleNode* found = nullptr;
    for (std::size_t i = 0; i < dict.items.size(); i += 2) {
      if (pickle[dict.items[i]].kind != Kind::text || pickle[dict.items[i]].text != key) continue;
      if (found != nullptr) fail<WeightsError>(file_.where(), ": it holds ", key, " twice");
      found = &pickle[dict.items[i + 1]];
    }
    return found;
  }

  std::vector<float> floats(const TorchZip& zip, const std::string& name, const PickleNode& node,
                            std::vector<std::int64_t>& shape) const {
    if (node.kind != Kind::tensor || node.dtype != DType::float32) {
      fail<WeightsError>(file_.where(), ": ", name, " is a ",
                         node.kind == Kind::tensor ? name_of(node.dtype) : name_of(node.kind),
                         node.kind == Kind::tensor ? " tensor" : "", ", expected a tensor of F32");
    }
    const PlacedTensor placed = zip.place(name, node);
    shape = placed.view.shape;
    if (static_cast<std::uint64_t>(placed.view.num_bytes()) > file_.size()) {
      fail<WeightsError>(file_.where(), ": ", name, " would have ", placed.view.num_elements(),
                         " values, more than an entry of ", file_.size(), " bytes can hold");
    }
    std::vector<float> values(static_cast<std::size_t>(placed.view.num_elements()));
    zip.gather(placed, reinterpret_cast<std::byte*>(values.data()));
    return values;
  }

  FileBytes file_;
};

}  // namespace

std::optional<Fp8State> read_fp8_state(std::span<const std::byte> content, const std::string& where,
                                       std::string& why_not) {
  if (content.empty()) {
    why_not = "the entry is empty";
    return std::nullopt;
  }
  const std::string_view text(reinterpret_cast<const char*>(content.data()), content.size());
  if (!text.starts_with("PK")) {
    fail<WeightsError>(where, ": ", content.size(), " bytes that begin with ", printable(text.substr(0, 4)),
                       ", expected a torch.save zip, as Transformer Engine 1 writes; save the checkpoint's "
                       "extra state with torch.save");
  }
  return Fp8Reader(content, where).read(why_not);
}

}  // namespace focus::formats
