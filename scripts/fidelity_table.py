#!/usr/bin/env python3
"""Puts the methods of several `focus-eval fidelity` runs into one Markdown table.

The runs must have measured the same segments: their figures for state_only must agree. A run's adapter can be renamed with NAME=FOLDER, since
every run calls its own 'focus'. Only the standard library is used.

Example:
  scripts/fidelity_table.py runs/rivals 'Focus, base memory=runs/tables_eval'
"""
import argparse
import csv
import os
import sys


def read_summary(folder):
    path = os.path.join(folder, "summary.tsv")
    try:
        with open(path, encoding="utf-8") as lines:
            rows = list(csv.DictReader((line for line in lines if not line.startswith("##")), delimiter="\t"))
    except OSError as error:
        sys.exit(f"error: {path}: {error.strerror}; name the folder of a finished fidelity run")
    methods = {}
    for row in rows:
        if row["scope"] == "after_boundary":
            methods.setdefault(row["method"], {})[row["measure"]] = row
    return methods


def size(count):
    count = float(count)
    for unit in ("B", "KiB", "MiB"):
        if count < 1024 or unit == "MiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return ""


def line(name, measures):
    kl, ce = measures["kl"], measures["cross_entropy"]
    recovered = "" if kl["recovered"] == "NA" else (
        f"{100 * float(kl['recovered']):.1f} % [{100 * float(kl['recovered_low']):.0f}, {100 * float(kl['recovered_high']):.0f}]")
    interval = f"{float(kl['mean']):.4f} [{float(kl['mean_low']):.3f}, {float(kl['mean_high']):.3f}]"
    return f"| {name} | {size(kl['kept_bytes'])} | {interval} | {float(kl['median']):.4f} | {float(ce['mean']):.4f} | {recovered} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="[NAME=]FOLDER")
    arguments = parser.parse_args()
    print("| method | kept bytes | KL (full ‖ method) | KL median | cross-entropy | R |\n| --- | --- | --- | --- | --- | --- |")
    shown, reference = set(), None
    for run in arguments.runs:
        name, _, folder = run.rpartition("=")
        methods = read_summary(folder)
        dropped = methods.get("state_only", {}).get("kl", {}).get("mean")
        if dropped is None:
            sys.exit(f"error: {folder} did not measure state_only, so its R has no scale; add it to methods")
        if reference is not None and abs(float(dropped) / float(reference) - 1) > 1e-3:
            sys.exit(f"error: {folder} measured other segments: KL of state_only {dropped}, of the first run {reference}")
        reference = reference or dropped
        for method, measures in methods.items():
            label = name if name and method == "focus" else method
            if label not in shown:
                shown.add(label)
                print(line(label, measures))


if __name__ == "__main__":
    main()
