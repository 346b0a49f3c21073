#!/usr/bin/env bash
# Usage: scripts/check_docs.sh [--slow] [--write] [--bin DIR] [PAGE ...]
#
# Keeps README.md and docs/ true. A block marked `sh run` is run, in order within its page, in a scratch folder that shows this repository's
# files; `sh run slow` only with --slow. Of a block marked `sh` alone each command is checked: its program, options, settings
# and the files of this repository that it names exist. Links, anchors and files that the text names exist, README.md has no more than 150
# lines, no line of prose is longer than 110 columns, and the lists of settings are what --help-config prints.
# --write writes these lists again. DIR holds the programs, by default build/cpu-release/bin.
# A failure names page and line; exit status 1.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

case "${1-}" in
  -h | --help) show_help "${BASH_SOURCE[0]}"; exit 0 ;;
esac
exec python3 "$root/scripts/check_docs.py" "$@"
