#include "focus/infer/stream.h"

#include <charconv>
#include <limits>

#include "focus/core/error.h"
#include "focus/core/version.h"
#include "focus/formats/digest.h"
#include "focus/formats/safetensors_writer.h"
#include "focus/weights/tensor_view.h"

namespace focus::infer {
namespace {

using at::Tensor;

constexpr const char* kFormat = "focus-state-2";
constexpr const char* kFormatBefore = "focus-stream-1";  // recorded neither adapter nor place nor digest
constexpr const char* kDigest = "sha256";
constexpr const char* kFar = "far.";  // names of what chooses for all layers
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
    for (auto item = tensors.lower_bound(prefix); item != tensors.end() && item->first.starts_with(prefix);
         ++item)
      own.emplace(item->first.substr(prefix.size()), item->second);
    state.layers[i]->load(own, model.block_device(static_cast<int64_t>(i)));
    used += own.size();
  }
  if (used != tensors.size())
    fail<CheckpointError>("a saved stream has tensors for more blocks than the model's ",
                          state.layers.size());
}

constexpr int64_t kEver = std::numeric_limits<int64_t>::max();

class PlainStream final : public Stream {
 public:
  PlainStream(model::Backbone& model, int64_t expected_length) : model_(model) {
    state_.expected_length = expected_length;
  }
  PlainStream(model::Backbone& model, cache::StreamState state) : model_(model), state_(std::move(state)) {}

  Tensor forward(const Tensor& tokens_BL) override {
    state_.stretch.reset();
    return model_.forward_embedded(model_.embed(tokens_BL), &state_);
  }
  Tensor step(const Tensor& tokens_B1) override {
    state_.step(kEver, model_.device());
    return model_.forward_embedded(model_.embed(tokens_B1), &state_);
  }
  int64_t repeats() const override { return state_.repeats(kEver); }
  void advance() override { state_.advance(); }
  std::unique_ptr<Stream> fork() const override {
    return std::make_unique<PlainStream>(model_, state_.clone());
  }
  std::unique_ptr<Stream> snapshot() const override {
    return std::make_unique<PlainStream>(model_, state_.snapshot());
  }
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
    for (int64_t i = 0; i < model_.num_blocks(); ++i)
      state_.layers.push_back(model_.block(i).make_state(nullptr, state_.expected_length));
    load_layers(tensors, model_, state_);
    state_.position = position;
  }

 private:
  model::Backbone& model_;
  cache::StreamState state_;
};

class MemoryStream final : public Stream {
 public:
  MemoryStream(std::shared_ptr<const compress::CompressedModel> model, std::string description,
               compress::CompressedStream stream)
      : model_(std::move(model)), description_(std::move(description)), stream_(std::move(stream)) {}

  Tensor forward(const Tensor& tokens_BL) override {
    stream_.backbone.stretch.reset();
    return model_->forward(tokens_BL, stream_).bases;
  }
  Tensor step(const Tensor& tokens_B1) override {
    // A Focus token that may follow the base makes two of one.
    const bool one_by_one = model_->config().focus.stream != compress::Stream::inline_tokens;
    if (!one_by_one) return forward(tokens_B1);
    stream_.backbone.step(model_->steady_bases(stream_), model_->backbone().device());
    return model_->forward(tokens_B1, stream_).bases;
  }
  int64_t repeats() const override { return stream_.backbone.repeats(model_->steady_bases(stream_)); }
  void advance() override {
    stream_.backbone.advance();
    ++stream_.bases;
  }
  std::unique_ptr<Stream> fork() const override {
    return std::make_unique<MemoryStream>(model_, description_, stream_.clone());
  }
  std::unique_ptr<Stream> snapshot() const override {
    return std::make_unique<MemoryStream>(model_, description_, stream_.snapshot());
  }
  int64_t bases() const override { return stream_.bases; }
  int64_t position() const override { return stream_.backbone.position; }
  std::string description() const override { return description_; }
  StreamMemory memory() const override {
    const compress::MemoryUse use = model_->memory_use(stream_);
    const int64_t index = stream_.far != nullptr ? stream_.far->num_bytes() : 0;
    return {stream_.backbone.num_bytes() + index - use.retained_bytes - use.open_bytes - use.far_bytes,
            use.retained_bytes, use.open_bytes, use.far_bytes, use.entries};
  }
  cache::TensorMap save() const override {
    cache::TensorMap out = save_layers(stream_.backbone);
    if (stream_.far != nullptr) stream_.far->save(out);
    return out;
  }
  void load(const cache::TensorMap& tensors, int64_t position, int64_t bases) override {
    stream_.backbone.layers = model_->new_layers();
    cache::TensorMap of_layers = tensors, of_letters;
    for (auto item = of_layers.lower_bound(kFar); item != of_layers.end() && item->first.starts_with(kFar);)
      of_letters.insert(of_layers.extract(item++));
    load_layers(of_layers, model_->backbone(), stream_.backbone);
    stream_.far = model_->new_chooser();
    if (stream_.far != nullptr) stream_.far->load(of_letters, bases);
    if (stream_.far == nullptr && !of_letters.empty())
      fail<CheckpointError>("a saved stream has a far memory, which this run's memory has not");
    stream_.backbone.position = position;
    stream_.bases = bases;
  }

