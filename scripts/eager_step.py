#!/usr/bin/env python3
"""One adapter training step of focus beside the same step in eager PyTorch with explicit L x L masks.

  scripts/eager_step.py [--bin build/cpu-release/bin] [--lengths 4096,8192] [--repeats 3] [--threads 2] [--attention written,sdpa]

Both sides: the embedded model, fp32, the same bases of human chr20, W = 1,024, k = 100, the fitted unit with gradient through the fit, rank-16
corrections of key and value and the linear correction of beta (16,900 trained parameters), cross-entropy after the first window, gradient
clipping and AdamW. The eager side takes its blocks from the reference package vtx, attention and fit are written here. `written` is matmul, mask,
softmax, matmul; `sdpa` is scaled_dot_product_attention with the same L x (L + entries) mask, beta carried by one more channel of queries and keys
so that it can be trained. Each run is a process of its own: one step to warm up, one that counts; the sides take turns. Printed: medians, peak resident set of
each process, and the medians of the ratio eager / focus of each turn. Exit status 1 unless the first two losses of both sides agree to 1e-4.

What differs. focus's step includes drawing the sample, and it fits the last window too, which nobody reads. The eager side builds its mask once,
before the first step, fits all windows in one batch, has Python and all of PyTorch in its process, and uses the Hyena filters of vtx (two Fourier
transforms of the long one, built anew in each step). Processor seconds are those of all threads.

Needs, beside a built focus, an environment of its own, whose python runs this script:
    pip install torch==2.11.0 numpy einops pyyaml safetensors tqdm rich && pip install --no-deps vtx==1.1.0
"""

import argparse
import collections
import gzip
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from timed_training import ROOT, configuration, environment, train

WINDOW, KMER, STRIDE, RIDGE, BETA_RIDGE, RANK = 1024, 100, 4, 3.0, 1e-3, 16
FASTA, RECORD, FIRST = "data/human_chr20_1-16M.fa.gz", "20", 5_000_000
STEPS = 2


def sequence(length):
    """Bases FIRST + 1 to FIRST + length of the record."""
    letters, wanted = [], FIRST + length
    with gzip.open(os.path.join(ROOT, FASTA), "rt") as f:
        next(f)
        for line in f:
            letters.append(line.strip())
            wanted -= len(letters[-1])
            if wanted <= 0:
                break
    return "".join(letters)[FIRST:FIRST + length].upper()


