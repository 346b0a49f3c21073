#include <fnmatch.h>

#include <cstring>
#include <filesystem>
#include <iostream>
#include <memory>
#include <optional>

#include "commands.h"
#include "focus/core/error.h"
#include "focus/core/interrupt.h"
#include "focus/core/log.h"
#include "focus/core/progress.h"
#include "focus/core/units.h"
#include "focus/weights/model_files.h"
#include "model_output.h"
#include "rounded_tensors.h"
#include "tensor_table.h"

namespace focus::tools {
namespace {

using formats::DType;
using formats::OpaqueEntry;
using formats::TensorView;
using Format = ModelOutput::Format;

struct ConvertCommand {
  cli::CommonOptions common;
  std::string input, output, strip_prefix, dtype = "keep";
  std::vector<std::string> drop;
  int64_t max_shard_bytes = 0;  // 0: not given
  bool dry_run = false, force = false;
};

struct Contents {
  std::vector<TensorView> tensors;
  std::vector<OpaqueEntry> opaque;
  std::map<std::string, std::string> metadata;
};

/// What is to be kept; every --drop must leave something out, or it is a slip.
Contents kept(const formats::TensorFile& file, const std::vector<std::string>& drop) {
  std::vector<bool> used(drop.size(), false);
  const auto keep = [&](const std::string& name) {
    bool dropped = false;
    for (std::size_t i = 0; i < drop.size(); ++i) {
      if (::fnmatch(drop[i].c_str(), name.c_str(), 0) == 0) used[i] = dropped = true;
    }
    return !dropped;
  };
  Contents out{.tensors = {}, .opaque = {}, .metadata = file.metadata()};
  for (const TensorView& tensor : file.tensors()) {
    if (keep(tensor.name)) out.tensors.push_back(tensor);
  }
  for (const OpaqueEntry& entry : file.opaque()) {
    if (keep(entry.name)) out.opaque.push_back(entry);
  }
  for (std::size_t i = 0; i < drop.size(); ++i) {
    if (!used[i])
      fail<ConfigError>("--drop '", drop[i], "' matches no entry of the file; see focus-model inspect");
  }
  if (out.tensors.empty())
    fail<ConfigError>("nothing is left to write: the file holds no tensor that is not dropped");
  return out;
}

/// Takes the prefix off every name. A name that lacks it is a slip, or an entry to be left out.
void strip(Contents& contents, std::string prefix, const std::string& input) {
  if (!prefix.ends_with('.')) prefix += '.';
  const auto shorten = [&](std::string& name) {
    if (!name.starts_with(prefix))
      fail<ConfigError>(
          "--strip-prefix '", prefix, "': entry '", visible(name), "' of '", input,
          "' does not begin with it; leave such entries out with --drop, or see focus-model inspect");
    if (name.size() == prefix.size())
      fail<ConfigError>("--strip-prefix '", prefix, "' would leave nothing of the name '", visible(name),
                        "'");
    name.erase(0, prefix.size());
  };
  for (TensorView& tensor : contents.tensors) shorten(tensor.name);
  for (OpaqueEntry& entry : contents.opaque) shorten(entry.name);
}

/// Everything must have a place in the new format.
void check_mappable(const Contents& contents, Format format, const std::string& input) {
  const auto lost = [&](const OpaqueEntry& entry, const char* why) {
    fail<WeightsError>("'", input, "': entry '", visible(entry.name), "' ", why,
                       "; leave it out with --drop '", visible(entry.name), "'");
  };
  for (const OpaqueEntry& entry : contents.opaque) {
    if (entry.kind == OpaqueEntry::Kind::other)
      lost(entry, "is neither a tensor nor bytes and cannot be converted");
    if (format == Format::torch_archive) continue;
    if (entry.kind == OpaqueEntry::Kind::none) lost(entry, "holds None, which safetensors cannot");
    if (!entry.name.ends_with("_extra_state"))
      lost(entry, "holds bytes, which safetensors cannot tell from a tensor");
  }
  if (format != Format::torch_archive) return;
  for (const auto& [key, value] : contents.metadata) {
    // Every safetensors file of PyTorch's says so; it is implied by .pt.
    if (key == "format" && value == "pt") continue;
    fail<WeightsError>("'", input, "': a .pt has no place for the metadata '", visible(key),
                       "', which would be lost; convert to safetensors");
  }
}

class Check {
 public:
  Check(const std::string& output, int64_t total_bytes)
      : output_(output), progress_({.label = "check", .unit = "MiB", .total = total_bytes >> kMiB}) {}

