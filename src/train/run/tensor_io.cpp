#include "run/tensor_io.h"

#include <array>
#include <cstring>
#include <utility>
#include <vector>

#include "focus/core/error.h"
#include "focus/formats/safetensors_writer.h"
#include "focus/formats/tensor_file.h"

namespace focus::train {
namespace {

using formats::DType;

constexpr std::array<std::pair<DType, at::ScalarType>, 10> kDTypes = {{{DType::float32, at::kFloat},
                                                                       {DType::bfloat16, at::kBFloat16},
                                                                       {DType::float16, at::kHalf},
                                                                       {DType::float64, at::kDouble},
                                                                       {DType::int64, at::kLong},
                                                                       {DType::int32, at::kInt},
                                                                       {DType::int16, at::kShort},
                                                                       {DType::int8, at::kChar},
                                                                       {DType::uint8, at::kByte},
                                                                       {DType::boolean, at::kBool}}};

DType to_file(at::ScalarType type, const std::string& name) {
  for (const auto& [file_type, tensor_type] : kDTypes) {
    if (tensor_type == type) return file_type;
  }
  fail<InternalError>("tensor '", name, "' has type ", type, ", which safetensors files of focus do not hold");
}

at::ScalarType to_tensor(DType type) {
  for (const auto& [file_type, tensor_type] : kDTypes) {
    if (file_type == type) return tensor_type;
  }
  fail<InternalError>("unknown tensor file type ", formats::name_of(type));
}

}  // namespace

void write_tensors(const std::filesystem::path& path, const std::map<std::string, at::Tensor>& tensors) {
  std::vector<at::Tensor> held;  // keeps the copies behind the views alive
  std::vector<formats::TensorView> views;
  for (const auto& [name, tensor] : tensors) {
    held.push_back(tensor.detach().to(at::kCPU).contiguous());
    const at::Tensor& flat = held.back();
    views.push_back({name, to_file(flat.scalar_type(), name), flat.sizes().vec(), static_cast<const std::byte*>(flat.const_data_ptr())});
  }
  formats::write_safetensors(path, views);
}

std::map<std::string, at::Tensor> read_tensors(const std::filesystem::path& path) {
  std::map<std::string, at::Tensor> out;
  try {
    const auto file = formats::TensorFile::open(path);
    if (file->format() != "safetensors")
      fail<CheckpointError>("'", path.string(), "': expected a safetensors file, got format '", file->format(), "'");
    for (const formats::TensorView& view : file->tensors()) {
      at::Tensor tensor = at::empty(view.shape, to_tensor(view.dtype));
      if (view.num_bytes() > 0) std::memcpy(tensor.mutable_data_ptr(), view.data, static_cast<std::size_t>(view.num_bytes()));
      out.emplace(view.name, std::move(tensor));
    }
  } catch (const WeightsError& error) {
    throw CheckpointError(error.what());
  } catch (const DataError& error) {
    throw CheckpointError(error.what());
  }
  return out;
}

}  // namespace focus::train
