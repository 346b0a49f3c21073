#!/usr/bin/env bash
# Usage: scripts/quickstart.sh
#
# From a fresh checkout to a result: sets the machine up, builds, trains a Focus adapter for the embedded model on the DNA in data/,
# then measures on held-out DNA how close the compressed model stays to the full one. Needs no GPU.
# Everything is written to runs/quickstart, which a further run replaces.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

case "${1-}" in
  -h | --help) show_help "${BASH_SOURCE[0]}"; exit 0 ;;
  "") ;;
  *) fail "unknown argument '$1'; see scripts/quickstart.sh --help" ;;
esac
cd -- "$root"

preset=cpu-release
bin="build/$preset/bin"
run="runs/quickstart"

scripts/build.sh --target focus-train --target focus-eval --target focus-infer "$preset"

if [[ -e "$run" || -L "$run" ]]; then
  say "==> Replacing $run from an earlier run"
  rm -rf -- "$run"
fi
mkdir -p -- "$run"

step "Train the adapter" "$bin/focus-train" --config configs/quickstart_train.json --output "$run/adapter"
# The usual rivals and the strongest; --set methods=[] takes all.
methods='["noise_floor","state_only","sliding","sinks","strided","mean_pool","mean_pool_nobeta","attention_match","kv_quant_int4","mixture","fitted","focus"]'
step "Measure its fidelity" "$bin/focus-eval" fidelity --config configs/quickstart_eval.json --adapter "$run/adapter" --set "methods=$methods" --output "$run/fidelity"

shopt -s nullglob
reports=("$run"/fidelity/*.html)
if ((${#reports[@]} == 0)); then reports=("$run/fidelity"); fi
say "==> Done in $SECONDS s"
printf 'Report: %s\n' "${reports[@]}"
