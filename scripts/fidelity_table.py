#!/usr/bin/env python3
"""Puts the methods of several `focus-eval fidelity` runs into one Markdown table.

The runs must have measured the same segments: their figures for state_only must agree. A run's adapter can be renamed with NAME=FOLDER, since
every run calls its own 'focus'; with NAME=FOLDER:METHOD it is that method which is renamed. Only the standard library is used.

With --positions the table is about recall instead: the cross-entropy in those positions alone (of planted copies, whose source is far back),
and the share of what full memory gains there over state_only that a method keeps. Bins of by_position.tsv that reach beyond them are left out.

Examples:
  scripts/fidelity_table.py runs/rivals 'Focus, base memory=runs/tables_eval'
  scripts/fidelity_table.py --positions 7030-7500 runs/planted
"""
import argparse
import csv
import os
import sys


def read_table(folder, name):
    path = os.path.join(folder, name)
    try:
        with open(path, encoding="utf-8") as lines:
            return list(csv.DictReader((line for line in lines if not line.startswith("##")), delimiter="\t"))
    except OSError as error:
        sys.exit(f"error: {path}: {error.strerror}; name the folder of a finished fidelity run")


def read_summary(folder):
    methods = {}
    for row in read_table(folder, "summary.tsv"):
        if row["scope"] == "after_boundary":
            methods.setdefault(row["method"], {})[row["measure"]] = row
    return methods


def cross_entropies(folder, first, last):
    """Of each method, the mean over the bins that lie within positions first to last."""
    sums = {}
    for row in read_table(folder, "by_position.tsv"):
        if first <= int(row["position_begin"]) and int(row["position_end"]) <= last + 1 and row["count"] != "0":
            total = sums.setdefault(row["method"], [0.0, 0])
            total[0] += float(row["cross_entropy"]) * int(row["count"])
            total[1] += int(row["count"])
    if not sums:
        sys.exit(f"error: {folder} has no whole bin of positions within {first}-{last}")
    return {method: total / count for method, (total, count) in sums.items()}


def size(count):
    count = float(count)
    for unit in ("B", "KiB", "MiB"):
        if count < 1024 or unit == "MiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return ""


def interval(low, high, scale, digits):
    """ [low, high]; empty where one segment gives none."""
    return "" if "NA" in (low, high) else f" [{scale * float(low):.{digits}f}, {scale * float(high):.{digits}f}]"


def line(name, measures):
    kl, ce = measures["kl"], measures["cross_entropy"]
    recovered = "" if kl["recovered"] == "NA" else (
        f"{100 * float(kl['recovered']):.1f} %" + interval(kl["recovered_low"], kl["recovered_high"], 100, 0))
    mean = f"{float(kl['mean']):.4f}" + interval(kl["mean_low"], kl["mean_high"], 1, 3)
    return f"| {name} | {size(kl['kept_bytes'])} | {mean} | {float(kl['median']):.4f} | {float(ce['mean']):.4f} | {recovered} |"


def fidelity_rows(folder):
    methods = read_summary(folder)
    dropped = methods.get("state_only", {}).get("kl", {}).get("mean")
    if dropped is None:
        sys.exit(f"error: {folder} did not measure state_only, so its R has no scale; add it to methods")
    return float(dropped), {method: lambda name, measures=measures: line(name, measures) for method, measures in methods.items()}


def recall_rows(folder, first, last):
    means, kept = cross_entropies(folder, first, last), read_summary(folder)
    if "state_only" not in means:
        sys.exit(f"error: {folder} did not measure state_only, so recall has no scale; add it to methods")
    dropped, full = means["state_only"], means["full"]
    row = lambda name, method: f"| {name} | {size(kept[method]['kl']['kept_bytes'])} | {means[method]:.3f} | {100 * (dropped - means[method]) / (dropped - full):.1f} % |"
    return dropped, {method: lambda name, method=method: row(name, method) for method in means}


def positions(text):
    first, _, last = text.partition("-")
    if not first.isdigit() or not last.isdigit():
        raise argparse.ArgumentTypeError(f"'{text}': expected FIRST-LAST, as in 7030-7500")
    return int(first), int(last)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--positions", type=positions, metavar="FIRST-LAST", help="recall in these positions of each segment, counted from 0")
    parser.add_argument("runs", nargs="+", metavar="[NAME=]FOLDER[:METHOD]")
    arguments = parser.parse_args()
    columns = "KL (full ‖ method) | KL median | cross-entropy | R" if arguments.positions is None else "cross-entropy | share of full memory's gain"
    print(f"| method | kept bytes | {columns} |\n|{' --- |' * (columns.count('|') + 3)}")
    shown, reference = set(), None
    for run in arguments.runs:
        name, _, place = run.rpartition("=")
        folder, _, renamed = place.partition(":")
        dropped, rows = fidelity_rows(folder) if arguments.positions is None else recall_rows(folder, *arguments.positions)
        if reference is not None and abs(dropped / reference - 1) > 1e-3:
            sys.exit(f"error: {folder} measured other segments: state_only has {dropped}, in the first run {reference}")
        reference = reference or dropped
        if name and (renamed or "focus") not in rows:
            sys.exit(f"error: {folder} has no method '{renamed or 'focus'}' to be called '{name}'")
        for method, row in rows.items():
            label = name if name and method == (renamed or "focus") else method
            if label not in shown:
                shown.add(label)
                print(row(label))


if __name__ == "__main__":
    main()
