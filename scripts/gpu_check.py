#!/usr/bin/env python3
"""Tests and measures packed programs on a machine with an NVIDIA card: scripts/gpu_check.sh --run."""

import argparse
import glob
import importlib.util
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SHAPE = "configs/models/evo2_7b_base.yml"
DATA = "data/human_chr20_1-16M.fa.gz"
TAIL = 2000  # characters of a step's output that the report shows
# Root mean square of a difference of logits over their spread: 32 blocks in bf16 move them by a few roundings of 2^-9 each.
IDENTITY = 0.05


class Memory(threading.Thread):
    """The most memory that was in use on the card since the last reset, in MiB, as the driver says."""

    def __init__(self):
        super().__init__(daemon=True)
        self.peak = 0
        self.tool = subprocess.Popen(["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-i", "0", "-lms", "200"],
                                     stdout=subprocess.PIPE, text=True)

    def run(self):
        for line in self.tool.stdout:
            if line.strip().isdigit():
                self.peak = max(self.peak, int(line))


class Check:
    def __init__(self, args):
        self.begin, self.end = time.monotonic(), time.monotonic() + 60 * args.minutes
        self.pack, self.out = args.pack, args.out
        self.steps, self.facts, self.memory = [], {}, None
        self.folder = tempfile.mkdtemp()
        os.makedirs(self.out, exist_ok=True)
        self.environment = self.libraries()

    def libraries(self):
        """The packed programs find PyTorch's libraries, NVIDIA's beside them and the packed ones, in this order."""
        found = importlib.util.find_spec("torch")
        if found is None:
            sys.exit("python3 has no torch: its libraries are needed")
        torch = found.submodule_search_locations[0]
        folders = [os.path.join(torch, "lib"), *glob.glob(os.path.join(os.path.dirname(torch), "nvidia/*/lib")), os.path.join(self.pack, "lib")]
        return {**os.environ, "LD_LIBRARY_PATH": ":".join(folders + [os.environ.get("LD_LIBRARY_PATH", "")]).rstrip(":"),
                "PATH": os.path.join(self.pack, "bin") + ":" + os.environ.get("PATH", ""), "FOCUS_TEST_DATA": os.path.join(ROOT, "tests/golden"),
                "PYTHONUNBUFFERED": "1"}

    def left(self):
        return self.end - time.monotonic()

    def step(self, title, command, limit, least=5.0, read=None, judge=None, environment=()):
        """Runs a command for at most `limit` seconds; not at all when less than `least` are left. read(output) gives figures, judge(figures)
        what is wrong with them, or nothing."""
        step = {"title": title, "command": " ".join(command), "figures": {}}
        self.steps.append(step)
        limit = min(limit, self.left() - 2)
        if limit < least:
            step["result"] = "no time left"
            self.write()
            return step
        if self.memory:
            self.memory.peak = 0
        begin = time.monotonic()
        log = os.path.join(self.folder, "output")
        with open(log, "wb") as output:
            program = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT, start_new_session=True,
                                       env={**self.environment, **dict(environment)})
            try:
                step["rc"] = program.wait(timeout=limit)
                step["result"] = "passed" if step["rc"] == 0 else "FAILED"
            except subprocess.TimeoutExpired:
                os.killpg(program.pid, signal.SIGKILL)
                program.wait()
                step["result"] = "out of time"
        step["seconds"] = round(time.monotonic() - begin, 1)
        if self.memory:
            step["peak_MiB"] = self.memory.peak
        with open(log, "rb") as output:
            text = output.read().decode(errors="replace")
        step["output"] = text[-TAIL:]
        if step["result"] == "passed" and read:
            try:
                step["figures"] = read(text)
                wrong = judge(step["figures"]) if judge else None
            except (ValueError, KeyError, IndexError, OSError) as error:
                wrong = f"unreadable: {error!r}"
            if wrong:
                step["result"], step["wrong"] = "FAILED", wrong
        print(f"{step['seconds']:7.1f} s  {step['result']:12} {title}", flush=True)
        self.write()
        return step

    def failed(self):
        return [step for step in self.steps if step["result"] == "FAILED"]

    def write(self):
        """The whole report again after each step: it is readable whenever this ends."""
        facts = {**self.facts, "seconds": round(time.monotonic() - self.begin, 1), "failed": [step["title"] for step in self.failed()]}
        lines = [f"# focus on {facts['card']}", "", *(f"- {name}: {value}" for name, value in facts.items() if name != "card"), "",
                 "| | result | s | peak MiB | figures |", "| --- | --- | --- | --- | --- |"]
        for step in self.steps:
            figures = ", ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in step["figures"].items()
                                if isinstance(value, (int, float)))
            lines.append(f"| {step['title']} | {step['result']} | {step.get('seconds', '')} | {step.get('peak_MiB', '')} | {figures} |")
        for step in self.steps:
            lines += ["", f"## {step['title']}: {step['result']}", "", *([step["wrong"], ""] if "wrong" in step else []),
                      "```text", "$ " + step["command"], step.get("output", "").rstrip(), "```"]
        for name, text in (("report.md", "\n".join(lines) + "\n"), ("report.json", json.dumps({"facts": facts, "steps": self.steps}, indent=1))):
            path = os.path.join(self.out, name)
            with open(path + ".new", "w") as file:
                file.write(text)
            os.replace(path + ".new", path)


