#include "focus/compress/focus/adapter_file.h"

#include "focus/config/differences.h"
#include "focus/core/error.h"
#include "focus/core/log.h"
#include "focus/formats/digest.h"
#include "focus/formats/safetensors_writer.h"
#include "focus/weights/tensor_view.h"

namespace focus::compress {
namespace {

using at::Tensor;

constexpr const char* kFormat = "focus-adapter-1";
// Metadata.
constexpr const char* kMemory = "memory";
constexpr const char* kBackbone = "backbone";
constexpr const char* kAdapt = "adapt";        // absent where the backbone is as it was
constexpr const char* kTraining = "training";  // absent where it was not recorded

std::vector<std::pair<std::string, Tensor>> trained_tensors(const FocusAdapter& adapter,
                                                            const model::AdaptedBackbone& adapted) {
  std::vector<std::pair<std::string, Tensor>> out;
  for (const auto& item : adapter.named_parameters()) out.emplace_back(item.key(), item.value());
  out.insert(out.end(), adapted.trained.begin(), adapted.trained.end());
  return out;
}

std::string metadata_of(const formats::TensorFile& file, const std::string& key,
                        const std::filesystem::path& path) {
  const auto found = file.metadata().find(key);
  if (found == file.metadata().end())
    fail<CheckpointError>("'", path.string(), "' is no FOCUS adapter: metadata '", key, "' is missing");
  return found->second;
}

MemoryConfig config_of(const formats::TensorFile& file, const std::filesystem::path& path) {
  if (metadata_of(file, "format", path) != kFormat)
    fail<CheckpointError>("'", path.string(), "': unknown adapter format '",
                          metadata_of(file, "format", path), "'");
  MemoryConfig config;
  config::read_text(metadata_of(file, kMemory, path), path.string(), {}, config);
  if (!config.uses(MemoryKind::focus) || config.focus.unit != UnitKind::fitted) return config;
  // A file that does not name leave_out and check is older than they are, and runs as it was trained.
  MemoryConfig fitted;
  fitted.focus.fitted = FittedUnitConfig::plain();
  config::read_text(metadata_of(file, kMemory, path), path.string(), {}, fitted);
  return fitted;
}

void require_backbone(const formats::TensorFile& file, const std::filesystem::path& path,
                      const std::string& digest) {
  const std::string trained_on = metadata_of(file, kBackbone, path);
  if (trained_on == digest) return;
  fail<CheckpointError>("'", path.string(), "' was trained on another backbone: digest ",
                        trained_on.substr(0, 16), "..., this one is ", digest.substr(0, 16), "...");
}

model::AdaptConfig adapt_of(const formats::TensorFile& file, const std::filesystem::path& path) {
  model::AdaptConfig adapt;
  if (file.metadata().contains(kAdapt))
    config::read_text(metadata_of(file, kAdapt, path), path.string(), {}, adapt);
  return adapt;
}

std::string joined(const std::vector<std::string>& parts) {
  std::string out;
  for (const std::string& part : parts) out += concat(out.empty() ? "" : "; ", part);
  return out;
}

}  // namespace

void save_adapter(const FocusAdapter& adapter, const model::AdaptedBackbone& adapted,
                  const std::string& backbone_digest, const std::filesystem::path& path,
                  const std::string& training) {
  std::vector<Tensor> alive;
  std::vector<formats::TensorView> views;
  for (const auto& [name, tensor] : trained_tensors(adapter, adapted)) {
    alive.push_back(tensor.detach().to(at::kCPU).contiguous());
    views.push_back(weights::as_view(name, alive.back()));
  }
  std::map<std::string, std::string> about = {
      {"format", kFormat}, {kMemory, config::to_json(adapter.config())}, {kBackbone, backbone_digest}};
  if (adapted.config.active()) about.emplace(kAdapt, config::to_json(adapted.config));
  if (!training.empty()) about.emplace(kTraining, training);
  formats::write_safetensors(path, views, about);
}

std::filesystem::path adapter_file(const std::filesystem::path& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    const auto inside = path / "adapter.safetensors";
    if (!std::filesystem::exists(inside, ignored))
      fail<CheckpointError>(
          "folder '", path.string(),
          "' holds no adapter.safetensors: is it the folder of a finished adapter training?");
    return inside;
  }
  if (!std::filesystem::exists(path, ignored))
    fail<CheckpointError>("adapter '", path.string(), "': no such file or folder");
  return path;
}

