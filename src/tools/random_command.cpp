#include <memory>

#include "commands.h"
#include "focus/core/error.h"
#include "focus/core/log.h"
#include "focus/core/output_guard.h"
#include "focus/core/units.h"
#include "focus/weights/random_weights.h"
#include "model_output.h"

namespace focus::tools {
namespace {

struct RandomCommand {
  cli::CommonOptions common;
  std::string model_config, output, dtype = "bf16";
  int64_t seed = 0;
  bool force = false;
};

void run(const RandomCommand& c) {
  cli::apply_common_options(c.common, 0);
  const model::ModelConfig config = model::read_model_config(c.model_config);
  require_separate({{"--output", c.output}}, {{"--model-config", c.model_config}});
  ModelOutput output(c.output, c.force);
  const weights::RandomWeights checkpoint(
      config, {.seed = static_cast<uint64_t>(c.seed),
               .dtype = c.dtype == "fp32" ? formats::DType::float32 : formats::DType::bfloat16,
               .scratch = output.scratch("state")});
  output.write(checkpoint.tensors(), {}, checkpoint.opaque());
  output.commit();
  log::info(concat("wrote ", format_count(static_cast<int64_t>(checkpoint.tensors().size())),
                   " tensors of model '", config.name, "', ", format_bytes(output.tensor_bytes()), ", to '",
                   c.output, "'"));
}

}  // namespace

void add_random(CLI::App& app) {
  CLI::App* sub = app.add_subcommand("random",
                                     "Writes a checkpoint of random weights in any shape, in Evo-2's names "
                                     "and layout, to try memory and speed "
                                     "before a download.");
  const auto command = std::make_shared<RandomCommand>();
  RandomCommand& c = *command;
  sub->option_defaults()->group("Input");
  sub->add_option("--model-config", c.model_config, "the model's shape: an Evo-2 YAML file")->required();
  sub->option_defaults()->group("Output");
  sub->add_option("-o,--output", c.output, "NAME.pt, NAME.safetensors, or a folder for safetensors shards")
      ->required();
  sub->add_option("--seed", c.seed, "same seed, same numbers")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  sub->add_option("--dtype", c.dtype,
                  "of the weights; norm scales, poles, residues and rotary frequencies are fp32")
      ->check(CLI::IsMember({"bf16", "fp32"}))
      ->capture_default_str();
  sub->add_flag("-f,--force", c.force, "replace an earlier output");
  cli::add_quiet(*sub, c.common);
  sub->callback([command] { run(*command); });
}

}  // namespace focus::tools