 private:
  std::shared_ptr<const compress::CompressedModel> model_;
  std::string description_;
  compress::CompressedStream stream_;
};

/// A saved state while it is read; every error names its file and speaks of a state.
class SavedState {
 public:
  explicit SavedState(const std::filesystem::path& path) : path_(path) {
    std::error_code ignored;
    if (!std::filesystem::exists(path, ignored)) refuse("there is no such file");
    if (!std::filesystem::is_regular_file(path, ignored)) refuse("it is no regular file");
    try {
      file_ = formats::TensorFile::open(path);
    } catch (const WeightsError&) {
      // What the reader advises concerns checkpoints.
      refuse(
          "the file is damaged, cut short or of another kind; expected what --save-state writes. Save the "
          "state again");
    }
    const std::map<std::string, std::string>& about = file_->metadata();
    const auto format = about.find("format");
    if (format != about.end() && format->second == kFormatBefore)
      refuse("an earlier version saved it and recorded neither adapter nor position; save it again");
    if (format == about.end() || format->second != kFormat)
      refuse(format != about.end() && format->second.starts_with("focus-adapter")
                 ? "it is an adapter, which --adapter takes"
                 : "it is no saved state; expected what --save-state writes");
    std::map<std::string, std::string> hashed = about;
    hashed.erase(kDigest);
    if (text(kDigest) != formats::digest(file_->tensors(), hashed))
      refuse("its bytes are not those that were saved (SHA-256 differs); save the state again");
  }

  const std::string& text(const std::string& key) const {
    const auto found = file_->metadata().find(key);
    if (found == file_->metadata().end()) refuse("it lacks '", key, "'; save the state again");
    return found->second;
  }
  int64_t count(const std::string& key) const {
    const std::string& value = text(key);
    int64_t number = -1;
    const auto [stop, error] = std::from_chars(value.data(), value.data() + value.size(), number);
    if (error != std::errc() || stop != value.data() + value.size() || number < 0)
      refuse("'", key, "' should be a count, got '", value, "'; save the state again");
    return number;
  }
  cache::TensorMap tensors() const {
    cache::TensorMap out;
    for (const auto& view : file_->tensors()) out.emplace(view.name, weights::as_tensor(view));
    return out;
  }
  template <class... Args>
  [[noreturn]] void refuse(const Args&... args) const {
    fail<CheckpointError>("saved state '", path_.string(), "': ", args...);
  }

 private:
  const std::filesystem::path& path_;
  std::shared_ptr<formats::TensorFile> file_;
};

std::string adapter_text(const std::string& digest) {
  return digest.empty() ? "without an adapter"
                        : concat("under the adapter of digest ", digest.substr(0, 16), "...");
}

