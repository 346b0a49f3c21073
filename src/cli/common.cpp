#include "common.h"

#include <ATen/Parallel.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/util/Exception.h>
#include <malloc.h>

#include <algorithm>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <new>

#include "focus/config/fields.h"
#include "focus/core/error.h"
#include "focus/core/interrupt.h"
#include "focus/core/log.h"
#include "focus/core/processors.h"
#include "focus/core/units.h"
#include "focus/core/version.h"
#include "focus/model/placement.h"
#include "focus/ops/device_memory.h"
#include "focus/ops/out_of_memory.h"

namespace focus::cli {
namespace {

// Tensors of tens of MiB come and go in every block. By default the C library gives such memory back at once,
// and the kernel has to clear it again for the next: twice the page faults of a training step. What is freed
// stays with the program instead, up to 1 GiB.
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
  add_threads(app, options, "CPU threads");
  app.option_defaults()->group("Messages");
  app.add_flag("-v,--verbose", options.verbose, "more messages");
  add_quiet(app, options);
}

namespace {

int64_t most_threads() { return 16 * read_processors().machine; }

/// Why a text is no whole number from 0 to `most`; empty when it is one.
std::string bound_error(const std::string& text, int64_t most, const char* of_what) {
  int64_t value = -1;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = error == std::errc() && stop == text.data() + text.size();
  return whole && value >= 0 && value <= most
             ? ""
             : concat("'", text, "': expected a whole number from 0 to ", most, of_what);
}

}  // namespace

void add_threads(CLI::App& app, CommonOptions& options, const std::string& what) {
  const auto check = [](const std::string& text) {
    return bound_error(text, most_threads(), ", 16 for each processor of this machine");
  };
  app.add_option("-t,--threads", options.threads,
                 what +
                     "; 0 = as many as this process may use: the least of its cores, its cgroup's quota and "
                     "OMP_NUM_THREADS")
      ->check(CLI::Validator(check, "COUNT"));
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
  constexpr int64_t kMostSeed = int64_t{1} << 62;
  app.add_option("--seed", options.seed, "random seed")
      ->check(
          CLI::Validator([](const std::string& text) { return bound_error(text, kMostSeed, ""); }, "INT"));
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

CLI::Option* add_count(CLI::App& app, const std::string& name, std::optional<int64_t>& target,
                       const std::string& help) {
  const auto take = [&target](const std::string& text) {
    const int64_t count = parse_count(text);
    target = count > 0 ? std::optional(count) : std::nullopt;
  };
  return app.add_option_function<std::string>(name, take, help)
      ->check(CLI::Validator(count_error, "COUNT"))
      ->default_str("0");
}

CLI::Option* add_bytes(CLI::App& app, const std::string& name, int64_t& target, const std::string& help) {
  return add_number(app, name, target, help, parse_bytes, 1, "BYTES");
}

void apply_verbosity(const CommonOptions& options) {
  log::set_verbosity(options.quiet ? 0 : options.verbose > 0 ? 2 : 1);
}

void apply_common_options(const CommonOptions& options, int64_t configured_threads) {
  apply_verbosity(options);
  const int64_t wanted = options.threads.value_or(configured_threads);
  if (wanted > most_threads())
    fail<ConfigError>("threads: ", wanted, " are more than 16 for each of this machine's ",
                      read_processors().machine,
                      " processors; pass -t with fewer, 0 for as many as this process may use");
  at::set_num_threads(static_cast<int>(wanted > 0 ? wanted : read_processors().usable()));
  install_interrupt_handlers();
}

void apply_rank(const distributed::RankEnvironment& environment, int64_t& threads, std::string& device,
                CommonOptions& common) {
  if (environment.size == 1) return;
  if (environment.rank > 0) common.quiet = true;
  log::set_label(concat("rank ", environment.rank, ": "));
  threads = common.threads.value_or(threads);
  common.threads.reset();
  if (threads == 0) {
    const Processors processors = read_processors();
    // srun and mpirun give each rank cores of its own; torchrun's share those that it may use.
    const bool own_cores = environment.launcher != "torchrun" &&
                           processors.allowed.value_or(processors.machine) < processors.machine;
    const int64_t cores = processors.shared() / (own_cores ? 1 : environment.local_size);
    threads = std::max<int64_t>(1, std::min(cores, processors.openmp.value_or(cores)));
  }
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
        word.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=./:,@%") ==
            std::string::npos;
    out += i > 0 ? " " : "";
    if (plain) {
      out += word;
      continue;
    }
    out += '\'';
    // A line break would end the comment line that the command is written into.
    for (const char c : word)
      out += c == '\'' ? std::string("'\\''") : c == '\n' || c == '\r' ? std::string(" ") : std::string(1, c);
    out += '\'';
  }
  return out;
}

namespace {

int run(CLI::App& app, int argc, char** argv, const std::function<void()>& body) {
  keep_freed_memory();
  std::signal(SIGPIPE, SIG_DFL);  // a closed pipe ends the program quietly
  app.set_version_flag("--version", version_line())->group("Options");
  const auto code = [](ExitCode c) { return static_cast<int>(c); };
  if (argc < 2) {
    std::cerr << app.help();
    return code(ExitCode::usage);
  }
  const auto commands = app.get_subcommands([](const CLI::App*) { return true; });
  const bool known = std::any_of(commands.begin(), commands.end(),
                                 [&](const CLI::App* command) { return command->check_name(argv[1]); });
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
    log::error(e.what() + config::tried_too(e.what()));
    return code(e.exit_code());
  } catch (const c10::OutOfMemoryError& e) {
    log::error(concat("out of device memory: ", e.what_without_backtrace(),
                      "; use a shorter length, a smaller batch or --device cpu"));
    return code(ExitCode::resources);
  } catch (const std::bad_alloc&) {
    log::error("out of memory; use a shorter length or a smaller batch");
    return code(ExitCode::resources);
  } catch (const c10::Error& e) {
    const std::string what = e.what_without_backtrace();
    const bool memory = ops::is_out_of_memory(e);
    log::error(concat(memory ? "out of memory: " : "LibTorch failed: ", what));
    return code(memory ? ExitCode::resources : ExitCode::check_failed);
  } catch (const std::filesystem::filesystem_error& e) {
    log::error(concat("'", e.path1().string(), "': ", e.code().message(),
                      "; check that it exists and that you may read or write it"));
    return code(ExitCode::data);
  } catch (const std::exception& e) {
    log::error(concat("unexpected failure: ", e.what()));
    return code(ExitCode::check_failed);
  }
}

}  // namespace

int run_program(CLI::App& app, int argc, char** argv, const std::function<void()>& body) {
  const int status = run(app, argc, argv, body);
#if !defined(__SANITIZE_ADDRESS__)  // looks for leaks at a regular end
  // At a regular end LibTorch takes back its operators one by one, a quarter of the time of a short run. All
  // of ours is closed by now. On a card a profiler may wait for that end.
  if (!ops::has_device_kernels(at::kCUDA)) {
    std::cout.flush();
    std::fflush(nullptr);
    std::_Exit(status);
  }
#endif
  return status;
}

}  // namespace focus::cli
