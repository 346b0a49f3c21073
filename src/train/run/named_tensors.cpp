#include "run/named_tensors.h"

#include <cstring>
#include <set>
#include <sstream>

#include "focus/core/error.h"
#include "focus/core/text.h"
#include "focus/formats/safetensors_writer.h"
#include "focus/formats/tensor_file.h"
#include "focus/weights/tensor_view.h"

namespace focus::train {
namespace {

std::string summary(const at::Tensor& tensor) {
  std::ostringstream out;
  out << tensor.scalar_type() << ' ' << tensor.sizes();
  return out.str();
}

}  // namespace

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
      fail<CheckpointError>("'", path.string(), "': expected a safetensors file, got format '",
                            file->format(), "'");
    for (const formats::TensorView& view : file->tensors()) {
      at::Tensor tensor = at::empty(view.shape, weights::scalar_type(view.dtype));
      if (view.num_bytes() > 0)
        std::memcpy(tensor.mutable_data_ptr(), view.data, static_cast<std::size_t>(view.num_bytes()));
      out.emplace(view.name, std::move(tensor));
    }
  } catch (const WeightsError& error) {
    throw CheckpointError(error.what());
  } catch (const DataError& error) {
    throw CheckpointError(error.what());
  }
  return out;
}

void require_same_tensors(const std::map<std::string, at::Tensor>& found, const NamedTensors& expected,
                          const std::string& what) {
  std::vector<std::string> missing, unexpected, different;
  std::set<std::string> names;
  for (const auto& [name, tensor] : expected) {
    names.insert(name);
    const auto match = found.find(name);
    if (match == found.end()) {
      missing.push_back(concat(name, " ", summary(tensor)));
    } else if (match->second.sizes() != tensor.sizes() ||
               match->second.scalar_type() != tensor.scalar_type()) {
      different.push_back(concat(name, ": expected ", summary(tensor), ", got ", summary(match->second)));
    }
  }
  for (const auto& [name, tensor] : found) {
    if (names.count(name) == 0) unexpected.push_back(concat(name, " ", summary(tensor)));
  }
  if (missing.empty() && unexpected.empty() && different.empty()) return;
  std::string message = concat(what, ": the tensors do not fit this model and configuration");
  append_list(message, "missing", missing);
  append_list(message, "unexpected", unexpected);
  append_list(message, "different shape or type", different);
  throw CheckpointError(message);
}

}  // namespace focus::train
