#include "random_command.h"

#include "focus/core/error.h"
#include "focus/core/log.h"
#include "focus/core/units.h"
#include "focus/weights/random_weights.h"
#include "model_output.h"

namespace focus::tools {

CLI::App* add_random(CLI::App& app, RandomCommand& c) {
  CLI::App* sub =
      app.add_subcommand("random",
                         "Writes a checkpoint of random weights in any shape, in Evo-2's names and layout, to try memory and speed "
                         "before a download.");
  sub->option_defaults()->group("Input");
  sub->add_option("--model-config", c.model_config, "the model's shape: an Evo-2 YAML file")->required();
  sub->option_defaults()->group("Output");
  sub->add_option("-o,--output", c.output, "NAME.pt, NAME.safetensors, or a folder for safetensors shards")->required();
  sub->add_option("--seed", c.seed, "same seed, same numbers")->check(CLI::NonNegativeNumber)->capture_default_str();
  sub->add_option("--dtype", c.dtype, "of the weights; norm scales, poles, residues and rotary frequencies are fp32")
      ->check(CLI::IsMember({"bf16", "fp32"}))
      ->capture_default_str();
  sub->add_flag("-f,--force", c.force, "replace an earlier output");
  sub->option_defaults()->group("Messages");
  sub->add_flag("-q,--quiet", c.quiet, "warnings and errors only");
  return sub;
}

void run_random(const RandomCommand& c) {
  cli::CommonOptions common;
  common.quiet = c.quiet;
  cli::apply_common_options(common, 0);
  const model::ModelConfig config = model::read_model_config(c.model_config);
  ModelOutput output(c.output, c.force);
  const weights::RandomWeights checkpoint(config, {.seed = static_cast<uint64_t>(c.seed),
                                                   .dtype = c.dtype == "fp32" ? formats::DType::float32 : formats::DType::bfloat16,
                                                   .scratch = output.scratch("state")});
  output.write(checkpoint.tensors(), {}, checkpoint.opaque());
  output.commit();
  log::info(concat("wrote ", format_count(static_cast<int64_t>(checkpoint.tensors().size())), " tensors of model '", config.name, "', ",
                   format_bytes(output.tensor_bytes()), ", to '", c.output, "'"));
}

}  // namespace focus::tools
