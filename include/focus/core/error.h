// The error family. Libraries throw these and never exit; only the command line programs catch them and turn
// exit_code() into the program's. A message says what is wrong, where (file, key, tensor, layer, line), what
// was expected and what to do.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace focus {

/// Exit codes of the command line programs; an interrupt ends with 128 + the signal's number, as 130 (SIGINT)
/// and 143 (SIGTERM).
enum class ExitCode : int {
  ok = 0,
  usage = 1,
  data = 2,
  model = 3,
  resources = 4,
  check_failed = 5,
  interrupted = 130,
  terminated = 143
};

class Error : public std::runtime_error {
 public:
  Error(const std::string& message, ExitCode exit_code)
      : std::runtime_error(message), exit_code_(exit_code) {}
  ExitCode exit_code() const { return exit_code_; }

 private:
  ExitCode exit_code_;
};

#define FOCUS_DECLARE_ERROR(Name, code)                                           \
  class Name : public Error {                                                     \
   public:                                                                        \
    explicit Name(const std::string& message) : Error(message, ExitCode::code) {} \
  }
FOCUS_DECLARE_ERROR(ConfigError, usage);           // bad command line or configuration
FOCUS_DECLARE_ERROR(DataError, data);              // bad or missing input data, output that cannot be written
FOCUS_DECLARE_ERROR(WeightsError, model);          // bad or missing model weights
FOCUS_DECLARE_ERROR(CheckpointError, model);       // bad or missing training checkpoint or adapter
FOCUS_DECLARE_ERROR(ShapeError, model);            // tensors that do not fit together
FOCUS_DECLARE_ERROR(DeviceError, resources);       // device or backend not available
FOCUS_DECLARE_ERROR(MemoryError, resources);       // out of memory
FOCUS_DECLARE_ERROR(CheckFailed, check_failed);    // a self-test, gate or finiteness check failed
FOCUS_DECLARE_ERROR(InternalError, check_failed);  // a bug in focus itself
#undef FOCUS_DECLARE_ERROR

/// Thrown after an interrupt was honoured (the step finished, the checkpoint is written). Its exit code names
/// the signal that arrived.
class Interrupted : public Error {
 public:
  explicit Interrupted(const std::string& message);
};

/// Streams all arguments into one string.
template <class... Args>
std::string concat(const Args&... args) {
  std::ostringstream out;
  (out << ... << args);
  return out.str();
}

/// Throws E with the concatenated arguments as its message.
template <class E, class... Args>
[[noreturn]] void fail(const Args&... args) {
  throw E(concat(args...));
}

}  // namespace focus

/// Guards an invariant of focus itself (not user input): throws InternalError with file and line.
#define FOCUS_CHECK(condition, ...)                                                                     \
  do {                                                                                                  \
    if (!(condition))                                                                                   \
      ::focus::fail<::focus::InternalError>("internal check failed: " #condition " at ", __FILE__, ":", \
                                            __LINE__, ": ", ##__VA_ARGS__);                             \
  } while (false)
