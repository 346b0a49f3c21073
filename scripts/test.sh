#!/usr/bin/env bash
# Usage: scripts/test.sh [CTEST ARGUMENT ...]
#
# Sets the machine up, builds the cpu-release preset and runs all its tests. Arguments go to ctest, for example
#   scripts/test.sh -j 2                 two tests at a time
#   scripts/test.sh -R compress          a room (compress.0 and so on are shares of its tests); build/cpu-release/bin/test_compress
#                                        --gtest_filter=... runs single ones
#   scripts/test.sh -L unit              those with a label: unit, golden, cli, install
# Needs no GPU, and no network once the machine is set up.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

case "${1-}" in
  -h | --help) show_help "${BASH_SOURCE[0]}"; exit 0 ;;
esac
cd -- "$root"

scripts/build.sh cpu-release
say "==> Test"
exec ctest --preset cpu-release --no-tests=error "$@"
