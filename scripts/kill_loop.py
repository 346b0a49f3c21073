#!/usr/bin/env python3
"""Kills a training run (SIGKILL) at random and at chosen moments, resumes it each time, and compares its end with an uninterrupted run.

  scripts/kill_loop.py [--bin build/cpu-release/bin] [--kills 50] [--seed 1] [--ranks 1] [--steps 30] [--one-run] [--keep FOLDER] [--set path=value ...]

The run trains an adapter for the embedded model. Moments: anywhere, at the start (before a first checkpoint too), while a checkpoint's
temporary folder is written, when it is about to be renamed, in its rotation, right after a metrics line, in a validation, and between the last
checkpoint and the result. A run that reaches its end before enough kills is compared, and another begins; with --one-run that is a failure:
all kills then hit one run, whose --steps must be enough, the last of them between its last checkpoint and its result. Compared byte for byte: the
adapters, every file of every checkpoint, metrics.jsonl without its fields of time and memory; and no step may occur twice in the TensorBoard
file. With --ranks N every start is N processes, of which a random one is killed; the others must end by themselves. Exit status 0: all
equal. Needs only Python's standard library.
"""

import argparse
import collections
import json
import os
import random
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VOLATILE = {"bases_per_second", "seconds_left", "peak_resident_bytes", "peak_device_bytes"}
MOMENTS = ["any", "start", "writing", "rename", "rotation", "metrics", "validation", "result"]
TIMEOUT = 300
LONGEST_LIFE = 4.0  # seconds from a start to a kill anywhere, when all kills are to hit one run
CONFIG = {
    "task": "adapter", "model_config": "configs/models/focus-small.yml", "model_checkpoint": "data/model/focus-small.pt",
    "window": {"size": 128}, "focus": {"k": 32}, "data": {"sources": [{"fasta": "data/human_chr22_20-21M.fa.gz", "regions": ["22:20000001-21000000:1-300,000"]}]},
    "stages": [{"length": 256, "steps": 30}, {"length": 384, "steps": 10}], "accumulation": 2, "optimizer": {"lr": 1e-3}, "schedule": {"warmup_steps": 5, "kind": "cosine"},
    "validation": {"every": 4, "sequences": 2, "length": 256, "data": {"sources": [{"fasta": "data/human_chr22_20-21M.fa.gz", "regions": ["22:20000001-21000000:900,001-1,000,000"]}]}},
    "checkpoint_every": 3, "keep_last": 2, "threads": 1, "device": "cpu",
}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Run:
    """One start of the program, as one process or several."""

    def __init__(self, options, folder, config):
        command = [os.path.join(options.bin, "focus-train"), "-q", "-c", config, "-o", folder, "--resume"]
        for override in options.set:
            command += ["--set", override]
        self.log = open(folder + ".log", "a")
        self.processes = []
        port = str(free_port())
        for rank in range(options.ranks):
            env = dict(os.environ, OMP_NUM_THREADS="1", SOURCE_DATE_EPOCH="1700000000")  # adapters carry their date
            if options.ranks > 1:
                env.update(RANK=str(rank), WORLD_SIZE=str(options.ranks), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(options.ranks), MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
            self.processes.append(subprocess.Popen(command, cwd=ROOT, stdout=self.log, stderr=self.log, env=env))

    def running(self):
        return all(process.poll() is None for process in self.processes)

    def wait(self):
        try:
            codes = [process.wait(timeout=TIMEOUT) for process in self.processes]
        except subprocess.TimeoutExpired:
            for process in self.processes:
                process.kill()
            raise SystemExit(f"a process did not end within {TIMEOUT} s; see {self.log.name}")
        self.log.close()
        return codes

    def kill(self, which):
        self.processes[which].kill()
        return self.wait()


def names(folder):
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def size(path):
    try:
        return os.path.getsize(path)
    except FileNotFoundError:
        return 0


def reached(moment, folder, begin, dice):
    """Whether the moment has come, seen from outside."""
    checkpoints = os.path.join(folder, "checkpoints")
    if moment in ("any", "start"):
        return time.monotonic() >= begin["at"]
    if moment == "metrics":
        return size(os.path.join(folder, "metrics.jsonl")) > begin["metrics"] > 0
    if moment == "validation":
        try:
            with open(os.path.join(folder, "metrics.jsonl"), "rb") as file:
                file.seek(-min(400, size(file.name)), os.SEEK_END)
                last = file.read().splitlines()[-1]
                return json.loads(last)["step"] % CONFIG["validation"]["every"] == 0 and b'"loss"' in last and size(file.name) != begin["metrics"]
        except (OSError, ValueError, IndexError, KeyError):
            return False
    temporary = [name for name in names(checkpoints) if ".tmp-" in name]
    if moment == "writing":
        return any(not name.endswith("-old") for name in temporary)
    if moment == "rename":
        return any(os.path.exists(os.path.join(checkpoints, name, "manifest.json")) for name in temporary if not name.endswith("-old"))
    if moment == "rotation":
        return any(name.endswith("-old") for name in temporary)
    return os.path.exists(os.path.join(checkpoints, f"step-{begin['steps']:08d}"))


def live(options, folder, config, moment, dice, lifetime):
    """Starts the run and kills it at the moment. Returns whether it was killed, and whether it came to its end."""
    stretch = {"any": (0.2, 0.7), "start": (0.0, 0.35)}.get(moment, (0, 0))
    begin = {"at": time.monotonic() + lifetime * dice.uniform(*stretch), "metrics": size(os.path.join(folder, "metrics.jsonl")),
             "steps": sum(stage["steps"] for stage in CONFIG["stages"])}
    run = Run(options, folder, config)
    while run.running() and not reached(moment, folder, begin, dice):
        begin["metrics"] = begin["metrics"] or size(os.path.join(folder, "metrics.jsonl"))
        time.sleep(0.0002)
    if moment in ("writing", "validation", "result"):
        time.sleep(dice.uniform(0, 0.01))
    if run.running():
        codes = run.kill(dice.randrange(options.ranks))
        expected = {-9} if options.ranks == 1 else {-9, 4, 0}
        if not set(codes) <= expected:
            raise SystemExit(f"after a kill ({moment}) the processes ended with {codes}; see {run.log.name}")
        return -9 in codes, False
    codes = run.wait()
    if any(codes):
        raise SystemExit(f"the run ended with {codes}; see {run.log.name}")
    return False, True


def files_of(folder):
    found = {}
    for path, _, inside in os.walk(folder):
        for name in inside:
            full = os.path.join(path, name)
            found[os.path.relpath(full, folder)] = full
    return found


def content(name, path):
    with open(path, "rb") as file:
        data = file.read()
    if name == "metrics.jsonl":
        return [{key: value for key, value in json.loads(line).items() if key not in VOLATILE} for line in data.splitlines()]
    return data


def event_steps(path):
    """Step of each record of a TensorBoard file, and whether it holds validation figures."""
    with open(path, "rb") as file:
        data = file.read()
    steps = []
    at = 0
    while at + 16 <= len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        message = data[at + 12 : at + 12 + length]
        at += 16 + length
        if message[9:10] != b"\x10":
            continue
        step, shift, i = 0, 0, 10
        while True:
            step |= (message[i] & 0x7F) << shift
            shift += 7
            i += 1
            if not message[i - 1] & 0x80:
                break
        steps.append((step, b"validation" in message[i:]))
    if at != len(data):
        raise SystemExit(f"{path}: the last record is torn")
    return steps


def differences(whole, resumed):
    first, second = files_of(whole), files_of(resumed)
    events = [name for name in second if name.startswith("events.")]
    out = []
    if len(events) != 1:
        out.append(f"{len(events)} TensorBoard files")
    else:
        steps = event_steps(second[events[0]])
        expected = [event for name in first if name.startswith("events.") for event in event_steps(first[name])]
        if steps != expected:
            out.append("TensorBoard steps")
    compared = lambda name: name not in ("provenance.json",) and not name.startswith("events.")
    for name in sorted(set(filter(compared, first)) | set(filter(compared, second))):
        if name not in first or name not in second:
            out.append(f"{name} only in the {'uninterrupted' if name in first else 'resumed'} run")
        elif content(name, first[name]) != content(name, second[name]):
            out.append(name)
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default=os.path.join(ROOT, "build", "cpu-release", "bin"))
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--steps", type=int, default=CONFIG["stages"][0]["steps"], help="of the first stage; the second has 10")
    parser.add_argument("--one-run", action="store_true", help="all kills hit the same run")
    parser.add_argument("--keep", help="folder for the runs, which then stay")
    parser.add_argument("--set", action="append", default=[], help="override a setting of the run")
    options = parser.parse_args()
    CONFIG["stages"][0]["steps"] = options.steps
    if options.ranks > 1:
        CONFIG["accumulation"] = 2 * options.ranks
        CONFIG["rank_timeout_seconds"] = 40  # a rank killed before it met the others is only missed when this is over
    folder = os.path.abspath(options.keep) if options.keep else tempfile.mkdtemp(prefix="focus-kill-")
    os.makedirs(folder, exist_ok=True)
    dice = random.Random(options.seed)
    try:
        config = os.path.join(folder, "train.json")
        with open(config, "w") as file:
            json.dump(CONFIG, file)
        began = time.monotonic()
        whole = os.path.join(folder, "whole")
        codes = Run(options, whole, config).wait()
        if any(codes):
            raise SystemExit(f"the uninterrupted run ended with {codes}; see {whole}.log")
        lifetime = time.monotonic() - began
        if options.one_run:
            lifetime = min(lifetime, LONGEST_LIFE)
        kills = collections.Counter()
        compared = starts = 0
        queue = []
        while True:
            resumed = os.path.join(folder, f"resumed-{compared}")
            ended = False
            while not ended:
                if not queue:
                    queue = [moment for moment in MOMENTS if not (options.one_run and moment == "result")]
                    dice.shuffle(queue)
                left = options.kills - sum(kills.values())
                enough = left <= 0
                moment = "never" if enough else "result" if options.one_run and left == 1 else queue.pop()
                if enough:
                    codes = Run(options, resumed, config).wait()
                    if any(codes):
                        raise SystemExit(f"the resumed run ended with {codes}; see {resumed}.log")
                    ended = True
                else:
                    killed, ended = live(options, resumed, config, moment, dice, lifetime)
                    kills[moment] += killed
                starts += 1
            compared += 1
            different = differences(whole, resumed)
            if different:
                options.keep = folder
                print(f"DIFFERENT after {dict(kills)}: {', '.join(different)}; both runs are in {folder}")
                return 1
            if sum(kills.values()) >= options.kills:
                break
            if options.one_run:
                options.keep = folder
                print(f"the run came to its end after {sum(kills.values())} kills in {starts} starts; ask for more --steps")
                return 1
        print(f"{sum(kills.values())} kills in {starts} starts ({', '.join(f'{kills[m]} {m}' for m in MOMENTS if kills[m])}), {options.ranks} rank(s), "
              f"{compared} resumed runs of {sum(stage['steps'] for stage in CONFIG['stages'])} steps, {time.monotonic() - began:.0f} s: every one equals the uninterrupted run")
        return 0
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
