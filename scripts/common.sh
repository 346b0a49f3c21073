# shellcheck shell=bash
# Shared by the scripts of this folder, which source it. Sets `root`, the source root.
# shellcheck disable=SC2034  # used by the scripts
root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)"
if [[ -d "${FOCUS_TORCH_DIR-}" ]]; then FOCUS_TORCH_DIR="$(cd -- "$FOCUS_TORCH_DIR" && pwd)"; fi  # the scripts change folder

say() { printf '%s\n' "$*" >&2; }

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# The comment at the head of a script is its help text.
show_help() { awk 'NR > 1 { if ($0 !~ /^#/) exit; sub(/^# ?/, ""); print }' "$1"; }

# step TITLE COMMAND...: runs the command, says what it is before and how long it took after.
step() {
  local title="$1" begin="$SECONDS"
  shift
  say "==> $title"
  "$@" || { local status="$?"; say "==> $title: failed"; exit "$status"; }
  say "==> $title: $((SECONDS - begin)) s"
}

# Compile jobs that fit: one per core, but at most one per 2 GB of free memory.
build_jobs() {
  local cores free_kb jobs
  cores="$(nproc)"
  free_kb="$(awk '$1 == "MemAvailable:" { print $2 }' /proc/meminfo 2>/dev/null || true)"
  jobs=$((${free_kb:-2097152} / 2097152))
  if ((jobs > cores)); then jobs="$cores"; fi
  if ((jobs < 1)); then jobs=1; fi
  printf '%s\n' "$jobs"
}
