"""Runs focus-train for a few steps and tells what each step took. Used by parallel_cost.py and eager_step.py; needs Linux and only Python's
standard library.

Wall-clock seconds of a step are focus-train's own (length / bases_per_second). Processor seconds are read from the kernel when the step's line
appears in metrics.jsonl. On a machine that others use too, only the latter say something about the program. OpenMP is told to let waiting
threads sleep: by default they spin, and the processor time would count that as work.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
POLL_SECONDS = 0.02


def environment(threads):
    return dict(os.environ, OMP_NUM_THREADS=str(threads), OMP_WAIT_POLICY="passive")


def processor_seconds(pid):
    """User and system time of a process and its threads."""
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def configuration(length, steps, threads, overrides):
    """The quickstart's task, one sequence per step, no checkpoint before the end. `overrides`: dotted path to value."""
    config = {
        "task": "adapter", "model_config": "configs/models/focus-small.yml", "model_checkpoint": "data/model/focus-small.pt",
        "window": {"size": 1024}, "focus": {"k": 100, "unit": "fitted"}, "data": {"sources": [{"fasta": "data/human_chr20_1-16M.fa.gz"}]},
        "stages": [{"length": length, "steps": steps}], "accumulation": 1, "objective": {"kl": 0.0, "ce": 1.0},
        "optimizer": {"lr": 1e-3, "weight_decay": 0.0}, "schedule": {"warmup_steps": 0}, "checkpoint_every": steps, "device": "cpu",
        "threads": threads,
    }
    for path, value in overrides.items():
        *groups, key = path.split(".")
        at = config
        for group in groups:
            at = at.setdefault(group, {})
        at[key] = value
    return config


def train(program, config, threads):
    """All steps' records, with "seconds" and "processor_seconds" (None for the first, whose begin nobody saw), and the peak resident bytes."""
    with tempfile.TemporaryDirectory() as scratch:
        path, output, messages = (os.path.join(scratch, name) for name in ("config.json", "run", "messages"))
        with open(path, "w") as f:
            json.dump(config, f)
        with open(messages, "w") as log:
            child = subprocess.Popen([program, "--config", path, "--output", output, "-q"], cwd=ROOT, stdout=log, stderr=log,
                                     env=environment(threads))
        metrics, seen, marks = os.path.join(output, "metrics.jsonl"), 0, []
        try:
            while True:
                ended, status, usage = os.wait4(child.pid, os.WNOHANG)
                if ended:
                    break
                try:
                    size = os.path.getsize(metrics)
                    if size > seen:
                        seen = size
                        marks.append(processor_seconds(child.pid))
                except FileNotFoundError:
                    pass  # before the first step; or the process has just ended
                time.sleep(POLL_SECONDS)
        except BaseException:
            os.kill(child.pid, signal.SIGKILL)
            os.wait4(child.pid, 0)
            raise
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode != 0:
            with open(messages) as f:
                sys.exit(f"{program} failed with status {child.returncode}:\n{f.read()}")
        with open(metrics) as f:
            records = [json.loads(line) for line in f]
    if len(marks) != len(records):
        sys.exit(f"{len(records)} steps, but {len(marks)} were seen while they ran: steps too short to be timed, use a larger length")
    for i, record in enumerate(records):
        record["seconds"] = record["length"] / record["bases_per_second"]
        record["processor_seconds"] = marks[i] - marks[i - 1] if i else None
    return records, usage.ru_maxrss * 1024
