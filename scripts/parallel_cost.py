#!/usr/bin/env python3
"""Measures how the time and memory of a training step in the parallel execution grow with the sequence.

  scripts/parallel_cost.py [--bin build/cpu-release/bin] [--lengths 8192:3,32768:3,131072:1] [--threads 2] [--factor 1.25] [--recompute-from 0]

Each LENGTH:ROUNDS is run ROUNDS times with the cross-entropy alone and as often with the divergence from the full model (objective.kl), all
interleaved; a run is one step to warm up and one that counts. Every base attends to at most W raw bases and L/k entries, so attention costs
L (W + L/k), while the rest of the model costs L. The columns: medians of the processor's and the clock's seconds, per base, peak resident set
of the process, growth since the first length and the growth that L (W + L/k) predicts. The step with the cross-entropy is the cost of the
parallel execution itself; the divergence adds the teacher, a pass without gradient whose full attention grows with L^2 (its row is the
difference of the two).

Exit status 1 if the processor time of the cross-entropy's step grows more than --factor times as fast as L (W + L/k) between the first length
and any other. Lengths from --recompute-from on keep only each block's input and run attention again window by window (recompute); growth is
comparable among lengths that do, or do not. Needs only
Python's standard library.
"""

import argparse
import os
import statistics
import sys

from timed_training import ROOT, configuration, train

WINDOW, KMER = 1024, 100
OBJECTIVES = {"ce": {"objective.ce": 1.0, "objective.kl": 0.0}, "kl": {"objective.ce": 0.0, "objective.kl": 1.0}}
COLUMNS = ["step", "length", "recompute", "runs", "processor_s", "wall_s", "processor_us_per_base", "peak_mib", "growth", "predicted", "ratio"]


def lengths(text):
    return {int(length): int(rounds or 1) for length, _, rounds in (item.partition(":") for item in text.split(","))}


def attention_cost(length):
    return length * (WINDOW + length / KMER)


def row(*values):
    print(*values, sep="\t", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default=os.path.join(ROOT, "build", "cpu-release", "bin"))
    parser.add_argument("--lengths", type=lengths, default="8192:3,32768:3,131072:1", help="LENGTH:ROUNDS,...")
    parser.add_argument("--objectives", default="ce,kl", help="ce, or ce,kl")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--factor", type=float, default=1.25, help="largest tolerated growth relative to L (W + L/k)")
    parser.add_argument("--recompute-from", type=int, default=0, help="bases from which on activations are recomputed; 0 = always")
    options = parser.parse_args()
    objectives = options.objectives.split(",")
    if objectives[0] != "ce" or not set(objectives) <= set(OBJECTIVES):
        parser.error(f"--objectives {options.objectives}: expected ce or ce,kl")
    program = os.path.join(options.bin, "focus-train")

    runs = {(name, length): [] for length in options.lengths for name in objectives}
    for turn in range(max(options.lengths.values())):
        for name, length in runs:
            if turn >= options.lengths[length]:
                continue
            overrides = OBJECTIVES[name] | {"recompute": length >= options.recompute_from}
            records, peak = train(program, configuration(length, 2, options.threads, overrides), options.threads)
            runs[name, length].append((records[1]["processor_seconds"], records[1]["seconds"], peak))
            print(f"{name} {length}: {records[1]['processor_seconds']:.2f} processor s, {records[1]['seconds']:.2f} s, "
                  f"{peak / 2**20:.0f} MiB", file=sys.stderr, flush=True)

    first = next(iter(options.lengths))
    median = {key: [statistics.median(values) for values in zip(*of)] for key, of in runs.items()}
    row(*COLUMNS)
    failed = []
    for (name, length), (processor, wall, peak) in median.items():
        growth, predicted = processor / median[name, first][0], attention_cost(length) / attention_cost(first)
        row(name, length, "yes" if length >= options.recompute_from else "no", len(runs[name, length]), f"{processor:.2f}", f"{wall:.2f}",
            f"{1e6 * processor / length:.1f}", f"{peak / 2**20:.0f}", f"{growth:.2f}", f"{predicted:.2f}", f"{growth / predicted:.2f}")
        if name == "ce" and growth > options.factor * predicted:
            failed.append(f"{length}: {growth:.2f} times {first}, L (W + L/k) predicts {predicted:.2f}")
    if "kl" in objectives:
        for length in options.lengths:
            teacher, base = (median["kl", n][0] - median["ce", n][0] for n in (length, first))
            predicted = (length / first)**2
            row("teacher", length, "", "", f"{teacher:.2f}", "", f"{1e6 * teacher / length:.1f}", "", f"{teacher / base:.2f}",
                f"{predicted:.2f}", f"{teacher / base / predicted:.2f}")
    if failed:
        sys.exit(f"the step grows faster than {options.factor} L (W + L/k): " + "; ".join(failed))


if __name__ == "__main__":
    main()
