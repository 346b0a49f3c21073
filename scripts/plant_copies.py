#!/usr/bin/env python3
"""Cuts sequences out of a FASTA file and writes a copy of one stretch further right, at the same place in each.

Bases inside the copy can only be predicted well by what still knows the source, so that focus-eval's by_position.tsv shows there what a
retention policy remembers. Only the standard library is used.

Example: 8 records of 9,216 bases, bases 1,501-2,000 written again at 7,001-7,500, with 2 % substitutions:
  scripts/plant_copies.py data/human_chr22_20-21M.fa.gz planted.fa --records 8 --length 9216 --source 1501 --copy 7001 --size 500 --mutate 0.02
"""
import argparse
import gzip
import random
import sys


def read_fasta(path):
    opener = gzip.open if path.endswith(".gz") else open
    records, name = {}, None
    with opener(path, "rt") as lines:
        for line in lines:
            if line.startswith(">"):
                name = line[1:].split()[0]
                records[name] = []
            elif name is not None:
                records[name].append(line.strip().upper())
    return {name: "".join(parts) for name, parts in records.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fasta", help="FASTA file, plain or gzip")
    parser.add_argument("output", help="FASTA file to write")
    parser.add_argument("--records", type=int, default=8)
    parser.add_argument("--length", type=int, default=9216, help="bases per record")
    parser.add_argument("--source", type=int, default=1501, help="first base of the source, counted from 1")
    parser.add_argument("--copy", type=int, default=7001, help="first base of the copy, counted from 1")
    parser.add_argument("--size", type=int, default=500, help="bases copied")
    parser.add_argument("--mutate", type=float, default=0.0, help="share of the copy's bases that are substituted")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if not (1 <= args.source and args.source + args.size <= args.copy and args.copy + args.size - 1 <= args.length):
        parser.error("need source + size <= copy and the copy inside the record")
    if not 0 <= args.mutate <= 1:
        parser.error("--mutate must lie in 0..1")
    rng = random.Random(args.seed)
    candidates = [(name, sequence) for name, sequence in read_fasta(args.fasta).items() if len(sequence) >= args.length]
    if not candidates:
        sys.exit(f"{args.fasta}: no record has {args.length} bases")
    out, tries = [], 0
    while len(out) < args.records:
        tries += 1
        if tries > 1000 * args.records:
            sys.exit(f"{args.fasta}: too few stretches of {args.length} bases without other letters than A, C, G, T")
        name, sequence = rng.choice(candidates)
        begin = rng.randrange(len(sequence) - args.length + 1)
        bases = list(sequence[begin:begin + args.length])
        if set(bases) - set("ACGT"):
            continue
        for i in range(args.size):
            base = bases[args.source - 1 + i]
            if rng.random() < args.mutate:
                base = rng.choice([b for b in "ACGT" if b != base])
            bases[args.copy - 1 + i] = base
        out.append((f"planted{len(out) + 1}_from_{begin + 1}", "".join(bases)))
    with open(args.output, "w", encoding="ascii") as file:
        for name, bases in out:
            file.write(f">{name}\n")
            for i in range(0, len(bases), 80):
                file.write(bases[i:i + 80] + "\n")


if __name__ == "__main__":
    main()
