#include "focus/distributed/rank_environment.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>

#include "focus/core/error.h"

namespace focus::distributed {
namespace {

constexpr int64_t kDefaultPort = 29500, kFirstSlurmPort = 20000, kNumSlurmPorts = 10000;

std::optional<int64_t> number(const Variables& variables, const std::string& name) {
  const auto text = variables(name);
  if (!text) return std::nullopt;
  int64_t value = -1;
  const auto [stop, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (error != std::errc() || stop != text->data() + text->size() || value < 0)
    fail<ConfigError>("environment variable ", name, "='", *text, "': expected a whole number from 0");
  return value;
}

struct Launcher {
  const char* name;
  const char* size;
  const char* rank;
  const char* local_rank;
  const char* local_size;
};

// A batch script under Slurm sees SLURM_NTASKS and SLURM_PROCID without being one of several tasks: only srun
// sets the step's number of tasks.
constexpr std::array<Launcher, 4> kLaunchers = {{
    {"torchrun", "WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE"},
    {"srun", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"},
    {"mpirun (Open MPI)", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK",
     "OMPI_COMM_WORLD_LOCAL_SIZE"},
    {"mpirun (PMI)", "PMI_SIZE", "PMI_RANK", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"},
}};

/// The first host of a Slurm list: "node[03-07,9],other" begins with "node03".
std::string first_host(const std::string& list) {
  const std::size_t bracket = list.find('['), comma = list.find(',');
  if (bracket == std::string::npos || comma < bracket) return list.substr(0, comma);
  const std::size_t end = list.find_first_of("-,]", bracket);
  return list.substr(0, bracket) + list.substr(bracket + 1, end - bracket - 1);
}

/// Tasks on the first node of "4(x2),3"; good enough to share out the cores of a node.
std::optional<int64_t> local_size_of(const Variables& variables, const Launcher& launcher) {
  const auto text = variables(launcher.local_size);
  if (!text) return std::nullopt;
  return number([&](const std::string&) { return text->substr(0, text->find_first_of("(,")); },
                launcher.local_size);
}

std::string find_address(const Variables& variables, const RankEnvironment& found) {
  if (const auto named = variables("MASTER_ADDR")) return *named;
  if (found.size == found.local_size) return "127.0.0.1";
  if (const auto nodes = variables("SLURM_STEP_NODELIST")) return first_host(*nodes);
  fail<ConfigError>("MASTER_ADDR is not set, and ", found.launcher, " does not tell where rank 0 of ",
                    found.size, " runs; set MASTER_ADDR to its host name or address, the same for all ranks");
}

int64_t find_port(const Variables& variables) {
  if (const auto named = number(variables, "MASTER_PORT")) return *named;
  if (const auto job = number(variables, "SLURM_JOB_ID")) return kFirstSlurmPort + *job % kNumSlurmPorts;
  return kDefaultPort;
}

}  // namespace

RankEnvironment read_rank_environment(const Variables& variables) {
  for (const Launcher& launcher : kLaunchers) {
    const auto size = number(variables, launcher.size);
    if (!size || *size == 1) {
      if (size) break;  // the nearest launcher says: one process
      continue;
    }
    const auto rank = number(variables, launcher.rank);
    if (!rank)
      fail<ConfigError>(launcher.size, " is ", *size, ", but ", launcher.rank,
                        " is not set: which of the ranks is this?");
    if (*size < 1 || *rank >= *size)
      fail<ConfigError>(launcher.rank, " is ", *rank, " and ", launcher.size, " is ", *size,
                        ": ranks count from 0");
    RankEnvironment found;
    found.launcher = launcher.name;
    found.rank = *rank;
    found.size = *size;
    found.local_rank = number(variables, launcher.local_rank).value_or(*rank);
    found.local_size = std::max(local_size_of(variables, launcher).value_or(*size), found.local_rank + 1);
    found.address = find_address(variables, found);
    found.port = find_port(variables);
    if (found.port < 1 || found.port > 65535)
      fail<ConfigError>("MASTER_PORT is ", found.port, "; a port is a number from 1 to 65535");
    const auto agent = variables("TORCHELASTIC_USE_AGENT_STORE");
    found.store_is_running = agent && *agent == "True";
    if (found.store_is_running)
      found.key_prefix =
          concat("/worker/attempt_", number(variables, "TORCHELASTIC_RESTART_COUNT").value_or(0));
    return found;
  }
  return {};
}

RankEnvironment read_rank_environment() {
  return read_rank_environment([](const std::string& name) -> std::optional<std::string> {
    const char* value = std::getenv(name.c_str());
    if (value == nullptr || *value == '\0') return std::nullopt;
    return value;
  });
}

}  // namespace focus::distributed