def json_of(text):
    """The last JSON object of an output: messages may stand before it."""
    return json.loads(text[text.index("\n{") if "\n{" in text else text.index("{"):])


def identity(figures):
    far = {name: value for name, value in figures.items() if name.startswith("check.") and not value <= IDENTITY}
    return f"further apart than {IDENTITY}: {far}" if far else None


def tests(check):
    """What must hold, within two minutes or two fifths of the time."""
    end, check.end = check.end, min(check.end, time.monotonic() + min(120.0, 0.4 * check.left()))
    cuda = "FOCUS_TEST_CARD", "cuda:0"
    check.step("doctor", ["focus-model", "doctor"], 60)
    check.step("kernels against fp64", ["test_kernels_cuda", "--gtest_brief=1"], 60)
    check.step("ops", ["test_ops", "--gtest_brief=1"], 60)
    check.step("recordings, executions, training", ["test_device", "--gtest_brief=1"], 60)
    check.step("programs", [sys.executable, "tests/cli/card_test.py", "--bin", os.path.join(check.pack, "bin"), "--source", ROOT], 60, environment=[cuda])
    if shutil.which("compute-sanitizer", path=check.environment["PATH"]):
        for tool in ("memcheck", "racecheck", "synccheck", "initcheck"):
            check.step(f"compute-sanitizer {tool}", ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9",
                                                     os.path.join(check.pack, "bin/test_kernels_cuda"), "--gtest_brief=1"], 60)
    check.end = end


def bench(check, title, *args, limit=150, least=30.0, plan=()):
    """focus-model bench on random weights in the shape of 7B, and beside it what focus-model plan says at the ceilings just measured."""
    step = check.step(title, ["focus-model", "bench", "--model-config", SHAPE, "--random-weights", "0", "--device", "cuda:0", "--dtype", "bf16",
                              "--json", *args], limit, least, json_of, identity)
    figures = step["figures"]
    if "gemm_flop_per_s" not in figures:
        return
    check.facts["gemm_tflops"] = round(max(check.facts.get("gemm_tflops", 0), figures["gemm_flop_per_s"] / 1e12), 1)
    if "bandwidth_bytes_per_s" in figures:
        check.facts["copy_tbps"] = round(max(check.facts.get("copy_tbps", 0), figures["bandwidth_bytes_per_s"] / 1e12), 3)
    if plan and "copy_tbps" in check.facts:
        planned(check, step, *plan)


def planned(check, step, job, *args):
    """Adds the rate at best by the plan to the step's figures."""
    command = ["focus-model", "plan", "--model-config", SHAPE, "--job", job, "--gemm-tflops", str(check.facts["gemm_tflops"]),
               "--copy-tbps", str(check.facts["copy_tbps"]), "--json", *args]
    done = subprocess.run(command, cwd=ROOT, env=check.environment, capture_output=True, text=True, timeout=60)
    if done.returncode == 0:
        step["figures"][f"{job}_at_best_bases_per_s"] = json_of(done.stdout)["plans"][0]["bases_per_second"]
        check.write()


