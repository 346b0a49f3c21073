#include "rounded_tensors.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <tuple>

#include "focus/core/error.h"
#include "focus/weights/model_shape.h"
#include "focus/weights/tensor_view.h"

namespace focus::tools {
namespace {

using formats::DType;
using formats::TensorView;

constexpr int64_t kChunkElements = int64_t{2} << 20;
constexpr int64_t kAlignment = 64;

bool is_plain_float(DType dtype) {
  return dtype == DType::float64 || dtype == DType::float32 || dtype == DType::float16 ||
         dtype == DType::bfloat16;
}

}  // namespace

DType rounded_dtype(const TensorView& tensor, std::optional<DType> wanted) {
  if (!wanted || !is_plain_float(tensor.dtype)) return tensor.dtype;
  if (weights::keeps_fp32(tensor.name) && formats::size_of(*wanted) < formats::size_of(DType::float32))
    return tensor.dtype;
  return *wanted;
}

void for_each_rounded_chunk(const TensorView& tensor, DType dtype,
                            const std::function<void(const std::byte*, std::size_t)>& take) {
  const int64_t from_size = formats::size_of(tensor.dtype), count = tensor.num_elements();
  for (int64_t begin = 0; begin < count; begin += kChunkElements) {
    const int64_t size = std::min(kChunkElements, count - begin);
    const std::byte* bytes = tensor.data + begin * from_size;
    if (dtype == tensor.dtype) {
      take(bytes, static_cast<std::size_t>(size * from_size));
      continue;
    }
    // A copy first: in a checkpoint of several parts a tensor may lie at any byte.
    const at::Tensor source =
        at::empty({size}, at::TensorOptions().dtype(weights::scalar_type(tensor.dtype)));
    std::memcpy(source.mutable_data_ptr(), bytes, static_cast<std::size_t>(size * from_size));
    const at::Tensor rounded = source.to(weights::scalar_type(dtype));
    take(static_cast<const std::byte*>(rounded.const_data_ptr()), static_cast<std::size_t>(rounded.nbytes()));
  }
}

RoundedTensors::RoundedTensors(const std::vector<TensorView>& tensors, std::optional<DType> wanted,
                               const std::filesystem::path& scratch, const WriteProgress& progress)
    : tensors_(tensors) {
  // Tensors that share their bytes, as a tied unembedding does, still share them afterwards.
  std::map<std::tuple<const std::byte*, DType, int64_t>, int64_t> known;
  std::vector<std::pair<std::size_t, int64_t>> placed;  // tensor, offset in the file
  AtomicFile file(scratch, progress);
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const TensorView& tensor = tensors[i];
    const DType dtype = rounded_dtype(tensor, wanted);
    if (dtype == tensor.dtype) continue;
    const auto [found, is_first] =
        known.emplace(std::tuple(tensor.data, tensor.dtype, tensor.num_elements()), file.size());
    placed.emplace_back(i, found->second);
    tensors_[i].dtype = dtype;
    if (!is_first) continue;
    for_each_rounded_chunk(
        tensor, dtype, [&](const std::byte* bytes, std::size_t num_bytes) { file.write(bytes, num_bytes); });
    const std::string padding(static_cast<std::size_t>((kAlignment - file.size() % kAlignment) % kAlignment),
                              '\0');
    file.write(padding);
  }
  if (placed.empty()) return;
  file.close();
  values_.emplace(file.temporary());
  for (const auto& [i, offset] : placed) tensors_[i].data = values_->data() + offset;
  // The file was never committed, so its name goes now; the mapping keeps its bytes.
}

}  // namespace focus::tools