class Step:
    """The eager side. Shapes: H heads, N windows, R references, m k-mers of a window, E head dimension, D width."""

    def __init__(self, length, attention):
        import refresh_golden  # prepares vtx for the CPU
        import torch
        import yaml
        self.torch, F = torch, torch.nn.functional
        self.F, self.attention = F, attention
        refresh_golden.kept = collections.deque(maxlen=1)  # the recordings' tensors would hold every step's graph
        shape, weights = Path(ROOT, "configs/models/focus-small.yml"), Path(ROOT, "data/model/focus-small.pt")
        settings = yaml.safe_load(shape.read_text())
        with tempfile.NamedTemporaryFile("w", suffix=".yml") as complete:  # the package reads these where focus needs none
            yaml.safe_dump(settings | {"num_filters": settings["hidden_size"], "model_parallel_size": 1, "use_flashfft": False,
                                       "use_flash_rmsnorm": False, "use_flash_depthwise": False, "inference_mode": True}, complete)
            complete.flush()
            self.model = refresh_golden.Reference(Path(complete.name), weights, torch.float32).model
        self.normal_tensors(torch.load(weights, map_location="cpu", weights_only=True))
        self.width, self.heads = settings["hidden_size"], settings["num_attention_heads"]
        self.dim = self.width // self.heads
        inverse = settings["rotary_emb_base"]**-(torch.arange(0, self.dim, 2, dtype=torch.float32) / self.dim)
        self.angle = lambda positions: torch.outer(positions.float() / settings["rotary_emb_scaling_factor"], inverse)
        self.tokens = torch.tensor(list(sequence(length).encode()))[None]
        self.length, self.windows, self.m = length, length // WINDOW - 1, -(-WINDOW // KMER)  # the last window's entries are never read
        self.pad = self.m * KMER - WINDOW
        ends = torch.tensor([min((j + 1) * KMER, WINDOW) for j in range(self.m)])
        self.sizes = torch.diff(ends, prepend=torch.zeros(1, dtype=torch.long)).float()
        starts = torch.arange(self.windows)[:, None] * WINDOW
        self.at_bases, self.at_entries = self.angle(torch.arange(length)), self.angle((starts + ends - 1).flatten())
        self.ahead = self.angle(torch.tensor([WINDOW]))
        base, window = torch.arange(length), torch.arange(length) // WINDOW
        own = (base[:, None] >= base) & (window[:, None] == window)
        past = window[:, None] > torch.arange(self.windows).repeat_interleave(self.m)
        self.visible = torch.cat([own, past], 1)  # [L, L + entries]
        torch.manual_seed(1)
        self.adapters = {}
        for index in settings["attn_layer_idxs"]:
            maps = {name: (torch.randn(RANK, self.width) / math.sqrt(self.width), torch.zeros(self.width, RANK)) for name in ("key", "value")}
            beta = (torch.zeros(self.heads, self.width), torch.zeros(self.heads))
            self.adapters[index] = maps | {"beta": beta}
        self.parameters = [p.requires_grad_() for a in self.adapters.values() for pair in a.values() for p in pair]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-3, weight_decay=0.0)

    def normal_tensors(self, checkpoint):
        """The package loads in inference mode and rounds to bf16; training needs ordinary tensors, and focus uses the file's."""
        for module_name, module in self.model.named_modules():
            for table in (module._parameters, module._buffers):
                for name, tensor in table.items():
                    if tensor is None:
                        continue
                    stored = checkpoint.get(f"{module_name}.{name}" if module_name else name)
                    tensor = tensor.clone() if stored is None else stored.float().reshape(tensor.shape).clone()
                    table[name] = self.torch.nn.Parameter(tensor, requires_grad=False) if table is module._parameters else tensor

    def rotate(self, x, angle):
        low, high = x.chunk(2, -1)
        cos, sin = angle.cos(), angle.sin()
        return self.torch.cat([low * cos - high * sin, low * sin + high * cos], -1)

    def by_kmer(self, x, fill):
        """Last dimension WINDOW -> [m, KMER], the short last k-mer filled up."""
        return self.F.pad(x, (0, self.pad), value=fill).unflatten(-1, (self.m, KMER))

    def entries(self, adapter, u, q, k, v):
        """u [1, L, D]; q, k, v [H, L, E], rotated. Entries of all closed windows: [H, N m, E] twice and beta [H, N m]."""
        torch, scale, none = self.torch, 1 / math.sqrt(self.dim), -math.inf
        closed = self.windows * WINDOW
        q, k, v = (t[:, :closed].unflatten(1, (self.windows, WINDOW)) for t in (q, k, v))
        ahead = self.rotate(q[:, :, ::STRIDE], self.ahead)
        scores = ahead @ k.transpose(-1, -2) * scale  # [H, N, R, W]
        share = self.by_kmer((scores - scores.logsumexp(-1, True)).logsumexp(2), none).softmax(-1)  # [H, N, m, KMER]
        log_mass = self.by_kmer(scores, none).logsumexp(-1)  # [H, N, R, m]
        keys, values = (self.by_kmer(t.transpose(-1, -2), 0.0) for t in (k, v))  # [H, N, E, m, KMER]
        mean_key = (keys.sum(-1) / self.sizes).transpose(-1, -2)  # [H, N, m, E]
        design = torch.cat([ahead * scale, torch.ones_like(ahead[..., :1])], -1)
        penalty = torch.cat([torch.full((self.dim,), RIDGE), torch.tensor([BETA_RIDGE])])
        gram = design.transpose(-1, -2) @ design + torch.diag(penalty)
        solution = torch.linalg.solve(gram, design.transpose(-1, -2) @ (log_mass - ahead @ mean_key.transpose(-1, -2) * scale))
        key = (mean_key + solution[:, :, :-1].transpose(-1, -2)).flatten(1, 2)
        value = (values * share.unsqueeze(2)).sum(-1).transpose(-1, -2).flatten(1, 2)
        beta = solution[:, :, -1].flatten(1)
        of_kmers = self.by_kmer(u[0, :closed].unflatten(0, (self.windows, WINDOW)).transpose(-1, -2), 0.0).sum(-1) / self.sizes
        hidden = of_kmers.transpose(-1, -2).flatten(0, 1)  # [N m, D]
        moved = {name: (hidden @ adapter[name][0].T @ adapter[name][1].T).unflatten(-1, (self.heads, -1)).transpose(0, 1)
                 for name in ("key", "value")}
        return key + self.rotate(moved["key"], self.at_entries), value + moved["value"], beta + (hidden @ adapter["beta"][0].T + adapter["beta"][1]).T

    def attend(self, q, k, v, beta):
        torch, scale = self.torch, 1 / math.sqrt(self.dim)
        bias = torch.cat([beta.new_zeros(self.heads, self.length), beta], 1)
        if self.attention == "sdpa":
            q = torch.cat([q, torch.ones_like(q[..., :1])], -1)
            k = torch.cat([k, bias[..., None] / scale], -1)
            v = torch.cat([v, torch.zeros_like(v[..., :1])], -1)
            return self.F.scaled_dot_product_attention(q[None], k[None], v[None], attn_mask=self.visible, scale=scale)[0, ..., :-1]
        scores = q @ k.transpose(-1, -2) * scale + bias[:, None]
        return scores.masked_fill(~self.visible, -math.inf).softmax(-1) @ v

    def attention_block(self, block, adapter, x):
        inner, u = block.inner_mha_cls, block.pre_norm(x)
        q, k, v = inner.Wqkv(u)[0].unflatten(-1, (self.heads, 3, -1)).permute(2, 1, 0, 3)  # the file's layout, column_split
        q, k = self.rotate(q, self.at_bases), self.rotate(k, self.at_bases)
        entry_k, entry_v, beta = self.entries(adapter, u, q, k, v)
        cat = self.torch.cat
        y = self.attend(q, cat([k, entry_k], 1), cat([v, entry_v], 1), beta)
        x = x + inner.out_proj(y.transpose(0, 1).flatten(1))[None]
        return x + block.mlp(block.post_norm(x))

    def loss(self):
        x = self.model.embedding_layer(self.tokens)
        for index, block in enumerate(self.model.blocks):
            x = self.attention_block(block, self.adapters[index], x) if index in self.adapters else block(x)[0]
        log_q = self.model.unembed(self.model.norm(x[:, :-1])).log_softmax(-1)
        return -log_q.gather(-1, self.tokens[:, 1:, None])[0, WINDOW:].mean()

    def __call__(self):
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss()
        loss.backward()
        self.torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        return loss.item()


