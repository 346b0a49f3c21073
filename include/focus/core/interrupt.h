// Ctrl-C and termination requests: work in progress is finished, what was learned is saved, then the program
// ends with exit code 128 + the signal's number: 130 (SIGINT), 143 (SIGTERM), 129 (SIGHUP).
#pragma once

namespace focus {

/// From now on the first SIGINT, SIGTERM, SIGHUP (a terminal that closed; not under nohup) or SIGXCPU,
/// SIGUSR1, SIGUSR2 (by which batch systems announce the end of a job's time) only sets a flag (and says so
/// on stderr once). A later one, SIGXCPU apart, removes what is temporary (core/temporary.h) and ends the
/// process at once with 128 + its number. Those that follow within a second belong to the first: torchrun,
/// srun and a terminal each send their own for one request. SIGPIPE ends the process as it always does, but
/// removes what is temporary too. SIGXFSZ is ignored: a file that may not grow is an error of its write.
void install_interrupt_handlers();
/// True once a signal has arrived. Long loops ask after each step or record, save, and throw Interrupted.
bool interrupt_requested();
/// The first signal that arrived, 0 without one.
int interrupt_signal();
/// As if `signal` had arrived here, for a request that reached another process of the same run. Says nothing
/// on stderr.
void request_interrupt(int signal);
/// Forgets earlier signals.
void reset_interrupt();

}  // namespace focus
