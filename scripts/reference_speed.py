#!/usr/bin/env python3
"""Times the reference implementation (vtx) on the CPU as `focus-model bench` times focus: reading a prompt, then adding single bases.

    scripts/reference_speed.py --model-config FILE.yml --checkpoint FILE.pt [--prefill 1024] [--decode 16] [--dtype bf16] [--threads N]

FP8 input projections, which the reference has on NVIDIA hardware only, are off. Needs, in an environment of its own, what
scripts/refresh_golden.py needs, and stands beside it because it prepares the reference in the same way.
"""
import argparse
import contextlib
import io
import resource
import statistics
import time
from pathlib import Path

import torch

from refresh_golden import Reference, kept


def line(name, value):
    print(name, value, sep="\t", flush=True)


class Watch:
    """Seconds since it was made: by the clock, and of all threads' processors."""

    def __init__(self):
        self.begins = time.monotonic(), time.process_time()

    def read(self):
        return time.monotonic() - self.begins[0], time.process_time() - self.begins[1]

    def line(self, name):
        seconds, of_processors = self.read()
        line(name, f"{seconds:.3f} ({of_processors:.3f} of processors)")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-config", required=True)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--prefill", type=int, default=1024)
    parser.add_argument("--decode", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--dtype", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--threads", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    watch = Watch()
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[arguments.dtype]
    reference = Reference(Path(arguments.model_config), Path(arguments.checkpoint), dtype)
    watch.line("open_s")
    torch.manual_seed(1)
    prompt = torch.tensor([65, 67, 71, 84])[torch.randint(0, 4, (1, arguments.prefill))]
    for i in range(arguments.repeats):
        watch = Watch()
        with torch.inference_mode():
            reference.model(prompt)
        kept.clear()
        watch.line(f"prefill_s.{i + 1}")
    if arguments.decode:
        with contextlib.redirect_stdout(io.StringIO()):
            state = reference.model.initialize_inference_params(max_seqlen=arguments.prefill + arguments.decode)
        watch = Watch()
        with torch.inference_mode():
            last = reference.model(prompt, inference_params_dict=state)[0][:, -1]
            watch.line("prefill_with_state_s")
            steps = []
            whole = Watch()
            for s in range(arguments.decode):
                for part in state.values():
                    part.seqlen_offset = arguments.prefill + s
                watch = Watch()
                last = reference.model(last.argmax(-1)[:, None], inference_params_dict=state)[0][:, -1]
                steps.append(watch.read()[0])
                kept.clear()
        line("decode_s_per_base", f"{statistics.median(steps):.4f} (median of {len(steps)}, best {min(steps):.4f})")
        line("decode_processor_s_per_base", f"{whole.read()[1] / len(steps):.4f} (mean)")
    line("peak_resident", f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")


if __name__ == "__main__":
    main()
