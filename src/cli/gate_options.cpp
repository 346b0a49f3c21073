#include "gate_options.h"

#include <cmath>
#include <iostream>

#include "focus/core/error.h"

namespace focus::cli {
namespace {

void add_bound(CLI::App& app, const std::string& name, std::optional<double>& target,
               const std::string& help) {
  const CLI::Validator finite(
      [](const std::string& text) {
        double value = 0;
        return CLI::detail::lexical_cast(text, value) && std::isfinite(value)
                   ? std::string()
                   : "'" + text + "': expected a number";
      },
      "NUMBER");
  app.add_option(name, target, help)->check(finite);
}

}  // namespace

void add_gates(CLI::App& app, report::Gates& gates) {
  app.option_defaults()->group("Gates: exit status 5 where one is not kept");
  add_bound(app, "--max-kl", gates.max_kl, "mean KL from full memory, in nats");
  add_bound(app, "--min-r", gates.min_r, "R, the share of state_only's loss that is avoided, up to 1");
  add_bound(app, "--min-top1", gates.min_top1,
            "share of positions whose most probable token is full memory's");
  add_bound(app, "--min-recall", gates.min_recall,
            "share of full memory's gain over state_only at bases whose 32 letters before occurred behind "
            "the window");
  add_bound(app, "--min-memory-drop", gates.min_memory_drop,
            "share of full memory's bytes that are not held: closed windows, open one and far memory");
  add_bound(app, "--max-perplexity-rise", gates.max_perplexity_rise,
            "what is added to full memory's perplexity, as a share of it");
  app.add_option(
      "--baseline", gates.baseline,
      "folder of an earlier run over the same segments: KL no worse than its, by the paired 95% interval");
  app.add_option("--gate-method", gates.method,
                 "the method that is judged; default the first trained one, else 'fitted'");
}

GateKeeper::GateKeeper(report::Gates gates) : gates_(std::move(gates)) {
  if (!gates_.baseline.empty()) baseline_ = report::read_run_summary(gates_.baseline);
}

std::string GateKeeper::method_of(const eval::FidelityConfig& config) const {
  if (!gates_.method.empty()) return gates_.method;
  return eval::method_in_question(config);
}

void GateKeeper::require_answerable(const eval::FidelityConfig& config) const {
  report::require_answerable(gates_, eval::fidelity_methods(config), method_of(config));
}

void GateKeeper::check(const eval::FidelityConfig& config, const report::RunSummary& run,
                       const std::string& where) {
  for (const report::GateResult& gate :
       report::check_gates(gates_, run, method_of(config), baseline_, where)) {
    std::cout << gate.text << "\n";
    num_failed_ += gate.passed ? 0 : 1;
  }
}

void GateKeeper::finish() const {
  if (num_failed_ == 0) return;
  std::cout << std::flush;
  fail<CheckFailed>(num_failed_, num_failed_ == 1 ? " gate was" : " gates were", " not kept");
}

}  // namespace focus::cli
