// What this machine is and has, read from the system. Anything the system does not tell is left out or null.
#pragma once

#include <nlohmann/json.hpp>
#include <set>
#include <string>

namespace focus::tools {

using Facts = nlohmann::ordered_json;

/// Model name, cores, and which of the instruction sets that matter here the processor and the system offer.
Facts processor_facts();
/// Flags of the first processor as /proc/cpuinfo has them; they are there only where the system saves the registers too.
std::set<std::string> processor_flags();
/// Memory of the machine, and what this process may use of it.
Facts memory_facts();
/// Free space of the temporary folder and of /dev/shm.
Facts space_facts();
/// NVIDIA's driver and devices, by its management library; works in a build without CUDA too.
Facts gpu_facts();

}  // namespace focus::tools
