#!/usr/bin/env bash
# Usage: scripts/gpu_check.sh --pack
#        scripts/gpu_check.sh --run [--minutes M] [--out DIR]
#
# Checks focus on a machine with an NVIDIA card that has no network and none of this machine's libraries: python3 with PyTorch 2.11 for
# CUDA 13 is enough, and compute-sanitizer is used where it is there.
# --pack builds the programs and tests for CUDA here (needs nvcc, no card) and gathers them with the libraries that they need in .gpu/, which
# git ignores and which must travel with the source tree. --run, in that tree on the other machine, tests first and measures then, the most
# important first, and ends within M minutes (default 8). It leaves report.md and report.json in DIR (default .gpu/out) whatever happens, and
# ends with 0 when all that was run has passed, 1 when something failed, 2 when there is no card.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
cd -- "$root"
largest=$((32 * 1024 * 1024))

pack() {
  local built=build/cpu-release/bin/cuda pack=.gpu/pack program name exclude size
  scripts/build.sh --target cuda_link cpu-release -DFOCUS_LINK_CUDA=ON
  exclude="$(git rev-parse --git-path info/exclude 2>/dev/null || true)"
  if [[ -n "$exclude" ]] && ! git check-ignore -q .gpu/x; then
    mkdir -p "$(dirname -- "$exclude")"
    echo '/.gpu/' >>"$exclude"
  fi
  rm -rf .gpu
  mkdir -p "$pack/bin" "$pack/lib"
  for program in "$built"/*; do 
    name="${program##*/}"
    strip -o "$pack/bin/${name%-cuda}" "$program"
  done
  # All that does not come with the C library, the compiler's run time or PyTorch.
  for program in "$pack"/bin/*; do ldd "$program"; done |
    awk '$3 ~ "^/(usr/)?lib/" { print $3 }' | sort -u |
    { grep -vE '/(libc|libm|libdl|libpthread|librt|libresolv|libstdc\+\+|libgcc_s|ld-linux[^/]*)\.so' || true; } |
    xargs -r -I{} cp -L {} "$pack/lib/"
  { git rev-parse HEAD; git status --porcelain --untracked-files=no; } >"$pack/commit" 2>/dev/null || true
  # Each program has the kernels in it; xz, which looks back 64 MiB, stores them about once.
  python3 -c 'import sys, tarfile; tarfile.open(sys.argv[1], "w:xz", preset=9).add(sys.argv[2], ".")' .gpu/focus.tar.xz "$pack"
  rm -rf "$pack"
  size="$(stat -c %s .gpu/focus.tar.xz)"
  say "packed $((size / 1024)) KiB into .gpu/focus.tar.xz"
  ((size <= largest)) || fail "the pack must not be larger than $((largest / 1024)) KiB"
}

run() {
  [[ -f .gpu/focus.tar.xz ]] || fail "no pack in .gpu/: run scripts/gpu_check.sh --pack on a machine that can build"
  folder="$(mktemp -d)"
  trap 'rm -rf "$folder"' EXIT
  python3 -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])' .gpu/focus.tar.xz "$folder"
  python3 scripts/gpu_check.py --pack "$folder" "$@"
}

case "${1-}" in
  --pack) (($# == 1)) || fail "--pack takes no other option"; pack ;;
  --run) shift; run "$@" ;;
  -h | --help) show_help "${BASH_SOURCE[0]}" ;;
  *) fail "--pack or --run; see scripts/gpu_check.sh --help" ;;
esac
