#include "score_command.h"

int main(int argc, char** argv) {
  using namespace focus;
  CLI::App app("Applies a model to sequences.", "focus-infer");
  app.require_subcommand(1);
  cli::ScoreCommand score;
  const CLI::App* score_app = cli::add_score(app, score);
  return cli::run_program(app, argc, argv, [&] {
    if (score_app->parsed()) cli::run_score(score, cli::quoted_command(argc, argv));
  });
}
