// The OpenMP run time lets idle threads spin before they sleep. On a shared machine, or in a container with a
// CPU quota, that costs more than it gains: a training step was ten times slower beside other jobs. So a
// program has them spin less, unless the user set it.
#include <unistd.h>

#include <string_view>

namespace {

char* value_of(std::string_view name) noexcept {
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    if (text.starts_with(name) && text.substr(name.size()).starts_with('=')) return *entry + name.size() + 1;
  }
  return nullptr;
}

}  // namespace

// The run time has no call for this setting. It reads the environment when it is loaded, before any code of
// the program: even what .preinit_array adds to the environment is lost, because the C library takes the
// environment over after that. But a function of the program takes precedence over the C library's, and the
// run time asks getenv.
extern "C" char* getenv(const char* name) noexcept {
  static char few[] = "1000";
  char* value = value_of(name);
  const bool unset = value == nullptr && std::string_view(name) == "GOMP_SPINCOUNT" &&
                     value_of("OMP_WAIT_POLICY") == nullptr;
  return unset ? few : value;
}
