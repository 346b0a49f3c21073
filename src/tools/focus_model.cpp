#include "bench_command.h"
#include "convert_command.h"
#include "doctor_command.h"
#include "inspect_command.h"
#include "random_command.h"
#include "selftest_command.h"

int main(int argc, char** argv) {
  using namespace focus;
  CLI::App app("Looks into model files, converts and makes them, and checks that this machine and a model compute what they should.",
               "focus-model");
  app.require_subcommand(1);
  tools::InspectCommand inspect;
  tools::ConvertCommand convert;
  tools::RandomCommand random;
  tools::BenchCommand bench;
  tools::DoctorCommand doctor;
  tools::SelftestCommand selftest;
  const CLI::App* inspect_app = tools::add_inspect(app, inspect);
  const CLI::App* convert_app = tools::add_convert(app, convert);
  const CLI::App* random_app = tools::add_random(app, random);
  const CLI::App* bench_app = tools::add_bench(app, bench);
  const CLI::App* doctor_app = tools::add_doctor(app, doctor);
  const CLI::App* selftest_app = tools::add_selftest(app, selftest);
  return cli::run_program(app, argc, argv, [&] {
    if (inspect_app->parsed()) tools::run_inspect(inspect);
    if (convert_app->parsed()) tools::run_convert(convert);
    if (bench_app->parsed()) tools::run_bench(bench);
    if (random_app->parsed()) tools::run_random(random);
    if (doctor_app->parsed()) tools::run_doctor(doctor);
    if (selftest_app->parsed()) tools::run_selftest(selftest, cli::quoted_command(argc, argv));
  });
}