def train(check, checkpoint, length, recompute):
    """Training steps of an adapter with cross-entropy, measured by their own log."""
    output = os.path.join(check.folder, f"train_{length}_{recompute}")
    settings = {"model_config": SHAPE, "model_checkpoint": checkpoint, "dtype": "bf16", "recompute": recompute, "accumulation": 1,
                "stages": [{"length": length, "steps": 4}], "data.sources": [{"fasta": DATA}], "objective.kl": 0.0, "objective.ce": 1.0}
    command = ["focus-train", "--device", "cuda:0", "--output", output]
    for name, value in settings.items():
        command += ["--set", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]

    def read(_):
        with open(os.path.join(output, "metrics.jsonl")) as log:
            steps = [line for line in map(json.loads, log) if "bases_per_second" in line]
        return {"bases_per_s": statistics.median(step["bases_per_second"] for step in steps[1:]), "loss": steps[-1]["loss"]}

    step = check.step(f"adapter training, {length} bases{', recomputed' if recompute else ''}", command, 120, 30.0, read)
    if step["figures"] and "copy_tbps" in check.facts:
        planned(check, step, "train", "--length", str(length), "--memory", "fitted", *(["--recompute"] if recompute else []))


def figures(check):
    """Speed and memory, each with its ceiling or its identity check, most important first."""
    focus = ["--memory", "fitted", "--window", "1024", "-k", "100"]
    bench(check, "prefill and decode at 8k, full memory; each kind of block", "--prefill", "8192", "--decode", "64", "--repeats", "3", "--check", "256",
          "--blocks", plan=("prefill", "--length", "8192", "--chunk", "8192"))
    bench(check, "prefill and decode at 1M, Focus W 1024 k 100", "--prefill", "1M", "--chunk", "8192", "--decode", "64", "--repeats", "1", "--check", "1100",
          *focus, plan=("prefill", "--length", "1M", "--chunk", "8192", *focus))
    bench(check, "prefill and decode at 131k, full memory", "--prefill", "131072", "--chunk", "8192", "--decode", "64", "--repeats", "1",
          plan=("prefill", "--length", "131072", "--chunk", "8192"))
    checkpoint = os.path.join(check.folder, "7b.pt")
    if shutil.disk_usage(check.folder).free > 20e9:
        made = check.step("random checkpoint of 13 GB", ["focus-model", "random", "--model-config", SHAPE, "-o", checkpoint], 90, 60.0)
        if made["result"] == "passed":
            for length, recompute in ((8192, True), (8192, False), (32768, True)):
                train(check, checkpoint, length, recompute)
            check.step("open the checkpoint", ["focus-model", "bench", "--model-config", SHAPE, "--checkpoint", checkpoint, "--device", "cuda:0",
                                               "--prefill", "64", "--decode", "0", "--repeats", "1", "--json"], 60, 15.0, json_of)
    bench(check, "decode of 32 sequences at 1k", "--batch", "32", "--prefill", "1024", "--decode", "64", "--repeats", "1")
    bench(check, "prefill and decode at 262k, full memory", "--prefill", "262144", "--chunk", "8192", "--decode", "64", "--repeats", "1", limit=120, least=60.0)


def card_of(environment):
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    done = subprocess.run([tool, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader", "-i", "0"], env=environment,
                          capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 and done.stdout.strip() else None


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pack", required=True, help="folder of the unpacked programs and libraries")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--out", default=os.path.join(ROOT, ".gpu/out"))
    args = parser.parse_args()
    if args.minutes <= 0:
        parser.error("--minutes must be positive")
    check = Check(args)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        card = card_of(check.environment)
        with open(os.path.join(args.pack, "commit")) as file:
            commit = file.read().split("\n")[0]
        check.facts = {"card": card or "a machine without a card", "commit": commit, "minutes": args.minutes}
        check.write()
        if card is None:
            # Nothing is checked then but that the pack starts: tests skip what needs a card.
            check.step("doctor", ["focus-model", "doctor"], 60)
            for program in ("test_kernels_cuda", "test_ops", "test_device"):
                check.step(program, [program, "--gtest_brief=1"], 200)
            print(f"no card: nothing was measured; {args.out}/report.md", flush=True)
            return 2
        check.memory = Memory()
        check.memory.start()
        tests(check)
        figures(check)
        print(f"{len(check.failed())} of {len(check.steps)} failed; {args.out}/report.md", flush=True)
        return 1 if check.failed() else 0
    finally:
        if check.memory:
            check.memory.tool.kill()
        check.write()
        shutil.rmtree(check.folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
