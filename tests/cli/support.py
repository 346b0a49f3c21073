"""What the tests of the programs share: where these are, small inputs, running one and judging what it says.

A test file is run as: python3 FILE --bin BUILD/bin --source SOURCE_ROOT [TEST NAME ...]. Needs only Python's
standard library. Exit status 77: every test that was asked for is skipped, and the reason is printed.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
import unittest


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    parser.add_argument("--source", required=True)
    parser.add_argument("tests", nargs="*")
    args = parser.parse_args()
    return os.path.abspath(args.bin), os.path.abspath(args.source), args.tests


BIN, SOURCE, TESTS = arguments()
USAGE, DATA, MODEL, RESOURCES, CHECK, INTERRUPTED = 1, 2, 3, 4, 5, 130
NOBODY = 65534
# What no message to a user may hold.
INSIDES = ("terminate", "what():", "LibTorch failed", "unexpected failure", "internal check", "c10::",
           "std::", "Traceback", "[json.exception", "basic_string")
PROGRAMS = ["focus-train", "focus-infer", "focus-eval", "focus-model"]

TINY_MODEL = """\
model_name: tiny-for-tests
vocab_size: 512
hidden_size: 16
num_layers: 4
hcs_layer_idxs: [0]
hcm_layer_idxs: [1]
hcl_layer_idxs: [2]
attn_layer_idxs: [3]
hcs_filter_groups: 16
hcm_filter_groups: 16
num_attention_heads: 2
inner_mlp_size: 32
rotary_emb_base: 10000
interleave: True
column_split_hyena: False
hyena_out_proj_bias: True
qkv_proj_bias: False
tie_embeddings: True
max_seqlen: 1024
evo2_style_activations: True
"""


def bases(count, seed=1):
    return "".join(random.Random(seed).choices("ACGT", k=count))


def write(path, content):
    with open(path, "wb" if isinstance(content, bytes) else "w") as file:
        file.write(content)
    return path


def read(path):
    with open(path, "rb") as file:
        return file.read()


def fasta(records, width=60):
    def lines(sequence):
        return "".join(sequence[i : i + width] + "\n" for i in range(0, len(sequence), width))

    return "".join(f">{name}\n{lines(sequence)}" for name, sequence in records)


def safetensors(path):
    """Names, shapes and raw bytes of a safetensors file, and its metadata."""
    raw = read(path)
    (size,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + size])
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        tensors[name] = (entry["dtype"], entry["shape"], raw[8 + size + begin : 8 + size + end])
    return tensors, metadata


class ProgramTest(unittest.TestCase):
    def setUp(self):
        # Open to other users, so that a program can also be tried as one of them.
        self.folder = tempfile.mkdtemp(prefix="focus-cli-")
        os.chmod(self.folder, 0o755)
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.golden = os.path.join(SOURCE, "tests", "golden")
        self.config = os.path.join(self.golden, "configs", "tiny7b.yml")
        self.checkpoint = os.path.join(self.golden, "checkpoints", "tiny7b.pt")

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def run_program(self, program, *args, **options):
        options = {"capture_output": True, "text": True, "cwd": self.folder, "timeout": 300, **options}
        return subprocess.run([os.path.join(BIN, program), *map(str, args)], **options)

    def assert_clear(self, done, code, *mentions):
        """The exit code, and one message on stderr that names the right things and nothing of the inside."""
        shown = (f"\ncommand: {' '.join(done.args)}\nexit code: {done.returncode}\n"
                 f"stdout: {done.stdout}\nstderr: {done.stderr}")
        self.assertEqual(done.returncode, code, shown)
        lines = done.stderr.splitlines()
        errors = [line for line in lines if re.match(r"\[[\d:]+\] error ", line)]
        usage_errors = [line for line in lines if line == "Run with --help for more information."]
        self.assertEqual(len(errors) + len(usage_errors), 1, "expected one message" + shown)
        for inside in INSIDES:
            self.assertNotIn(inside, done.stderr, shown)
        for mention in mentions:
            self.assertIn(mention, done.stderr, shown)

    def assert_ok(self, done):
        self.assertEqual(done.returncode, 0, f"\ncommand: {' '.join(done.args)}\nstderr: {done.stderr}")
        return done.stdout

    def score(self, fasta_file, *args, config=None, checkpoint=None, **options):
        model = ["--model-config", config or self.config, "--checkpoint", checkpoint or self.checkpoint]
        fixed = ["score", *model, "--fasta", fasta_file, "-q", "-t", "1"]
        return self.run_program("focus-infer", *fixed, *args, **options)

    def genome(self, records=None):
        records = records or [("one", bases(300)), ("two", bases(130, seed=2))]
        return write(self.path("genome.fa"), fasta(records))

    def train(self, *args, **options):
        return self.run_program("focus-train", *args, **options)

    def train_config(self, **changes):
        settings = {
            "task": "pretrain", "model_config": write(self.path("tiny.yml"), TINY_MODEL),
            "data": {"sources": [{"fasta": write(self.path("train.fa"), fasta([("chr1", bases(20000))]))}]},
            "stages": [{"length": 128, "steps": 6, "batch": 2}], "accumulation": 1, "optimizer": {"lr": 1e-3},
            "checkpoint_every": 2, "threads": 1, "device": "cpu",
        }
        settings.update(changes)
        return write(self.path("train.json"), json.dumps(settings))

    def fidelity(self, *args, **options):
        return self.run_program("focus-eval", "fidelity", "-q", *args, **options)

    def fidelity_config(self, **changes):
        settings = {
            "model_config": self.config, "model_checkpoint": self.checkpoint,
            "fasta": self.genome([("one", bases(2000))]), "window": {"size": 32}, "focus": {"k": 8},
            "segments": 2, "length": 100, "bootstrap_draws": 20, "threads": 1, "device": "cpu",
        }
        settings.update(changes)
        return write(self.path("eval.json"), json.dumps(settings))

    def calibrate(self, *args, **options):
        return self.run_program("focus-eval", "calibrate", "-q", *args, **options)

    def calibrate_config(self, **changes):
        sources = [{"fasta": write(self.path("tables.fa"), fasta([("chr1", bases(2000, seed=5))]))}]
        settings = {"data": {"sources": sources}, "tables": {"word": 2, "offsets": [0, 2], "fit_sequences": 2, "fit_length": 100}}
        settings.update(changes)
        return self.fidelity_config(**settings)

    def full_folder(self):
        if os.geteuid() != 0:
            self.skipTest("a full disk needs the right to mount one")
        disk = self.path("disk")
        os.mkdir(disk)
        mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk]
        mounted = subprocess.run(mount, capture_output=True, text=True)
        if mounted.returncode != 0:
            self.skipTest(f"no small disk can be mounted: {mounted.stderr.strip()}")
        self.addCleanup(subprocess.run, ["umount", disk], check=True)
        return disk

    def as_nobody(self):
        """Options of run_program under which read-only folders are read-only, as they never are for root."""
        if os.geteuid() != 0:
            return {}
        os.makedirs(self.path("tmp"), exist_ok=True)
        os.chmod(self.path("tmp"), 0o777)
        environment = {**os.environ, "TMPDIR": self.path("tmp")}
        options = {"user": NOBODY, "group": NOBODY, "extra_groups": [], "env": environment}
        try:
            if self.run_program("focus-infer", "--version", **options).returncode != 0:
                self.skipTest("runs as root, and another user cannot start the programs")
        except (PermissionError, subprocess.SubprocessError) as error:
            self.skipTest(f"runs as root and cannot become another user: {error}")
        return options

    def start(self, program, *args, env=None):
        """Starts a program in the background; finish() waits for it."""
        command = [os.path.join(BIN, program), *args]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, cwd=self.folder, env=env, **pipes)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def start_ranks(self, count, program, *args, missing=(), more={}):
        """Several ranks on this machine. `missing`: ranks not started; `more`: arguments of one rank."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        env = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
               "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}

        def start(rank):
            own = {**env, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            return self.start(program, *args, *more.get(rank, []), env=own)

        return [start(rank) for rank in range(count) if rank not in missing]

    def wait_until(self, process, condition):
        deadline = time.monotonic() + 200
        while not condition():
            self.assertIsNone(process.poll(), "the program ended before it could be interrupted")
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.01)

    def finish(self, processes):
        done = []
        for process in processes:
            stdout, stderr = process.communicate(timeout=300)
            done.append(subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr))
        if any("this build cannot connect them" in one.stderr for one in done):
            self.skipTest("built without Gloo's headers")
        return done

    def interrupt(self, process, which=signal.SIGINT):
        process.send_signal(which)
        return self.finish([process])[0]


def main(test_class):
    loader = unittest.TestLoader()
    names = TESTS or loader.getTestCaseNames(test_class)
    suite = loader.loadTestsFromNames(names, test_class)
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    if not result.wasSuccessful():
        return 1
    return 77 if result.testsRun and len(result.skipped) == result.testsRun else 0
