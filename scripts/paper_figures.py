#!/usr/bin/env python3
"""Draws Figures 2 to 6 of the paper (arXiv 2511.14694) from sweeps of configs/protocols, with what its text says of its own beside them.

Each figure becomes figureN.svg, figureN.png and figureN.tsv (all that is drawn) in the output folder, and table.md puts the paper's numbers and
these side by side. The method drawn is the one that the sweep is about. Needs matplotlib: pip install matplotlib.

Example:
  scripts/paper_figures.py --figure2 runs/grch38 --figure3 runs/opengenome2 --figure4 runs/msl39 --figure5 runs/length_curve \\
      --figure6 runs/memory_curve --output runs/figures
"""
import argparse
import csv
import json
import os
import sys

MEASURES = {"l1": "L1", "l2": "L2", "hellinger": "Hellinger", "js": "JS (nats)", "kl": "KL (nats)"}
# What the paper's text gives: median and width between the quartiles, in prediction of A, C, G and T.
PAPER = {
    2: {"l1": ("0.0016", None)},
    3: {},
    4: {"l1": ("0.0020", "0.0031"), "l2": ("0.0012", "0.0019"), "hellinger": ("0.0010", "0.0014"), "js": ("< 1e-5", None), "kl": ("< 1e-5", None)},
}
PAPER_L2 = {(1024, 100): 0.030, (2048, 100): 0.010, (1024, 50): 0.011}  # medians at 10,000 bases
TITLES = {2: "held-out chromosomes", 3: "what the backbone was trained on", 4: "what the backbone never saw"}
COLOURS = {"full": "#222222", "method": "#0072B2", "other": "#D55E00", "paper": "#777777"}  # told apart by colour-blind readers too


def read_table(path):
    try:
        with open(path, encoding="utf-8") as lines:
            return list(csv.DictReader((line for line in lines if not line.startswith("##")), delimiter="\t"))
    except OSError as error:
        sys.exit(f"error: {path}: {error.strerror}; name the folder of a finished focus-eval sweep")


class Sweep:
    def __init__(self, folder):
        self.folder = folder
        self.rows = [row for row in read_table(os.path.join(folder, "sweep.tsv")) if row["method"] != "NA"]
        with open(os.path.join(folder, "sweep.json"), encoding="utf-8") as file:
            self.subject = json.load(file).get("subject")
        if not self.of(self.subject):
            sys.exit(f"error: {folder} has no finished cell of its method '{self.subject}'; run the sweep again")

    def of(self, method):
        return [row for row in self.rows if row["method"] == method]


def bits(number):
    return f"{float(number):.2g}"


