#!/usr/bin/env python3
"""Tables of how often far memory lists the k-mer that a copy continues in, and of what that costs.

Copies of 500 bases are planted in human chr20; of each, the first 48 bases do not count. The share is of queries whose next base's origin lies
in a listed k-mer. Costs are of reading natural sequence: nanoseconds of processor time and bytes held per base, k-mers listed per stretch.

    scripts/far_recall.py [TEST_FAR_RECALL]        # default: build/cpu-release/bin/test_far_recall
"""
import argparse
import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SETTING = ["seed", "span", "refresh", "width", "both_strands"]
USUAL = ("0", "48", "16", "0", "1")


def measure(binary):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.tsv"
        environment = os.environ | {"FOCUS_FAR_TABLE": str(path), "OMP_NUM_THREADS": "1"}
        command = [binary, "--gtest_filter=FarRecallTest.Table", "--gtest_brief=1"]
        if subprocess.run(command, env=environment, stdout=sys.stderr, check=False).returncode or not path.exists():
            sys.exit(f"{binary} failed; build it: scripts/build.sh --target test_far_recall")
        with path.open(encoding="utf-8") as file:
            return list(csv.reader(file, delimiter="\t"))


def table(header, lines):
    print("\n" + "\n".join("| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *lines]))


def name(setting):
    different = [f"{key} {value}" for key, value, usual in zip(SETTING, setting, USUAL) if value != usual]
    return ", ".join(different).replace("both_strands 0", "one strand") or "as set by default"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", nargs="?", default=str(ROOT / "build/cpu-release/bin/test_far_recall"))
    rows = measure(parser.parse_args().binary)
    found = {(row[1], tuple(row[2:7]), row[7], row[8]): float(row[9]) for row in rows if row[0] == "found"}
    costs = {(row[1], tuple(row[2:7])): [float(value) for value in row[7:]] for row in rows if row[0] == "cost"}
    kinds = list(dict.fromkeys(key[2] for key in found))
    budgets = list(dict.fromkeys(key[3] for key in found))
    lengths = list(dict.fromkeys(key[0] for key in costs))
    settings = list(dict.fromkeys(key[1] for key in costs))
    table(["bases", "k-mers at most", *kinds],
          [[f"{int(length):,}", most, *(f"{found[length, USUAL, kind, most]:.3f}" for kind in kinds)] for length in lengths for most in budgets])
    shown = ["exact", "5 %", "15 %", "indels, 5 %", "reverse, 5 %"]
    table(["bases", "at most 8 k-mers", *shown, "ns per base", "bytes per base", "k-mers listed"],
          [[f"{int(length):,}", name(setting), *(f"{found[length, setting, kind, '8']:.3f}" for kind in shown),
            *(f"{value:.{digits}f}" for value, digits in zip(costs[length, setting], (0, 1, 1)))] for length in lengths for setting in settings])


if __name__ == "__main__":
    main()