  void run(const Contents& wanted, const std::vector<DType>& dtypes, const formats::TensorFile& got) {
    if (got.tensors().size() != wanted.tensors.size() || got.opaque().size() != wanted.opaque.size())
      wrong("holds ", got.tensors().size(), " tensors and ", got.opaque().size(), " other entries, expected ",
            wanted.tensors.size(), " and ", wanted.opaque.size());
    for (std::size_t i = 0; i < wanted.tensors.size(); ++i) {
      const TensorView &from = wanted.tensors[i], &to = got.tensors()[i];
      if (to.name != from.name || to.dtype != dtypes[i] || to.shape != from.shape)
        wrong("tensor ", i + 1, " is '", visible(to.name), "' ", name_of(to.dtype), ' ',
              formats::shape_text(to.shape), ", expected '", visible(from.name), "' ", name_of(dtypes[i]),
              ' ', formats::shape_text(from.shape));
      const std::byte* at = to.data;
      for_each_rounded_chunk(from, dtypes[i], [&](const std::byte* bytes, std::size_t num_bytes) {
        if (interrupt_requested())
          fail<Interrupted>("interrupted while checking '", output_, "'; nothing is left of it");
        if (std::memcmp(at, bytes, num_bytes) != 0)
          wrong("tensor '", visible(to.name), "' holds other values than the input");
        at += num_bytes;
        done_ += static_cast<int64_t>(num_bytes);
        progress_.set(done_ >> kMiB);
      });
    }
    for (const OpaqueEntry& entry : wanted.opaque) {
      const auto content = got.opaque(entry.name);
      if (!content || content->size() != entry.content.size() ||
          (!content->empty() && std::memcmp(content->data(), entry.content.data(), content->size()) != 0))
        wrong("entry '", visible(entry.name), "' holds other bytes than the input");
    }
    if (done_ >> kMiB >= kWorthSaying) progress_.finish();
  }

