#include "fill.h"

#include <cstring>
#include <map>
#include <vector>

#include "focus/core/error.h"
#include "focus/core/system_memory.h"
#include "focus/core/text.h"
#include "focus/weights/tensor_view.h"
#include "staged_copy.h"

namespace focus::weights {

using formats::TensorFile;
using formats::TensorView;

namespace {

using at::Tensor;

/// A tensor over the file's mapping, which it keeps alive.
Tensor shared_tensor(const TensorView& view, const std::shared_ptr<TensorFile>& file) {
  if (!view.is_aligned()) {  // in a part of a file that was cut at an odd place
    Tensor copy = at::empty(view.shape, at::TensorOptions().dtype(scalar_type(view.dtype)));
    std::memcpy(copy.mutable_data_ptr(), view.data, static_cast<std::size_t>(view.num_bytes()));
    return copy;
  }
  return at::from_blob(
      const_cast<std::byte*>(view.data), view.shape, [file](void*) {},
      at::TensorOptions().dtype(scalar_type(view.dtype)));
}

/// On the CPU in huge pages where the system has them: a decoded base reads each weight once, and with small
/// pages every 4 KiB of that is another address to look up.
Tensor own_copy(const Tensor& source) {
  Tensor copy = at::empty(source.sizes(), source.options());
  if (copy.is_cpu()) prefer_huge_pages(copy.mutable_data_ptr(), copy.nbytes());
  return copy.copy_(source);
}

}  // namespace

std::map<std::string, Tensor> named_tensors(const model::Backbone& model) {
  std::map<std::string, Tensor> out;
  for (const auto& item : model.named_parameters()) out.emplace(item.key(), item.value());
  for (const auto& item : model.named_buffers()) out.emplace(item.key(), item.value());
  return out;
}

LoadReport fill(model::Backbone& model, const std::shared_ptr<TensorFile>& file, const LoadOptions& options,
                const Filling& rules) {
  const at::NoGradGuard guard;
  LoadReport report;
  std::map<std::string, Tensor> wanted = named_tensors(model);
  if (rules.computed) std::erase_if(wanted, [&](const auto& item) { return rules.computed(item.first); });
  std::vector<std::pair<const TensorView*, std::pair<std::string, Tensor>>> matches;
  std::vector<std::string> unexpected, misshapen, missing;
  for (const TensorView& view : file->tensors()) {
    const auto found = wanted.find(view.name);
    if (found == wanted.end()) {
      (rules.computes_nothing(view.name) ? report.ignored : unexpected).push_back(view.name);
      continue;
    }
    if (found->second.sizes() != at::IntArrayRef(view.shape)) {
      misshapen.push_back(
          concat(view.name, ": file ", at::IntArrayRef(view.shape), ", config ", found->second.sizes()));
    } else if (!at::isFloatingType(scalar_type(view.dtype)) || size_of(view.dtype) < 2) {
      misshapen.push_back(concat(view.name, ": ", name_of(view.dtype), ", expected F32, BF16, F16 or F64"));
    } else {
      matches.emplace_back(&view, *found);
    }
    wanted.erase(found);
  }
  for (const auto& item : wanted) missing.push_back(item.first);
  for (const auto& name : file->opaque_entries())
    (rules.computes_nothing(name) ? report.ignored : unexpected).push_back(name);
  if (!missing.empty() || !unexpected.empty() || !misshapen.empty()) {
    std::string message = concat("the checkpoint does not fit model config '", model.shape().name, "'");
    append_list(message, "missing from the file", missing);
    append_list(message, "unexpected in the file", unexpected);
    append_list(message, "wrong shape or type", misshapen);
    throw WeightsError(message + "\n  use the config that belongs to this checkpoint");
  }
  const auto parameters = model.named_parameters();
  const std::vector<at::Device> devices =
      options.placement ? options.placement(model)
                        : std::vector<at::Device>(static_cast<std::size_t>(model.num_blocks()), at::kCPU);
  const std::map<const c10::TensorImpl*, at::Device> places = model.places(devices);
  StagedCopy staged;
  for (auto& [view, target] : matches) {
    auto& [name, tensor] = target;
    const at::Device place = places.at(tensor.unsafeGetTensorImpl());
    // A card gets the file's own numbers and rounds them itself.
    const Tensor source = place.is_cpu() ? shared_tensor(*view, file) : staged.on(place, *view);
    const auto dtype =
        parameters.contains(name) ? model.dtype_of_parameter(name, options.dtype) : tensor.scalar_type();
    Tensor value = (rules.rounded ? rules.rounded(name, source) : source).to(dtype);
    if (options.writable && (place.is_cpu() || value.is_alias_of(source))) value = own_copy(value);
    tensor.set_data(value);
  }
  if (options.placement) model.place(devices);  // what the file does not hold
  return report;
}

}  // namespace focus::weights
