// Ctrl-C and termination requests: work in progress is finished, what was learned is saved, then the program ends with exit code 130
// (SIGINT) or 143 (SIGTERM).
#pragma once

namespace focus {

/// From now on the first SIGINT or SIGTERM only sets a flag (and says so on stderr once). A later one ends the process at once with 128 +
/// its number. Those that follow within a second belong to the first: torchrun, srun and a terminal each send their own for one request.
void install_interrupt_handlers();
/// True once a signal has arrived. Long loops ask after each step or record, save, and throw Interrupted.
bool interrupt_requested();
/// The first signal that arrived, 0 without one.
int interrupt_signal();
/// As if `signal` had arrived here, for a request that reached another process of the same run. Says nothing on stderr.
void request_interrupt(int signal);
/// Forgets earlier signals.
void reset_interrupt();

}  // namespace focus
