#include "common.h"

#include <ATen/Parallel.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/util/Exception.h>
#include <malloc.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <iostream>
#include <new>
#include <thread>

#include "focus/core/error.h"
#include "focus/core/interrupt.h"
#include "focus/core/log.h"
#include "focus/core/units.h"
#include "focus/core/version.h"
#include "focus/model/placement.h"
#include "focus/ops/out_of_memory.h"

namespace focus::cli {
namespace {

// Tensors of tens of MiB come and go in every block. By default the C library gives such memory back at once, and the kernel has to clear
// it again for the next: twice the page faults of a training step. What is freed stays with the program instead, up to 1 GiB.
void keep_freed_memory() {
  if (std::getenv("GLIBC_TUNABLES") != nullptr) return;  // the user's own choice
  mallopt(M_MMAP_THRESHOLD, 32 << 20);                   // the highest value that the C library takes
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
}

}  // namespace

void add_machine_options(CLI::App& app, CommonOptions& options) {
  app.option_defaults()->group("Machine");
  app.add_option("--device", options.device, "auto, cpu or cuda:N")->capture_default_str();
  app.add_option("--dtype", options.dtype, "fp32 or bf16")->capture_default_str();
  app.add_option("-t,--threads", options.threads, "CPU threads; 0 = all cores");
  app.option_defaults()->group("Messages");
  app.add_flag("-v,--verbose", options.verbose, "more messages");
  add_quiet(app, options);
}

void add_quiet(CLI::App& app, CommonOptions& options) {
  app.option_defaults()->group("Messages");
  app.add_flag("-q,--quiet", options.quiet, "warnings and errors only");
}

void add_common_options(CLI::App& app, CommonOptions& options) {
  app.option_defaults()->group("Input");
  app.add_option("-c,--config", options.config, "JSON configuration file (comments allowed)");
  app.add_option("--set", options.overrides, "override one setting: path.to.key=value; may be repeated")
      ->allow_extra_args(false)
      ->take_all();
  app.add_option("--seed", options.seed, "random seed");
  add_machine_options(app, options);
}

namespace {

/// Why a text is no number of at least `least`; empty when it is one.
std::string number_error(int64_t (*parse)(std::string_view), int64_t least, const std::string& text) {
  try {
    return parse(text) < least ? concat("'", text, "': expected at least ", least) : "";
  } catch (const ConfigError& e) {
    return e.what();
  }
}

CLI::Option* add_number(CLI::App& app, const std::string& name, int64_t& target, const std::string& help,
                        int64_t (*parse)(std::string_view), int64_t least, const char* type) {
  const auto check = [parse, least](const std::string& text) { return number_error(parse, least, text); };
  return app
      .add_option_function<std::string>(
          name, [&target, parse](const std::string& text) { target = parse(text); }, help)
      ->check(CLI::Validator(check, type))
      ->default_str(std::to_string(target));
}

}  // namespace

std::string count_error(const std::string& text) { return number_error(parse_count, 0, text); }

CLI::Option* add_count(CLI::App& app, const std::string& name, int64_t& target, const std::string& help) {
  return add_number(app, name, target, help, parse_count, 0, "COUNT");
}

CLI::Option* add_count(CLI::App& app, const std::string& name, std::optional<int64_t>& target, const std::string& help) {
  const auto take = [&target](const std::string& text) {
    const int64_t count = parse_count(text);
    target = count > 0 ? std::optional(count) : std::nullopt;
  };
  return app.add_option_function<std::string>(name, take, help)->check(CLI::Validator(count_error, "COUNT"))->default_str("0");
}

CLI::Option* add_bytes(CLI::App& app, const std::string& name, int64_t& target, const std::string& help) {
  return add_number(app, name, target, help, parse_bytes, 1, "BYTES");
}

void apply_common_options(const CommonOptions& options, int64_t configured_threads) {
  log::set_verbosity(options.quiet ? 0 : options.verbose > 0 ? 2 : 1);
  const int64_t wanted = options.threads >= 0 ? options.threads : configured_threads;
  at::set_num_threads(wanted > 0 ? static_cast<int>(wanted) : static_cast<int>(std::max(1U, std::thread::hardware_concurrency())));
  install_interrupt_handlers();
}

void apply_rank(const distributed::RankEnvironment& environment, int64_t& threads, std::string& device, CommonOptions& common) {
  if (environment.size == 1) return;
  if (environment.rank > 0) common.quiet = true;
  log::set_label(concat("rank ", environment.rank, ": "));
  if (threads == 0 && common.threads <= 0)
    threads = std::max<int64_t>(1, static_cast<int64_t>(std::thread::hardware_concurrency()) / environment.local_size);
  if (common.threads == 0) common.threads = -1;
  device = model::resolve_devices(device);
  // A launcher may show each rank one GPU only, which then is cuda:0 for all of them.
  const int64_t num_devices = at::detail::getCUDAHooks().deviceCount();
  if (device == "cuda:0" && num_devices > 1) device = concat("cuda:", environment.local_rank % num_devices);
}

std::string quoted_command(int argc, char** argv) {
  std::string out;
  for (int i = 0; i < argc; ++i) {
    const std::string word = argv[i];
    const bool plain =
        !word.empty() &&
        word.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=./:,@%") == std::string::npos;
    out += i > 0 ? " " : "";
    if (plain) {
      out += word;
      continue;
    }
    out += '\'';
    // A line break would end the comment line that the command is written into.
    for (const char c : word) out += c == '\'' ? std::string("'\\''") : c == '\n' || c == '\r' ? std::string(" ") : std::string(1, c);
    out += '\'';
  }
  return out;
}

int run_program(CLI::App& app, int argc, char** argv, const std::function<void()>& body) {
  keep_freed_memory();
  std::signal(SIGPIPE, SIG_DFL);  // a closed pipe ends the program quietly
  app.set_version_flag("--version", version_line())->group("Options");
  const auto code = [](ExitCode c) { return static_cast<int>(c); };
  if (argc < 2) {
    std::cerr << app.help();
    return code(ExitCode::usage);
  }
  const auto commands = app.get_subcommands([](const CLI::App*) { return true; });
  const bool known = std::any_of(commands.begin(), commands.end(), [&](const CLI::App* command) { return command->check_name(argv[1]); });
  if (!commands.empty() && argv[1][0] != '-' && !known) {
    std::cerr << "unknown subcommand '" << argv[1] << "'; known:";
    for (const CLI::App* command : commands) std::cerr << " " << command->get_name();
    std::cerr << "\nRun with --help for more information.\n";
    return code(ExitCode::usage);
  }
  try {
    app.parse(argc, argv);
    body();
    if (!std::cout.flush()) fail<DataError>("cannot write to standard output: is the disk full?");
    return code(ExitCode::ok);
  } catch (const CLI::ParseError& e) {
    const int status = app.exit(e, std::cout, std::cerr);
    if (status != 0) return code(ExitCode::usage);
    return std::cout.flush() ? code(ExitCode::ok) : code(ExitCode::data);
  } catch (const Error& e) {
    log::error(e.what());
    return code(e.exit_code());
  } catch (const c10::OutOfMemoryError& e) {
    log::error(concat("out of device memory: ", e.what_without_backtrace(), "; use a shorter length, a smaller batch or --device cpu"));
    return code(ExitCode::resources);
  } catch (const std::bad_alloc&) {
    log::error("out of memory; use a shorter length or a smaller batch");
    return code(ExitCode::resources);
  } catch (const c10::Error& e) {
    const std::string what = e.what_without_backtrace();
    const bool memory = ops::is_out_of_memory(e);
    log::error(concat(memory ? "out of memory: " : "LibTorch failed: ", what));
    return code(memory ? ExitCode::resources : ExitCode::check_failed);
  } catch (const std::exception& e) {
    log::error(concat("unexpected failure: ", e.what()));
    return code(ExitCode::check_failed);
  }
}

}  // namespace focus::cli
