#!/usr/bin/env bash
# Usage: scripts/build.sh [-j JOBS] [--target NAME ...] [PRESET] [-DNAME=VALUE ...]
#
# Sets the machine up (scripts/setup.sh), configures and builds. PRESET is one of CMakePresets.json: cpu-release (default),
# cpu-debug-asan, cuda-release. The programs end up in build/PRESET/bin. Compiles as many files at once as there are cores, but no
# more than one per 2 GB of free memory; -j sets the number. --target builds only what is named. Further arguments go to CMake's configure step.
#
# Environment: FOCUS_TORCH_DIR   a LibTorch folder, or a python package's torch folder.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

preset=cpu-release
jobs=""
defines=()
targets=()
while (($# > 0)); do
  case "$1" in
    -h | --help) show_help "${BASH_SOURCE[0]}"; exit 0 ;;
    -j) [[ "${2-}" =~ ^[1-9][0-9]*$ ]] || fail "-j needs a number"; jobs="$2"; shift ;;
    -j*) jobs="${1#-j}"; [[ "$jobs" =~ ^[1-9][0-9]*$ ]] || fail "-j needs a number" ;;
    --target) [[ -n "${2-}" ]] || fail "--target needs a name"; targets+=(--target "$2"); shift ;;
    -D*) defines+=("$1") ;;
    -*) fail "unknown option '$1'; see scripts/build.sh --help" ;;
    *) preset="$1" ;;
  esac
  shift
done
cd -- "$root"

setup=(scripts/setup.sh)
if [[ "$preset" == cuda* ]]; then setup+=(--cuda); fi
step "Set up" "${setup[@]}"
if [[ -n "${FOCUS_TORCH_DIR-}" ]]; then defines=("-DFOCUS_TORCH_DIR=$FOCUS_TORCH_DIR" "${defines[@]}"); fi
jobs="${jobs:-$(build_jobs)}"
step "Configure ($preset)" cmake --preset "$preset" "${defines[@]}" >&2
step "Build ($preset, $jobs at once)" cmake --build --preset "$preset" --parallel "$jobs" "${targets[@]}" >&2