def save(figure, rows, number, folder):
    for kind in ("svg", "png"):
        figure.savefig(os.path.join(folder, f"figure{number}.{kind}"), dpi=200, bbox_inches="tight", metadata={"Date": None} if kind == "svg" else None)
    with open(os.path.join(folder, f"figure{number}.tsv"), "w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter="\t", lineterminator="\n").writerows(rows)


def histograms(plot, number, sweep, folder):
    """Distances from full memory over positions: one row of panels for each length."""
    cells = sorted(sweep.of(sweep.subject), key=lambda row: int(row["length"]))
    figure, axes = plot.subplots(len(cells), len(MEASURES), figsize=(13, 2.5 * len(cells) + 0.6), squeeze=False, layout="constrained")
    rows, table = [["length", "measure", "from", "to", "share"]], []
    for cell, line in zip(cells, axes):
        run = os.path.join(sweep.folder, "cells", cell["cell"])
        statistics = {row["measure"]: row for row in read_table(os.path.join(run, "summary.tsv"))
                      if row["method"] == sweep.subject and row["scope"] == cell["scope"]}
        bins = [row for row in read_table(os.path.join(run, "distribution.tsv")) if row["method"] == sweep.subject]
        for (measure, name), panel in zip(MEASURES.items(), line):
            own = [(float(row["from"]), float(row["to"]), int(row["count"])) for row in bins if row["measure"] == measure]
            total = sum(count for _, _, count in own)
            shares = [(begin, end, count / total) for begin, end, count in own]
            rows += [[cell["length"], measure, begin, end, f"{share:.6g}"] for begin, end, share in shares]
            # One outline over all bins; what is smaller than the first, zero among it, stands half a decade wide at its left.
            known = {end: share for _, end, share in shares}
            edges = [1e-8 / 10**0.5, 1e-8]
            while edges[-1] < max(known):
                edges.append(10 ** (-8 + (len(edges) - 1) / 8))
            heights = [100 * next((share for end, share in known.items() if abs(end / edge - 1) < 1e-6), 0) for edge in edges[1:]]
            panel.stairs(heights, edges, fill=True, color=COLOURS["method"], alpha=0.75)
            panel.set_xlim(edges[0], 2)
            median, low, high = (float(statistics[measure][key]) for key in ("median", "q25", "q75"))
            panel.axvspan(max(low, edges[0]), max(high, edges[0]), color=COLOURS["method"], alpha=0.15, lw=0)
            panel.axvline(max(median, edges[0]), color=COLOURS["full"], lw=1.5)
            paper = PAPER[number].get(measure)
            if paper and not paper[0].startswith("<"):
                panel.axvline(float(paper[0]), color=COLOURS["other"], ls="--", lw=1.5)
            panel.set_xscale("log")
            panel.set_title(f"{name}: {bits(median)} [{bits(low)}, {bits(high)}]", fontsize=9)
            panel.tick_params(labelsize=8)
            table.append((f"{number}", f"{name.split(' ')[0]}, {int(cell['length']):,} bases" + (", ONE WINDOW" if cell["state"] == "ONE WINDOW" else ""),
                          f"{paper[0]}" + (f" (IQR {paper[1]})" if paper[1] else "") if paper else "–", f"{bits(median)} (IQR {bits(high - low)})"))
        crossed = "one window: nothing is compressed, this is rounding" if cell["state"] == "ONE WINDOW" else f"window {cell['window']}, k {cell['kmer']}"
        line[0].set_ylabel(f"% of positions\n{int(cell['length']):,} bases", fontsize=9)
        line[2].set_xlabel(f"distance from full memory at a position ({crossed})", fontsize=9)
    figure.suptitle(f"Figure {number}, {TITLES[number]}: {sweep.subject}. Bar: median; shade: quartiles" + ("; dashed: the paper's median" if PAPER[number] else ""),
                    fontsize=10)
    save(figure, rows, number, folder)
    return table


def length_curves(plot, sweep, folder):
    curves = {}
    for row in sweep.of(sweep.subject):
        curves.setdefault((int(row["window"]), int(row["kmer"])), []).append((int(row["length"]), float(row["l2_median"])))
    figure, axes = plot.subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
    rows = [["whose", "window", "k", "length", "l2_median"]]
    for (window, k), points in sorted(curves.items()):
        rows += [["here", window, k, length, median] for length, median in sorted(points)]
    rows += [["paper", window, k, 10000, median] for (window, k), median in PAPER_L2.items()]
    for panel, wanted in zip(axes, ([(1024, 100), (2048, 100)], [(1024, 100), (1024, 50)])):
        for setting, colour, marker in zip(wanted, (COLOURS["method"], COLOURS["other"]), "os"):
            name = f"W {setting[0]:,}, k {setting[1]}"
            points = [point for point in sorted(curves.get(setting, [])) if point[1] > 0]
            panel.plot(*zip(*points), color=colour, marker=marker, ms=4, label=name) if points else None
            panel.plot([10000], [PAPER_L2[setting]], color=colour, marker=marker, ms=8, mfc="none", ls="", label=f"{name}: the paper")
        panel.set_yscale("log")
        panel.set_xlabel("length (bases)")
        panel.legend(fontsize=8)
        panel.grid(alpha=0.25)
    axes[0].set_ylabel("median L2 over positions")
    figure.suptitle(f"Figure 5: {sweep.subject}; positions behind the first boundary", fontsize=10)
    save(figure, rows, 5, folder)
    longest = {setting: max(points) for setting, points in curves.items()}
    return [("5", f"median L2 at {longest[setting][0]:,} bases, W {setting[0]:,}, k {setting[1]}", f"{PAPER_L2[setting]:.3f} at 10,000", bits(longest[setting][1]))
            for setting in PAPER_L2 if setting in longest]


def memory_curves(plot, sweep, folder):
    figure, panel = plot.subplots(figsize=(5.5, 3.4), layout="constrained")
    rows, table = [["method", "length", "kept_bytes", "open_bytes", "far_bytes"]], []
    for method, colour, marker in (("full", COLOURS["full"], "s"), (sweep.subject, COLOURS["method"], "o")):
        points = sorted((int(row["length"]), *(int(row[key]) for key in ("kept_bytes", "open_bytes", "far_bytes"))) for row in sweep.of(method))
        rows += [[method, *point] for point in points]
        held = [(length, sum(sizes) / 2**20) for length, *sizes in points]
        panel.plot(*zip(*held), color=colour, marker=marker, ms=4, label="full memory" if method == "full" else method)
        table.append(("6", f"memory at {held[-1][0]:,} bases, {method}", "grows with length" if method == "full" else "nearly constant to 80,000 and more", f"{held[-1][1]:.4g} MiB"))
    panel.set_xscale("log", base=2)
    panel.set_yscale("log", base=2)
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    panel.set_xlabel("length (bases)")
    panel.set_ylabel("keys, values and betas held (MiB)")
    panel.legend(fontsize=8)
    panel.grid(alpha=0.25)
    panel.set_title("Figure 6: memory over length", fontsize=10)
    save(figure, rows, 6, folder)
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for number in range(2, 7):
        parser.add_argument(f"--figure{number}", metavar="SWEEP", help="folder of a focus-eval sweep")
    parser.add_argument("-o", "--output", required=True, help="folder to write")
    options = parser.parse_args()
    sweeps = {number: Sweep(given) for number in range(2, 7) if (given := getattr(options, f"figure{number}"))}
    if not sweeps:
        parser.error("nothing to draw: name at least one sweep, for example --figure2 runs/grch38")
    try:
        import matplotlib
    except ImportError:
        sys.exit("error: matplotlib is missing; install it with: pip install matplotlib")
    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "focus", "font.family": "sans-serif"})
    from matplotlib import pyplot as plot
    os.makedirs(options.output, exist_ok=True)
    table = [("figure", "what", "paper", "here"), ("---",) * 4]
    for number, sweep in sweeps.items():
        table += histograms(plot, number, sweep, options.output) if number < 5 else length_curves(plot, sweep, options.output) if number == 5 else memory_curves(
            plot, sweep, options.output)
    with open(os.path.join(options.output, "table.md"), "w", encoding="utf-8") as file:
        file.writelines(f"| {' | '.join(row)} |\n" for row in table)


if __name__ == "__main__":
    main()
