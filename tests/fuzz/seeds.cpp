// Writes the first inputs of the fuzz targets: fuzz_seeds FOLDER CHECKPOINT...
// Each checkpoint gives its opaque entries and its small tensors; the rest are files of every element type
// and encoding.
#include <cstdio>
#include <exception>
#include <filesystem>

#include "focus/core/file.h"
#include "focus/formats/safetensors_writer.h"
#include "focus/formats/tensor_file.h"
#include "focus/formats/torch_archive_writer.h"
#include "formats/archive_bytes.h"

namespace {

namespace fs = std::filesystem;
using namespace focus::formats;
using namespace focus::formats::testing;

void write_golden(const fs::path& folder, const fs::path& checkpoint) {
  const auto file = TensorFile::open(checkpoint);
  const std::string stem = checkpoint.stem().string();
  std::vector<TensorView> small;
  for (const TensorView& view : file->tensors()) {
    if (view.num_bytes() <= 256 && small.size() < 8) small.push_back(view);
  }
  const std::vector<OpaqueEntry> few(
      file->opaque().begin(),
      file->opaque().begin() + std::min<std::ptrdiff_t>(2, std::ssize(file->opaque())));
  write_torch_archive(folder / "torch_archive" / (stem + ".pt"), small, few);
  write_safetensors(folder / "safetensors" / (stem + ".safetensors"), small, {{"format", "pt"}}, few);
  for (std::size_t i = 0; i < file->opaque().size() && i < 4; ++i) {
    const auto content = file->opaque()[i].content;
    focus::write_file(folder / "fp8_state" / (stem + "." + std::to_string(i)),
                      {reinterpret_cast<const char*>(content.data()), content.size()});
  }
}

void write_types(const fs::path& folder) {
  const std::string bytes(64, '\x3c');
  std::vector<TensorView> tensors;
  for (int i = 0; i <= static_cast<int>(DType::float8_e5m2); ++i) {
    tensors.push_back({"t" + std::to_string(i),
                       static_cast<DType>(i),
                       {2, 3},
                       reinterpret_cast<const std::byte*>(bytes.data())});
  }
  write_torch_archive(folder / "torch_archive" / "types.pt", tensors);
  write_safetensors(folder / "safetensors" / "types.safetensors", tensors);
}

void write_encodings(const fs::path& folder) {
  const std::string floats = raw_bytes<float>({1, 2, 3, 4, 5, 6});
  const std::string weight = text("w") + tensor(storage("FloatStorage", "0", 6), 0, {2, 3}, {3, 1}) +
                             text("v") + tensor(storage("FloatStorage", "0", 6), 1, {2}, {2});
  const std::string state =
      text("scale_fwd") + tensor(storage("FloatStorage", "0", 6), 0, {3}, {1}) + text("amax_history_fwd") +
      tensor(storage("FloatStorage", "0", 6), 0, {2, 3}, {3, 1}) + text("recipe") +
      global("transformer_engine.common.recipe", "DelayedScaling") + ")\x81}(" + text("margin") + "K\1ub";
  const auto put = [&](const char* target, const char* name, const std::string& content) {
    focus::write_file(folder / target / name, content);
  };
  put("torch_archive", "flat.pt", archive_of(pickle(dict(weight)), {floats}));
  put("torch_archive", "nested.pt",
      archive_of(pickle(dict(text("epoch") + "K\1" + text("state_dict") + dict(weight))), {floats}));
  put("torch_archive", "opaque.pt",
      archive_of(pickle(dict(weight + text("m._extra_state") + byte_stream(encoded_bytes("a\xc3\xbf")) +
                             text("n") + "N")),
                 {floats}));
  // Protocol 4: frames, short strings, globals from the stack, a memo that numbers itself.
  const auto word = [](const std::string& value) {
    return "\x8c" + little(static_cast<std::uint8_t>(value.size())) + value + "\x94";
  };
  const std::string body = "}\x94" + word("a") + word("torch._utils") + word("_rebuild_tensor_v2") +
                           "\x93\x94((" + word("storage") + word("torch") + word("FloatStorage") +
                           "\x93\x94" + word("0") + word("cpu") + "K\6t\x94Q" + integer(0) +
                           "K\6\x85\x94K\1\x85\x94\x89" + word("collections") + word("OrderedDict") +
                           "\x93\x94)R\x94t\x94R\x94s" + word("e") + word("_io") + word("BytesIO") +
                           "\x93\x94)\x81\x94"
                           "C\3abcK\1N\x87"
                           "bs.";
  put("torch_archive", "protocol4.pt",
      archive_of("\x80\x04\x95" + little(static_cast<std::uint64_t>(body.size())) + body, {floats}));
  put("fp8_state", "state", archive_of(pickle(dict(state)), {floats}));
  put("fp8_state", "none", archive_of(pickle("N")));
  put("safetensors", "index.json",
      R"({"metadata":{"total_size":25},"weight_map":{"x":"a.safetensors","y":"a.safetensors","z":"b.safetensors"}})");
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc < 2) throw std::runtime_error("usage: fuzz_seeds FOLDER CHECKPOINT...");
    const fs::path folder = argv[1];
    for (const char* target : {"torch_archive", "safetensors", "fp8_state"})
      fs::create_directories(folder / target);
    write_types(folder);
    write_encodings(folder);
    for (int i = 2; i < argc; ++i) write_golden(folder, argv[i]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "fuzz_seeds: %s\n", error.what());
    return 1;
  }
  return 0;
}
