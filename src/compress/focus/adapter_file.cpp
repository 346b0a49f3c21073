#include "focus/compress/focus/adapter_file.h"

#include "focus/core/error.h"
#include "focus/formats/safetensors_writer.h"
#include "focus/weights/tensor_view.h"

namespace focus::compress {
namespace {

using at::Tensor;

constexpr const char* kFormat = "focus-adapter-1";
constexpr const char* kAdapt = "adapt";  // metadata; absent where the backbone is as it was

std::vector<std::pair<std::string, Tensor>> trained_tensors(const FocusAdapter& adapter, const model::AdaptedBackbone& adapted) {
  std::vector<std::pair<std::string, Tensor>> out;
  for (const auto& item : adapter.named_parameters()) out.emplace_back(item.key(), item.value());
  out.insert(out.end(), adapted.trained.begin(), adapted.trained.end());
  return out;
}

std::string metadata_of(const formats::TensorFile& file, const std::string& key, const std::filesystem::path& path) {
  const auto found = file.metadata().find(key);
  if (found == file.metadata().end()) fail<CheckpointError>("'", path.string(), "' is no FOCUS adapter: metadata '", key, "' is missing");
  return found->second;
}

MemoryConfig config_of(const formats::TensorFile& file, const std::filesystem::path& path) {
  if (metadata_of(file, "format", path) != kFormat)
    fail<CheckpointError>("'", path.string(), "': unknown adapter format '", metadata_of(file, "format", path), "'");
  MemoryConfig config;
  config::read_text(metadata_of(file, "memory", path), path.string(), {}, config);
  if (!config.uses(MemoryKind::focus) || config.focus.unit != UnitKind::fitted) return config;
  // A file that does not name leave_out and check is older than they are, and runs as it was trained.
  MemoryConfig fitted;
  fitted.focus.fitted = FittedUnitConfig::plain();
  config::read_text(metadata_of(file, "memory", path), path.string(), {}, fitted);
  return fitted;
}

}  // namespace

void save_adapter(const FocusAdapter& adapter, const model::AdaptedBackbone& adapted, const std::string& backbone_digest,
                  const std::filesystem::path& path) {
  std::vector<Tensor> alive;
  std::vector<formats::TensorView> views;
  for (const auto& [name, tensor] : trained_tensors(adapter, adapted)) {
    alive.push_back(tensor.detach().to(at::kCPU).contiguous());
    views.push_back(weights::as_view(name, alive.back()));
  }
  std::map<std::string, std::string> about = {
      {"format", kFormat}, {"memory", config::to_json(adapter.config())}, {"backbone", backbone_digest}};
  if (adapted.config.active()) about.emplace(kAdapt, config::to_json(adapted.config));
  formats::write_safetensors(path, views, about);
}

std::filesystem::path adapter_file(const std::filesystem::path& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    const auto inside = path / "adapter.safetensors";
    if (!std::filesystem::exists(inside, ignored))
      fail<CheckpointError>("folder '", path.string(), "' holds no adapter.safetensors: is it the folder of a finished adapter training?");
    return inside;
  }
  if (!std::filesystem::exists(path, ignored)) fail<CheckpointError>("adapter '", path.string(), "': no such file or folder");
  return path;
}

MemoryConfig read_adapter_config(const std::filesystem::path& path) { return config_of(*formats::TensorFile::open(path), path); }

LoadedAdapter load_adapter(const std::filesystem::path& path, const std::shared_ptr<model::Backbone>& backbone,
                           const std::string& backbone_digest) {
  const auto file = formats::TensorFile::open(path);
  const MemoryConfig config = config_of(*file, path);
  const std::string trained_on = metadata_of(*file, "backbone", path);
  if (trained_on != backbone_digest) {
    fail<CheckpointError>("'", path.string(), "' was trained on another backbone: digest ", trained_on.substr(0, 16), "..., this one is ",
                          backbone_digest.substr(0, 16), "...");
  }
  model::AdaptConfig adapt;
  if (file->metadata().contains(kAdapt))
    config::read_text(metadata_of(*file, kAdapt, path), path.string(), {}, adapt);
  LoadedAdapter out{nullptr, model::adapt(backbone, adapt, 0)};
  out.adapter = std::make_shared<FocusAdapter>(*out.adapted.backbone, config, 0);
  at::NoGradGuard guard;
  const auto wanted = trained_tensors(*out.adapter, out.adapted);
  for (const auto& [name, tensor] : wanted) {
    const auto* view = file->find(name);
    if (view == nullptr) fail<CheckpointError>("'", path.string(), "': tensor '", name, "' is missing");
    const Tensor source = weights::as_tensor(*view);
    if (source.sizes() != tensor.sizes())
      fail<CheckpointError>("'", path.string(), "': tensor '", name, "' has shape ", source.sizes(), ", expected ", tensor.sizes());
    tensor.detach().copy_(source);
  }
  if (wanted.size() != file->tensors().size())
    fail<CheckpointError>("'", path.string(), "' holds ", file->tensors().size(), " tensors, its configuration has ", wanted.size());
  out.adapted.backbone->set_trainable(false);
  return out;
}

}  // namespace focus::compress