MemoryConfig read_adapter_config(const std::filesystem::path& path) {
  return config_of(*formats::TensorFile::open(path), path);
}

LoadedAdapter load_adapter(const std::filesystem::path& path,
                           const std::shared_ptr<model::Backbone>& backbone,
                           const std::string& backbone_digest) {
  const auto file = formats::TensorFile::open(path);
  const MemoryConfig config = config_of(*file, path);
  require_backbone(*file, path, backbone_digest);
  const model::AdaptConfig adapt = adapt_of(*file, path);
  std::map<std::string, std::string> settings = file->metadata();
  settings.erase(kTraining);
  LoadedAdapter out{nullptr, model::adapt(backbone, adapt, 0), formats::digest(file->tensors(), settings)};
  out.adapter = std::make_shared<FocusAdapter>(*out.adapted.backbone, config, 0);
  at::NoGradGuard guard;
  const auto wanted = trained_tensors(*out.adapter, out.adapted);
  for (const auto& [name, tensor] : wanted) {
    const auto* view = file->find(name);
    if (view == nullptr) fail<CheckpointError>("'", path.string(), "': tensor '", name, "' is missing");
    const Tensor source = weights::as_tensor(*view);
    if (source.sizes() != tensor.sizes())
      fail<CheckpointError>("'", path.string(), "': tensor '", name, "' has shape ", source.sizes(),
                            ", expected ", tensor.sizes());
    tensor.detach().copy_(source);
  }
  if (wanted.size() != file->tensors().size())
    fail<CheckpointError>("'", path.string(), "' holds ", file->tensors().size(),
                          " tensors, its configuration has ", wanted.size());
  out.adapted.backbone->set_trainable(false);
  return out;
}

void start_from(const std::filesystem::path& path, const FocusAdapter& adapter,
                const model::AdaptedBackbone& adapted, const std::string& backbone_digest) {
  const auto file = formats::TensorFile::open(path);
  const MemoryConfig memory = config_of(*file, path);
  require_backbone(*file, path, backbone_digest);
  const auto changes = config::differences(config::to_json(memory), config::to_json(adapter.config()));
  const model::AdaptConfig adapt = adapt_of(*file, path);
  // A change of the backbone that the adapter does not know begins as none.
  if (adapt.active() && config::to_json(adapt) != config::to_json(adapted.config))
    fail<ConfigError>("adapter '", path.string(), "' was trained with a changed backbone (", adapt.describe(),
                      "): give this run the same adapt, or start from another adapter");
  std::vector<std::pair<Tensor, Tensor>> pairs;
  for (const auto& [name, tensor] :
       trained_tensors(adapter, adapt.active() ? adapted : model::AdaptedBackbone())) {
    const auto* view = file->find(name);
    if (view == nullptr || at::IntArrayRef(view->shape) != tensor.sizes())
      fail<ConfigError>("adapter '", path.string(), "' does not fit this run (adapter -> run): ",
                        changes.empty() ? concat("its tensor '", name, "' is missing or of another shape")
                                        : joined(changes),
                        "; give the run the adapter's settings, or leave adapter out");
    pairs.emplace_back(tensor, weights::as_tensor(*view));
  }
  if (pairs.size() != file->tensors().size())
    fail<ConfigError>("adapter '", path.string(), "' holds ", file->tensors().size(),
                      " tensors, this run trains ", pairs.size(),
                      " of them (adapter -> run): ", joined(changes),
                      "; give the run the adapter's settings, or leave adapter out");
  const at::NoGradGuard guard;
  for (const auto& [own, trained] : pairs) own.detach().copy_(trained);
  log::info(concat("starting from adapter '", path.string(), "'",
                   changes.empty() ? ""
                                   : concat(", which was trained with other settings (adapter -> run): ",
                                            joined(changes))));
}

}  // namespace focus::compress
