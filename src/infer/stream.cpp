#include "focus/infer/stream.h"

#include <charconv>

#include "focus/core/error.h"
#include "focus/formats/safetensors_writer.h"
#include "focus/weights/tensor_view.h"

namespace focus::infer {
namespace {

using at::Tensor;

constexpr const char* kFormat = "focus-stream-1";
constexpr const char* kLastHidden = "last_hidden";

cache::TensorMap save_layers(const cache::StreamState& state) {
  cache::TensorMap out;
  for (std::size_t i = 0; i < state.layers.size(); ++i) {
    for (const auto& [name, tensor] : state.layers[i]->save()) out.emplace(concat(i, ".", name), tensor);
  }
  return out;
}

void load_layers(const cache::TensorMap& tensors, const model::Backbone& model, cache::StreamState& state) {
  std::size_t used = 0;
  for (std::size_t i = 0; i < state.layers.size(); ++i) {
    const std::string prefix = concat(i, ".");
    cache::TensorMap own;
    for (auto item = tensors.lower_bound(prefix); item != tensors.end() && item->first.starts_with(prefix); ++item)
      own.emplace(item->first.substr(prefix.size()), item->second);
    state.layers[i]->load(own, model.block_device(static_cast<int64_t>(i)));
    used += own.size();
  }
  if (used != tensors.size()) fail<CheckpointError>("a saved stream has tensors for more blocks than the model's ", state.layers.size());
}

class PlainStream final : public Stream {
 public:
  PlainStream(model::Backbone& model, int64_t expected_length) : model_(model) { state_.expected_length = expected_length; }
  PlainStream(model::Backbone& model, cache::StreamState state) : model_(model), state_(std::move(state)) {}

  Tensor forward(const Tensor& tokens_BL) override { return model_.forward_embedded(model_.embed(tokens_BL), &state_); }
  std::unique_ptr<Stream> fork() const override { return std::make_unique<PlainStream>(model_, state_.clone()); }
  std::unique_ptr<Stream> snapshot() const override { return std::make_unique<PlainStream>(model_, state_.snapshot()); }
  int64_t bases() const override { return state_.position; }
  int64_t position() const override { return state_.position; }
  std::string description() const override { return "full memory"; }
  StreamMemory memory() const override {
    StreamMemory out;
    for (const auto& layer : state_.layers) {
      const auto* past = dynamic_cast<const cache::KeyValueState*>(layer.get());
      (past != nullptr ? out.kept_bytes : out.state_bytes) += layer->num_bytes();
      if (past != nullptr) out.entries = std::max(out.entries, past->size());
    }
    return out;
  }
  cache::TensorMap save() const override { return save_layers(state_); }
  void load(const cache::TensorMap& tensors, int64_t position, int64_t) override {
    for (int64_t i = 0; i < model_.num_blocks(); ++i) state_.layers.push_back(model_.block(i).make_state(nullptr, state_.expected_length));
    load_layers(tensors, model_, state_);
    state_.position = position;
  }

 private:
  model::Backbone& model_;
  cache::StreamState state_;
};

class MemoryStream final : public Stream {
 public:
  MemoryStream(std::shared_ptr<const compress::CompressedModel> model, std::string description, compress::CompressedStream stream)
      : model_(std::move(model)), description_(std::move(description)), stream_(std::move(stream)) {}

  Tensor forward(const Tensor& tokens_BL) override { return model_->forward(tokens_BL, stream_).bases; }
  std::unique_ptr<Stream> fork() const override { return std::make_unique<MemoryStream>(model_, description_, stream_.clone()); }
  std::unique_ptr<Stream> snapshot() const override { return std::make_unique<MemoryStream>(model_, description_, stream_.snapshot()); }
  int64_t bases() const override { return stream_.bases; }
  int64_t position() const override { return stream_.backbone.position; }
  std::string description() const override { return description_; }
  StreamMemory memory() const override {
    const compress::MemoryUse use = model_->memory_use(stream_);
    return {stream_.backbone.num_bytes() - use.retained_bytes - use.open_bytes, use.retained_bytes, use.open_bytes, use.entries};
  }
  cache::TensorMap save() const override { return save_layers(stream_.backbone); }
  void load(const cache::TensorMap& tensors, int64_t position, int64_t bases) override {
    stream_.backbone.layers = model_->new_layers();
    load_layers(tensors, model_->backbone(), stream_.backbone);
    stream_.backbone.position = position;
    stream_.bases = bases;
  }

 private:
  std::shared_ptr<const compress::CompressedModel> model_;
  std::string description_;
  compress::CompressedStream stream_;
};

std::string metadata_of(const formats::TensorFile& file, const std::string& key, const std::filesystem::path& path) {
  const auto found = file.metadata().find(key);
  if (found == file.metadata().end()) fail<CheckpointError>("'", path.string(), "' is no saved stream: metadata '", key, "' is missing");
  return found->second;
}

int64_t integer_of(const formats::TensorFile& file, const std::string& key, const std::filesystem::path& path) {
  const std::string text = metadata_of(file, key, path);
  int64_t value = -1;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || stop != text.data() + text.size() || value < 0)
    fail<CheckpointError>("'", path.string(), "': metadata '", key, "' should be a count, got '", text, "'");
  return value;
}

}  // namespace

StreamFactory plain_stream(model::Backbone& model) {
  return [&model](int64_t expected_length) { return std::make_unique<PlainStream>(model, expected_length); };
}

StreamFactory compressed_stream(std::shared_ptr<const compress::CompressedModel> model, std::string description) {
  return [model, description](int64_t) { return std::make_unique<MemoryStream>(model, description, compress::CompressedStream{}); };
}

void save_stream(const Stream& stream, const Tensor& last_hidden, const std::string& model_digest, const std::filesystem::path& path) {
  cache::TensorMap tensors = stream.save();
  tensors.emplace(kLastHidden, cache::saved_tensor(last_hidden));
  std::vector<formats::TensorView> views;
  for (const auto& [name, tensor] : tensors) views.push_back(weights::as_view(name, tensor));
  formats::write_safetensors(path, views,
                             {{"format", kFormat},
                              {"model", model_digest},
                              {"memory", stream.description()},
                              {"position", std::to_string(stream.position())},
                              {"bases", std::to_string(stream.bases())}});
}

Tensor load_stream(Stream& stream, const std::string& model_digest, const at::Device& device, const std::filesystem::path& path) {
  const auto file = formats::TensorFile::open(path);
  if (metadata_of(*file, "format", path) != kFormat)
    fail<CheckpointError>("'", path.string(), "': unknown stream format '", metadata_of(*file, "format", path), "'");
  const std::string model = metadata_of(*file, "model", path), memory = metadata_of(*file, "memory", path);
  if (model != model_digest)
    fail<CheckpointError>("'", path.string(), "' is a stream of another model: digest ", model.substr(0, 16), "..., this one is ",
                          model_digest.substr(0, 16), "...");
  if (memory != stream.description())
    fail<CheckpointError>("'", path.string(), "' was read with ", memory, ", this run has ", stream.description());
  cache::TensorMap tensors;
  for (const auto& view : file->tensors()) tensors.emplace(view.name, weights::as_tensor(view));
  const auto last = tensors.extract(kLastHidden);
  if (last.empty()) fail<CheckpointError>("'", path.string(), "': tensor '", kLastHidden, "' is missing");
  stream.load(tensors, integer_of(*file, "position", path), integer_of(*file, "bases", path));
  return last.mapped().to(device).clone();
}

}  // namespace focus::infer
