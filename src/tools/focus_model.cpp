#include "commands.h"

int main(int argc, char** argv) {
  using namespace focus;
  CLI::App app(
      "Looks into model files, converts and makes them, and checks that this machine and a model compute "
      "what "
      "they should.",
      "focus-model");
  app.require_subcommand(1);
  tools::add_inspect(app);
  tools::add_convert(app);
  tools::add_random(app);
  tools::add_bench(app);
  tools::add_plan(app);
  tools::add_doctor(app);
  tools::add_selftest(app, cli::quoted_command(argc, argv));
  return cli::run_program(app, argc, argv);
}
