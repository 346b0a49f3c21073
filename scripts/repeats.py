#!/usr/bin/env python3
"""Writes tandem repeats for `focus-eval fidelity`, or puts what it measured on them into a Markdown table.

Tandem repeats are where a summary is easily worse than nothing: what a base needs to know stands a unit back, in the open window, and a
mean over many earlier bases can only drown it. Thirty records are made from a random unit with substitutions, from a fixed seed; eight
are cut out of data/ (satellites, minisatellites, a gene array), human chr22 and chrX held out from training, the others not.
Only the standard library is used.

Example:
  scripts/repeats.py repeats.fa
  focus-eval fidelity --config configs/eval_tandem_repeats.json --fasta repeats.fa --output runs/tandem_repeats
  scripts/repeats.py --table runs/tandem_repeats
"""
import argparse
import csv
import os
import random
import sys

from plant_copies import read_fasta

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data")
UNITS = [1, 2, 3, 5, 12, 31, 68, 171, 340, 1000]
ERRORS = [0, 2, 10]  # per cent
# Name, file, record, first base counted from 1: found as the stretches of 4,096 bases that agree best with themselves some bases on.
REAL = [
    ("human_27mer", "human_chr22_20-21M.fa.gz", "22:20000001-21000000", 708609),
    ("human_24mer", "human_chr22_20-21M.fa.gz", "22:20000001-21000000", 149505),
    ("human_low_complexity", "human_chrX_slices.fa.gz", "X:3600001-4000000", 312321),
    ("human_gene_array", "human_chrX_slices.fa.gz", "X:49000001-49500000", 180001),
    ("human_63mer", "human_chr20_1-16M.fa.gz", "20", 1238017),
    ("arabidopsis_satellite", "arabidopsis_chr1_13-16M.fa.gz", "NC_003070.9:13000001-16000000", 1697793),
    ("worm_54mer", "celegans_chrX_1-4M.fa.gz", "chrX", 109569),
    ("worm_123mer", "celegans_chrX_1-4M.fa.gz", "chrX", 2059265),
]


def made(unit, errors, length, seed):
    rng = random.Random(f"{seed}/{unit}/{errors}")
    letters = [rng.choice("ACGT") for _ in range(unit)]
    bases = [letters[i % unit] for i in range(length)]
    for i in range(length):
        if rng.random() * 100 < errors:
            bases[i] = rng.choice([b for b in "ACGT" if b != bases[i]])
    return "".join(bases)


def records(length, seed):
    out = [(f"unit{unit}_errors{errors}", made(unit, errors, length, seed)) for unit in UNITS for errors in ERRORS]
    files = {}
    for name, file, record, begin in REAL:
        if file not in files:
            files[file] = read_fasta(os.path.join(DATA, file))
        bases = files[file][record][begin - 1:begin - 1 + length]
        if len(bases) < length or set(bases) - set("ACGT"):
            sys.exit(f"{file}: no {length} bases of A, C, G and T from base {begin} of {record} on; choose a smaller --length")
        out.append((name, bases))
    return out


def table(folder):
    """Cross-entropy per base after the first boundary, by record and method."""
    path = os.path.join(folder, "segments.tsv")
    try:
        with open(path, encoding="utf-8") as lines:
            rows = list(csv.DictReader((line for line in lines if not line.startswith("##")), delimiter="\t"))
    except OSError as error:
        sys.exit(f"error: {path}: {error.strerror}; name the folder of a finished fidelity run")
    if not rows:
        sys.exit(f"error: {path} has no segment")
    prefix = "cross_entropy."
    methods = [column[len(prefix):] for column in rows[0] if column.startswith(prefix)]
    values = {row["name"]: {m: float(row[prefix + m]) for m in methods} for row in rows}
    print("| repeat | " + " | ".join(methods) + " |")
    print("| --- |" + " --- |" * len(methods))
    for name, found in values.items():
        print(f"| {name} | " + " | ".join(f"{found[m]:.3f}" for m in methods) + " |")
    mean = {m: sum(found[m] for found in values.values()) / len(values) for m in methods}
    print("| mean | " + " | ".join(f"{mean[m]:.3f}" for m in methods) + " |")
    if "state_only" in methods:
        worst = {m: max(found[m] - found["state_only"] for found in values.values()) for m in methods}
        print("| most above state_only | " + " | ".join(f"{worst[m]:.3f}" for m in methods) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", help="FASTA file to write; with --table the folder of a fidelity run")
    parser.add_argument("--length", type=int, default=4096, help="bases per record")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="print the table of a run")
    args = parser.parse_args()
    if args.length < 1:
        parser.error("--length must be positive")
    if args.table:
        table(args.path)
        return
    with open(args.path, "w", encoding="ascii") as file:
        for name, bases in records(args.length, args.seed):
            file.write(f">{name}\n")
            for i in range(0, len(bases), 80):
                file.write(bases[i:i + 80] + "\n")


if __name__ == "__main__":
    main()