 private:
  template <class... Args>
  [[noreturn]] void wrong(const Args&... args) {
    fail<WeightsError>("'", output_, "' is not what was to be written: ", args...,
                       "; nothing is left of it. Is the disk sound?");
  }
  static constexpr int kMiB = 20, kWorthSaying = 256;
  const std::string& output_;
  Progress progress_;
  int64_t done_ = 0;
};

std::string summary(const Contents& contents, const std::vector<DType>& dtypes, Format format,
                    int64_t max_shard_bytes) {
  int64_t num_bytes = 0;
  std::size_t changed = 0;
  for (std::size_t i = 0; i < dtypes.size(); ++i) {
    num_bytes += contents.tensors[i].num_elements() * formats::size_of(dtypes[i]);
    changed += dtypes[i] != contents.tensors[i].dtype ? 1U : 0U;
  }
  std::string out = concat(format_count(static_cast<int64_t>(dtypes.size())), " tensors, ",
                           format_bytes(num_bytes), ", and ", contents.opaque.size(), " other entries");
  if (changed > 0)
    out += concat("; ", format_count(static_cast<int64_t>(changed)), " tensors change their dtype");
  if (format == Format::shards) out += concat("; shards of up to ", format_bytes(max_shard_bytes));
  return out;
}

void run(const ConvertCommand& c) {
  cli::apply_common_options(c.common, 0);
  // In place is what --force is for: the new file takes the name once it is read back and whole.
  std::error_code ignored;
  if (!std::filesystem::equivalent(c.input, c.output, ignored))
    require_separate({{"output", c.output}}, weights::model_files("", c.input));
  const Format format = check_model_output(c.output, c.force);
  if (c.max_shard_bytes != 0 && format != Format::shards)
    fail<ConfigError>("--max-shard-size has no effect on the single file '", c.output,
                      "'; name a folder, or leave it out");
  const int64_t max_shard_bytes = c.max_shard_bytes != 0 ? c.max_shard_bytes : int64_t{5} << 30;
  std::optional<DType> wanted;
  if (c.dtype != "keep") wanted = c.dtype == "bf16" ? DType::bfloat16 : DType::float32;

  const auto file = formats::TensorFile::open(c.input);
  Contents contents = kept(*file, c.drop);
  if (!c.strip_prefix.empty()) strip(contents, c.strip_prefix, c.input);
  check_mappable(contents, format, c.input);
  std::vector<DType> dtypes;
  int64_t total_bytes = 0, changed_bytes = 0;
  for (const TensorView& tensor : contents.tensors) {
    dtypes.push_back(rounded_dtype(tensor, wanted));
    const int64_t num_bytes = tensor.num_elements() * formats::size_of(dtypes.back());
    total_bytes += num_bytes;
    if (dtypes.back() != tensor.dtype) changed_bytes += num_bytes;
  }
  const std::string what = summary(contents, dtypes, format, max_shard_bytes);
  if (c.dry_run) {
    std::cout << "would write '" << c.output << "': " << what << "\n";
    return;
  }
  ModelOutput output(c.output, c.force);
  output.set_max_shard_bytes(max_shard_bytes);
  output.check_room(total_bytes + changed_bytes);
  const RoundedTensors rounded(contents.tensors, wanted, output.scratch("values"), [&](int64_t) {
    if (interrupt_requested())
      fail<Interrupted>("interrupted while rounding; nothing was written to '", c.output, "'");
  });
  output.write(rounded.tensors(), contents.metadata, contents.opaque);
  Check(c.output, total_bytes).run(contents, dtypes, *formats::TensorFile::open(output.staged()));
  output.commit();
  log::info(
      concat("wrote '", c.output, "': ", what,
             wanted ? "; read back and equal to the rounded input" : "; read back and equal to the input"));
}

}  // namespace

void add_convert(CLI::App& app) {
  CLI::App* sub = app.add_subcommand(
      "convert", "Writes a model file in another format and checks that nothing was lost.");
  const auto command = std::make_shared<ConvertCommand>();
  ConvertCommand& c = *command;
  sub->add_option("input", c.input, "a .pt (whole or in parts), a safetensors file, or a folder of shards")
      ->required();
  sub->add_option("output", c.output, "NAME.pt, NAME.safetensors, or a folder for safetensors shards")
      ->required();
  sub->option_defaults()->group("Output");
  cli::add_bytes(*sub, "--max-shard-size", c.max_shard_bytes, "largest shard, for a folder: 500M, 5G")
      ->default_str("5G");
  sub->add_option("--dtype", c.dtype,
                  "keep, or round floating-point tensors to bf16 or widen them to fp32; what the model keeps "
                  "in fp32 (poles, residues, rotary "
                  "frequencies) is never rounded")
      ->check(CLI::IsMember({"keep", "bf16", "fp32"}))
      ->capture_default_str();
  sub->add_option("--drop", c.drop,
                  "leave out entries whose name matches (* and ? as in a shell); may be repeated")
      ->allow_extra_args(false)
      ->take_all();
  sub->add_option("--strip-prefix", c.strip_prefix,
                  "take this off every name: module, _orig_mod, model, state_dict, or several with dots "
                  "between; after --drop");
  sub->add_flag("--dry-run", c.dry_run, "check everything, say what would be written, write nothing");
  sub->add_flag("-f,--force", c.force, "replace an earlier output");
  cli::add_quiet(*sub, c.common);
  sub->callback([command] { run(*command); });
}

}  // namespace focus::tools
