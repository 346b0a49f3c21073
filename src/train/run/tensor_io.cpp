#include "run/tensor_io.h"

#include <cstring>
#include <utility>
#include <vector>

#include "focus/core/error.h"
#include "focus/formats/safetensors_writer.h"
#include "focus/formats/tensor_file.h"
#include "focus/weights/tensor_view.h"

namespace focus::train {

void write_tensors(const std::filesystem::path& path, const std::map<std::string, at::Tensor>& tensors) {
  std::vector<at::Tensor> held;  // keeps the copies behind the views alive
  std::vector<formats::TensorView> views;
  for (const auto& [name, tensor] : tensors) {
    held.push_back(tensor.detach().to(at::kCPU).contiguous());
    views.push_back(weights::as_view(name, held.back()));
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
      at::Tensor tensor = at::empty(view.shape, weights::scalar_type(view.dtype));
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
