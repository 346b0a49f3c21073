#!/usr/bin/env bash
# Usage: scripts/setup.sh [--cuda]
#
# Makes a Debian 12 or Ubuntu 24.04 machine ready to build focus. Running it again is harmless and takes seconds.
#   1. Packages: installs what is missing when run as root; otherwise prints the command to run and exits with 1.
#   2. LibTorch: uses FOCUS_TORCH_DIR if set, else a supported torch that python3 imports, else installs the wheels pinned in
#      scripts/libtorch-requirements.txt into .venv. A broken .venv is made anew.
#
# --cuda: LibTorch must have its CUDA libraries, and a wheel in .venv gets NVIDIA's wheels that these load (2 GB more). The CUDA
# toolkit with nvcc 13 is not installed by this script.
#
# Environment: FOCUS_TORCH_DIR   a LibTorch folder, or a python package's torch folder.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

case "${1-}" in
  -h | --help) show_help "${BASH_SOURCE[0]}"; exit 0 ;;
  --cuda) cuda=ON ;;
  "") cuda=OFF ;;
  *) fail "unknown argument '$1'; see scripts/setup.sh --help" ;;
esac
cd -- "$root"

# A tool is there when its command is, from whatever source; a library when its package is installed.
tools=(g++:g++ cmake:cmake ninja-build:ninja ccache:ccache git:git python3:python3 pkg-config:pkg-config)
libraries=(ca-certificates libhdf5-dev libhts-dev libcli11-dev libspdlog-dev libssl-dev nlohmann-json3-dev libyaml-cpp-dev libgtest-dev libgloo-dev zlib1g-dev)

package_installed() { dpkg-query -W -f='${db:Status-Status}\n' "$1" 2>/dev/null | grep -qx installed; }

can_make_venv() { python3 -c 'import venv, ensurepip' 2>/dev/null || /usr/bin/python3 -c 'import venv, ensurepip' 2>/dev/null; }

list_missing() {
  local entry
  for entry in "${tools[@]}"; do
    command -v "${entry#*:}" >/dev/null || printf '%s\n' "${entry%%:*}"
  done
  for entry in "${libraries[@]}"; do
    package_installed "$entry" || printf '%s\n' "$entry"
  done
  can_make_venv || printf '%s\n' python3-venv
}

install_packages() {
  local missing
  if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    say "This is not a Debian system: its packages cannot be checked. Needed are the equivalents of:"
    say "  ${tools[*]%%:*} python3-venv ${libraries[*]}"
    return
  fi
  mapfile -t missing < <(list_missing)
  if ((${#missing[@]} == 0)); then
    say "Packages: all installed"
    return
  fi
  if ((EUID != 0)); then
    say "Missing packages: ${missing[*]}"
    say "Install them, then run this script again:"
    say "  sudo apt-get update && sudo apt-get install --no-install-recommends ${missing[*]}"
    exit 1
  fi
  say "Installing packages: ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q >&2
  apt-get install -q -y --no-install-recommends "${missing[@]}" >&2
  mapfile -t missing < <(list_missing)
  ((${#missing[@]} == 0)) || fail "still missing after the installation: ${missing[*]}"
}

# The folder that CMake would choose, or nothing. An unusable FOCUS_TORCH_DIR ends the script with CMake's message.
find_libtorch() { cmake "-DFOCUS_WITH_CUDA=$cuda" -P cmake/FocusTorchFind.cmake; }

# Opening the library resolves what it needs from the other wheels. Prints nothing, or why it does not load.
load_error() {
  local library=libtorch_cpu.so
  if [[ "$cuda" == ON ]]; then library=libtorch_cuda.so; fi
  python3 -c 'import ctypes, sys; ctypes.CDLL(sys.argv[1])' "$1/lib/$library" 2>&1 | tail -n 1 || true
}

# Whether the wheel in .venv is whole: pip writes INSTALLER last.
venv_complete() { compgen -G "$1-*.dist-info/INSTALLER" >/dev/null; }

make_venv() {
  local python
  if [[ -L .venv && ! -e .venv ]]; then rm -f -- .venv; fi
  for python in python3 /usr/bin/python3; do
    if "$python" -c 'import venv, ensurepip' 2>/dev/null && "$python" -m venv --clear .venv >&2; then return; fi
  done
  fail "python3 cannot make a virtual environment in '$root/.venv'"
}

install_libtorch() {
  local dir fault options=(--disable-pip-version-check)
  if [[ "$cuda" == OFF ]]; then options+=(--no-deps); fi
  dir="$(find_libtorch)" || exit 1
  if [[ -n "$dir" && "$dir" != "$root/.venv/"* ]] || { [[ -n "$dir" ]] && venv_complete "$dir" && [[ -z "$(load_error "$dir")" ]]; }; then
    say "LibTorch: $dir"
    return
  fi
  if [[ "$cuda" == ON && -n "$dir" ]] && venv_complete "$dir" && .venv/bin/python -c 'import pip' 2>/dev/null; then
    say "LibTorch: adding NVIDIA's libraries to .venv"
  elif [[ -e .venv ]]; then
    say "LibTorch: .venv is incomplete, making it anew"
    make_venv
  else
    say "LibTorch: none found, installing it into .venv"
    make_venv
  fi
  .venv/bin/python -m pip install "${options[@]}" -r scripts/libtorch-requirements.txt >&2
  dir="$(find_libtorch)" || exit 1
  [[ -n "$dir" ]] || fail "the wheels are installed, but CMake finds no LibTorch in .venv"
  fault="$(load_error "$dir")"
  [[ -z "$fault" ]] || fail "the LibTorch in '$dir' does not load: $fault"
  say "LibTorch: $dir"
}

install_packages
install_libtorch
say "Ready to build: scripts/build.sh"
