// Ctrl-C and termination requests: work in progress is finished, what was learned is saved, then the program ends with exit code 130.
#pragma once

namespace focus {

/// From now on SIGINT and SIGTERM only set a flag (and say so on stderr once). A second SIGINT ends the process at once with 130.
void install_interrupt_handlers();
/// True once a signal has arrived. Long loops ask after each step or record, save, and throw Interrupted.
bool interrupt_requested();
/// Forgets earlier signals.
void reset_interrupt();

}  // namespace focus