def eager_process(length, attention, threads):
    import torch
    torch.set_num_threads(threads)
    step, losses = Step(length, attention), []
    for _ in range(STEPS):
        wall, processor = time.monotonic(), time.process_time()
        losses.append(step())
        took = (time.process_time() - processor, time.monotonic() - wall)
    print(json.dumps({"took": took, "losses": losses, "trained": sum(p.numel() for p in step.parameters),
                      "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


def eager(length, attention, threads):
    command = [sys.executable, os.path.abspath(__file__), "--eager-process", "--lengths", str(length), "--attention", attention,
               "--threads", str(threads)]
    done = subprocess.run(command, env=environment(threads), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"the eager step at {length} bases ({attention}) ended with status {done.returncode}:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def focus(program, length, threads):
    source = {"fasta": FASTA, "regions": [f"{RECORD}:{FIRST + 1}-{FIRST + length}"]}  # one sequence fits: every step reads the same
    config = configuration(length, STEPS, threads, {"data": {"sources": [source], "lowercase_weight": 1.0}})
    records, peak = train(program, config, threads)
    return {"took": (records[-1]["processor_seconds"], records[-1]["seconds"]), "losses": [r["loss"] for r in records], "peak": peak}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default=os.path.join(ROOT, "build", "cpu-release", "bin"))
    parser.add_argument("--lengths", default="4096,8192", help="multiples of 1,024, at least two windows")
    parser.add_argument("--attention", default="written,sdpa")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--eager-process", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    lengths, kinds = [int(n) for n in options.lengths.split(",")], options.attention.split(",")
    if any(n % WINDOW or n < 2 * WINDOW for n in lengths) or not set(kinds) <= {"written", "sdpa"}:
        parser.error("--lengths: multiples of 1,024 from 2,048 on; --attention: written, sdpa or both")
    if options.eager_process:
        return eager_process(lengths[0], kinds[0], options.threads)

    runs = collections.defaultdict(list)
    for _ in range(options.repeats):
        for length in lengths:
            for side in ["focus", *kinds]:
                result = focus(os.path.join(options.bin, "focus-train"), length, options.threads) if side == "focus" else eager(
                    length, side, options.threads)
                runs[length, side].append(result)
                print(f"{side} {length}: {result['took'][0]:.2f} processor s, {result['took'][1]:.2f} s, {result['peak'] / 2**20:.0f} MiB, "
                      f"losses {result['losses']}", file=sys.stderr, flush=True)
    print("length", "side", "processor_s", "wall_s", "peak_mib", "processor_ratio", "wall_ratio", "peak_ratio", "loss", sep="\t")
    apart = []
    for (length, side), results in runs.items():
        of = [(*r["took"], r["peak"] / 2**20) for r in results]
        ours = [(*r["took"], r["peak"] / 2**20) for r in runs[length, "focus"]]
        middle = [statistics.median(column) for column in zip(*of)]
        ratios = [statistics.median(a / b for a, b in zip(x, y)) for x, y in zip(zip(*of), zip(*ours))]
        print(length, side, f"{middle[0]:.2f}", f"{middle[1]:.2f}", f"{middle[2]:.0f}", *(f"{r:.2f}" for r in ratios),
              f"{results[0]['losses'][0]:.6f}", sep="\t", flush=True)
        for a, b in zip(results[0]["losses"], runs[length, "focus"][0]["losses"]):
            if not abs(a - b) <= 1e-4:
                apart.append(f"{side} at {length} bases: loss {a:.6f}, focus {b:.6f}")
    if apart:
        sys.exit("the two sides do not compute the same: " + "; ".join(apart))


if __name__ == "__main__":
    main()
