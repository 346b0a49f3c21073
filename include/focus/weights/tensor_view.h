// Between tensors and what files of tensors hold.
#pragma once

#include <ATen/ATen.h>

#include <string>

#include "focus/formats/tensor_file.h"

namespace focus::weights {

at::ScalarType scalar_type(formats::DType dtype);
/// InternalError where no file holds such numbers.
formats::DType dtype_of(at::ScalarType type);
/// A tensor over the file's memory, without a copy; the file must outlive it.
at::Tensor as_tensor(const formats::TensorView& view);
/// A view of a contiguous CPU tensor, which must outlive it.
formats::TensorView as_view(const std::string& name, const at::Tensor& tensor);

}  // namespace focus::weights