void require_same_origin(const SavedState& saved, const Stream& stream, const StreamOrigin& origin) {
  if (saved.text("model_digest") != origin.digest)
    saved.refuse("it was saved with another model, '", saved.text("model"), "' of digest ",
                 saved.text("model_digest").substr(0, 16), "..., this run has '", origin.model,
                 "' of digest ", origin.digest.substr(0, 16), "...");
  if (saved.text("precision") != origin.precision)
    saved.refuse("it was saved in ", saved.text("precision"), ", this run is ", origin.precision,
                 "; give this run the same --dtype and --fp8");
  if (saved.text("memory") != stream.description())
    saved.refuse("it was saved with memory '", saved.text("memory"), "', this run has '",
                 stream.description(), "'; give this run the same --memory, --window and -k");
  if (saved.text("adapter") != origin.adapter)
    saved.refuse("it was saved ", adapter_text(saved.text("adapter")), ", this run goes on ",
                 adapter_text(origin.adapter), "; give this run the adapter it was saved under");
}

void require_place(const SavedState& saved, const StreamPlace& place, const std::filesystem::path& path) {
  const StreamPlace reached = {saved.text("record"), saved.count("next"), saved.text("before")};
  const bool same = reached.record == place.record && reached.next == place.next;
  if (same && reached.before == place.before) return;
  if (same)
    fail<ConfigError>(
        "saved state '", path.string(), "' goes on at base ", reached.next + 1, " of '", reached.record,
        "', but the bases before it were others: it belongs to another sequence of that name; use the same "
        "FASTA file, or pass --continue-anyway to read on here all the same");
  fail<ConfigError>("saved state '", path.string(), "' goes on at base ", reached.next + 1, " of '",
                    reached.record, "', this run begins at base ", place.next + 1, " of '", place.record,
                    "'; ask for --region '", reached.record, ':', reached.next + 1,
                    "-END', or pass --continue-anyway to read on here all the same");
}

}  // namespace

StreamFactory plain_stream(model::Backbone& model) {
  return [&model](int64_t expected_length) { return std::make_unique<PlainStream>(model, expected_length); };
}

StreamFactory compressed_stream(std::shared_ptr<const compress::CompressedModel> model,
                                std::string description) {
  return [model, description](int64_t) {
    return std::make_unique<MemoryStream>(model, description, compress::CompressedStream{});
  };
}

std::unique_ptr<Stream> compressed_stream(std::shared_ptr<const compress::CompressedModel> model,
                                          std::string description, compress::CompressedStream begun) {
  return std::make_unique<MemoryStream>(std::move(model), std::move(description), std::move(begun));
}

void save_stream(const Stream& stream, const Tensor& last_hidden, const StreamOrigin& origin,
                 const StreamPlace& place, const std::filesystem::path& path) {
  cache::TensorMap tensors = stream.save();
  tensors.emplace(kLastHidden, cache::saved_tensor(last_hidden));
  std::vector<formats::TensorView> views;
  for (const auto& [name, tensor] : tensors) views.push_back(weights::as_view(name, tensor));
  std::map<std::string, std::string> about = {{"format", kFormat},
                                              {"focus_version", version_line()},
                                              {"model", origin.model},
                                              {"model_digest", origin.digest},
                                              {"precision", origin.precision},
                                              {"memory", stream.description()},
                                              {"adapter", origin.adapter},
                                              {"record", place.record},
                                              {"next", std::to_string(place.next)},
                                              {"before", place.before},
                                              {"position", std::to_string(stream.position())},
                                              {"bases", std::to_string(stream.bases())}};
  about.emplace(kDigest, formats::digest(views, about));
  formats::write_safetensors(path, views, about);
}

Tensor load_stream(Stream& stream, const StreamOrigin& origin, const std::optional<StreamPlace>& place,
                   const at::Device& device, const std::filesystem::path& path) {
  const SavedState saved(path);
  require_same_origin(saved, stream, origin);
  if (place) require_place(saved, *place, path);
  cache::TensorMap tensors = saved.tensors();
  const auto last = tensors.extract(kLastHidden);
  if (last.empty()) saved.refuse("tensor '", kLastHidden, "' is missing; save the state again");
  try {
    stream.load(tensors, saved.count("position"), saved.count("bases"));
  } catch (const CheckpointError& e) {
    saved.refuse(e.what());
  }
  return last.mapped().to(device).clone();
}

}  // namespace focus::infer
