#!/usr/bin/env python3
"""Runs the benchmark recall-bench (PyPI) on a model of bytes and some memories of focus-infer (windows of 1,024, k 100).

A stretch of the background is repeated some way further right. recall-bench tells its copy advantage: how many nats per base it costs to
find other sequence in the first place. From the same windows come the recall of focus-eval (1 less the share of state_only's loss that a
memory has on the copy, but for its first 32 bases), and with --windows these windows themselves, for focus-eval.

Needs what recall-bench needs: pip install recall-bench.

Example:
  scripts/run_recall_bench.py --model-config configs/models/focus-small.yml --checkpoint data/model/focus-small.pt \\
      --fasta data/human_chr22_20-21M.fa.gz --distance 2048 --trials 8 --memory fitted --windows windows.fa
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

from plant_copies import read_fasta

HEARD = 32  # bases of a copy that tell it from other sequence, as in focus-eval


class Program:
    """focus-infer as a model: token ids, which are bytes, in; logits out."""

    def __init__(self, args, memory, folder):
        self.command = [args.program, "score", "-q", "--model-config", args.model_config, "--checkpoint", args.checkpoint,
                        "--memory", memory]
        self.folder = folder

    def __call__(self, ids):
        import numpy
        import torch

        logits = os.path.join(self.folder, "logits.safetensors")
        fasta = ">window\n" + bytes(ids[0].tolist()).decode() + "\n"
        subprocess.run([*self.command, "--fasta", "-", "--logits", logits], input=fasta, text=True, stdout=subprocess.DEVNULL, check=True)
        with open(logits, "rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            (tensor,) = (value for name, value in header.items() if name != "__metadata__")
            return torch.from_numpy(numpy.frombuffer(file.read(), "<f4").reshape(1, *tensor["shape"]).copy())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="build/cpu-release/bin/focus-infer")
    parser.add_argument("--model-config", required=True)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--fasta", required=True, help="the background, plain or gzip")
    parser.add_argument("--memory", nargs="*", default=["fitted"], help="besides full and state_only")
    parser.add_argument("--distance", type=int, default=2048, help="bases between the stretch and its copy")
    parser.add_argument("--size", type=int, default=256, help="bases of the stretch")
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--windows", help="FASTA file to write the windows to")
    args = parser.parse_args()
    if args.size <= HEARD:
        parser.error(f"--size must be more than {HEARD}")
    try:
        import numpy
        import recall_bench
        from recall_bench import copy_task
    except ImportError as error:
        sys.exit(f"{error}: pip install recall-bench")
    background = recall_bench.DNABackground.from_strings(list(read_fasta(args.fasta).values()))
    context = 1 << (args.distance + 2 * args.size + 512 - 1).bit_length()  # as recall-bench chooses it
    windows, loss, rows = [], {}, []
    with tempfile.TemporaryDirectory() as folder:
        for memory in ["full", "state_only", *args.memory]:
            model = recall_bench.CallableModel(Program(args, memory, folder), lambda text: list(text.encode()), max_ctx=context,
                                               name=memory, device="cpu")
            point = copy_task.run_point(model, background, context, args.distance, args.size, args.trials, 0)
            rng = numpy.random.default_rng([0, context, args.distance])
            loss[memory] = 0.0
            for trial in range(args.trials):
                ids, _, (begin, end), _ = copy_task.build_pair(model, background, rng, context, args.distance, args.size)
                loss[memory] += copy_task.segment_ce(model, ids, (begin + HEARD, end))
                if memory == "full":
                    windows.append(bytes(ids).decode())
            rows.append((memory, point["copy_advantage"], point["ci_lo"], point["ci_hi"]))
    print("memory\tcopy_advantage\tlow\thigh\trecall")
    for memory, *figures in rows:
        recall = 1 - (loss[memory] - loss["full"]) / (loss["state_only"] - loss["full"])
        print(memory, *(f"{figure:.4f}" for figure in figures), f"{recall:.4f}", sep="\t")
    if args.windows:
        with open(args.windows, "w") as out:
            out.writelines(f">window_{i}\n{window}\n" for i, window in enumerate(windows))


if __name__ == "__main__":
    main()
