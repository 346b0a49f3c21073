#include "model_output.h"

#include <algorithm>

#include "focus/core/error.h"
#include "focus/core/interrupt.h"
#include "focus/core/progress.h"
#include "focus/core/units.h"
#include "focus/formats/safetensors_writer.h"
#include "focus/formats/torch_archive_writer.h"

namespace focus::tools {
namespace {

namespace fs = std::filesystem;
using Format = ModelOutput::Format;

Format format_of(const fs::path& path) {
  if (path.empty()) fail<ConfigError>("the output needs a name");
  if (path == "-")
    fail<ConfigError>(
        "a model is checked after it is written, so it cannot go to standard output; name a file or folder");
  const std::string extension = path.extension().string();
  std::error_code ignored;
  if (path.filename().empty() || extension.empty() ||
      (fs::is_directory(path, ignored) && extension != ".pt" && extension != ".safetensors"))
    return Format::shards;
  if (extension == ".pt") return Format::torch_archive;
  if (extension == ".safetensors") return Format::safetensors;
  fail<ConfigError>("output '", path.string(),
                    "': expected NAME.pt, NAME.safetensors, or a folder (ending with '/') for shards");
}

/// Replacing a folder removes it, so it may hold only what is written here.
void check_folder(const fs::path& folder, bool force) {
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (!force)
      fail<ConfigError>("output folder '", folder.string(),
                        "' is not empty; pass --force to replace the shards in it, or another name");
    if (entry.is_directory() ||
        !(name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json")))
      fail<ConfigError>("output folder '", folder.string(), "' holds '", name,
                        "', which is no shard; --force replaces shards only, use another folder");
  }
}

}  // namespace

Format check_model_output(const fs::path& path, bool force) {
  const Format format = format_of(path);
  try {
    const fs::file_status status = fs::status(path);
    if (!fs::exists(status)) {
      const fs::path above = fs::absolute(path / "").parent_path().parent_path();
      if (!fs::is_directory(above))
        fail<DataError>("cannot write '", path.string(), "': the folder '", above.string(),
                        "' does not exist; make it first");
      return format;
    }
    if (format == Format::shards) {
      if (!fs::is_directory(status))
        fail<ConfigError>("output '", path.string(),
                          "' is a file; add .pt or .safetensors, or name a folder");
      check_folder(path, force);
    } else if (!fs::is_regular_file(status)) {
      fail<ConfigError>("output '", path.string(), "' is ",
                        fs::is_directory(status) ? "a folder" : "a device or pipe", "; name a file");
    } else if (!force) {
      fail<ConfigError>("output '", path.string(), "' exists; pass --force to replace it");
    }
  } catch (const fs::filesystem_error& e) {
    fail<DataError>("cannot use output '", path.string(), "': ", e.code().message());
  }
  return format;
}

ModelOutput::ModelOutput(const fs::path& path, bool force)
    : format_(check_model_output(path, force)),
      folder_(path),
      staged_(folder_.temporary() / folder_.path().filename()) {}

void ModelOutput::check_room(int64_t num_bytes) const {
  std::error_code error;
  const fs::space_info space = fs::space(folder_.temporary(), error);
  // Some network file systems report no sizes at all.
  if (error || space.capacity == 0 || static_cast<std::uintmax_t>(num_bytes) <= space.available) return;
  fail<DataError>("cannot write '", folder_.path().string(), "': ", format_bytes(num_bytes),
                  " are needed while it is made, the disk has ",
                  format_bytes(static_cast<int64_t>(space.available)),
                  " free; free some space or choose another folder");
}

void ModelOutput::write(const std::vector<formats::TensorView>& tensors,
                        const std::map<std::string, std::string>& metadata,
                        const std::vector<formats::OpaqueEntry>& opaque) {
  for (const formats::TensorView& tensor : tensors) tensor_bytes_ += tensor.num_bytes();
  constexpr int kMiB = 20, kWorthSaying = 256;
  Progress progress({.label = "write", .unit = "MiB", .total = tensor_bytes_ >> kMiB});
  int64_t done = 0;
  const WriteProgress tell = [&](int64_t num_bytes) {
    done += num_bytes;
    progress.set(std::min(done, tensor_bytes_) >> kMiB);
    if (interrupt_requested())
      fail<Interrupted>("interrupted while writing '", folder_.path().string(), "'; nothing is left of it");
  };
  try {
    if (format_ == Format::torch_archive) {
      formats::write_torch_archive(staged_, tensors, opaque, tell);
    } else if (format_ == Format::safetensors) {
      formats::write_safetensors(staged_, tensors, metadata, opaque, tell);
    } else {
      formats::write_safetensors_shards(staged_, tensors, metadata, max_shard_bytes_, opaque, tell);
    }
  } catch (const DataError& e) {
    // The writers know the temporary place, the user the final one.
    std::string message = e.what();
    for (std::size_t at = 0; (at = message.find(staged_.string(), at)) != std::string::npos;
         at += folder_.path().string().size())
      message.replace(at, staged_.string().size(), folder_.path().string());
    throw DataError(message);
  }
  if (tensor_bytes_ >> kMiB >= kWorthSaying) progress.finish();
}

}  // namespace focus::tools
