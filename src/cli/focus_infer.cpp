#include "commands.h"

int main(int argc, char** argv) {
  CLI::App app("Applies a model to sequences.", "focus-infer");
  app.require_subcommand(1);
  focus::cli::add_score(app, focus::cli::quoted_command(argc, argv));
  return focus::cli::run_program(app, argc, argv);
}
