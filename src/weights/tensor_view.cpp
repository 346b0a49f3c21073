#include "focus/weights/tensor_view.h"

#include <utility>

#include "focus/core/error.h"

namespace focus::weights {

using at::Tensor;
using formats::DType;
using formats::TensorView;

namespace {

constexpr std::pair<DType, at::ScalarType> kTypes[] = {
    {DType::float32, at::kFloat},
    {DType::bfloat16, at::kBFloat16},
    {DType::float16, at::kHalf},
    {DType::float64, at::kDouble},
    {DType::int64, at::kLong},
    {DType::int32, at::kInt},
    {DType::int16, at::kShort},
    {DType::int8, at::kChar},
    {DType::uint8, at::kByte},
    {DType::boolean, at::kBool},
    {DType::float8_e4m3, at::kFloat8_e4m3fn},
    {DType::float8_e5m2, at::kFloat8_e5m2},
};

}  // namespace

at::ScalarType scalar_type(DType dtype) {
  for (const auto& [file_type, tensor_type] : kTypes) {
    if (file_type == dtype) return tensor_type;
  }
  fail<InternalError>("no tensor type for ", formats::name_of(dtype));
}

DType dtype_of(at::ScalarType type) {
  for (const auto& [file_type, tensor_type] : kTypes) {
    if (tensor_type == type) return file_type;
  }
  fail<InternalError>("files of tensors hold no numbers of type ", at::toString(type));
}

Tensor as_tensor(const TensorView& view) {
  return at::from_blob(const_cast<std::byte*>(view.data), view.shape,
                       at::TensorOptions().dtype(scalar_type(view.dtype)));
}

TensorView as_view(const std::string& name, const Tensor& tensor) {
  FOCUS_CHECK(tensor.is_cpu() && tensor.is_contiguous(), "tensor ", name, " must be contiguous on the CPU");
  return {name, dtype_of(tensor.scalar_type()), tensor.sizes().vec(),
          static_cast<const std::byte*>(tensor.const_data_ptr())};
}

}  // namespace focus::weights
