"""Tests of focus-train as a user runs it: killed, interrupted, out of disk, and as several ranks. See support.py for how to start them."""

import json
import os
import re
import signal
import struct
import subprocess
import sys
import time

from support import BIN, DATA, INTERRUPTED, RESOURCES, SOURCE, USAGE, ProgramTest, bases, fasta, main, read, safetensors, write

TERMINATED = 143
VOLATILE = {"bases_per_second", "seconds_left", "peak_resident_bytes"}


class TrainTest(ProgramTest):
    def adapter_config(self, **changes):
        changes.setdefault("stages", [{"length": 128, "steps": 6}])
        changes.setdefault("accumulation", 4)
        return self.train_config(task="adapter", model_config=self.config, model_checkpoint=self.checkpoint, window={"size": 32}, focus={"k": 8}, **changes)

    def validation(self, every):
        return {"every": every, "sequences": 2, "length": 128, "data": {"sources": [{"fasta": write(self.path("held_out.fa"), fasta([("chr2", bases(3000, seed=9))]))}]}}

    def metrics(self, run):
        with open(self.path(run, "metrics.jsonl")) as file:
            return [{key: value for key, value in json.loads(line).items() if key not in VOLATILE} for line in file]

    def floats(self, path):
        return {name: struct.unpack(f"<{len(raw) // 4}f", raw) for name, (dtype, _, raw) in safetensors(path)[0].items() if dtype == "F32"}

    # Several ranks.

    def ranks(self, count, *args):
        return self.finish(self.start_ranks(count, "focus-train", *args))

    def assert_same_training(self, one, many):
        """The same steps up to the order in which fp32 numbers are added."""
        first, second = self.metrics(one), self.metrics(many)
        self.assertEqual([line["step"] for line in first], [line["step"] for line in second])
        worst = 0
        for a, b in zip(first, second):
            self.assertEqual(list(a), list(b))
            for key in a:
                worst = max(worst, abs(a[key] - b[key]) / max(1, abs(a[key])))
        self.assertLessEqual(worst, 1e-6)
        print(f"{many} against {one}: figures differ by at most {worst:.2g}")
        self.assert_same_parameters(one, many)

    def assert_same_parameters(self, one, many):
        a, b = self.floats(self.path(one, "adapter.safetensors")), self.floats(self.path(many, "adapter.safetensors"))
        self.assertEqual(list(a), list(b))
        apart = max(abs(x - y) for name in a for x, y in zip(a[name], b[name]))
        largest = max(abs(x) for name in a for x in a[name])
        print(f"{many} against {one}: parameters differ by at most {apart:.2g} (largest {largest:.2g})")
        self.assertLessEqual(apart, 1e-5 * largest)

    def test_two_ranks_train_as_one_does(self):
        config = self.adapter_config(validation=self.validation(3))
        self.assert_ok(self.train("-q", "-c", config, "-o", self.path("one")))
        for done in self.ranks(2, "-q", "-c", config, "-o", self.path("two")):
            self.assert_ok(done)
        self.assert_same_training("one", "two")
        for done in self.ranks(4, "-q", "-c", config, "-o", self.path("four")):
            self.assert_ok(done)
        self.assert_same_training("one", "four")

    def test_two_ranks_pretrain_as_one_does(self):
        config = self.train_config(accumulation=2)
        self.assert_ok(self.train("-q", "-c", config, "-o", self.path("one")))
        for done in self.ranks(2, "-q", "-c", config, "-o", self.path("two")):
            self.assert_ok(done)
        for a, b in zip(self.metrics("one"), self.metrics("two"), strict=True):
            self.assertAlmostEqual(a["loss"], b["loss"], delta=1e-6 * abs(a["loss"]))

    def test_held_out_figures_are_the_same_bits_on_any_number_of_ranks(self):
        """Nothing moves at a learning rate of 0, so that the sums alone could differ."""
        config = self.adapter_config(validation={**self.validation(1), "sequences": 3}, optimizer={"lr": 0}, stages=[{"length": 128, "steps": 1}])
        self.assert_ok(self.train("-q", "-c", config, "-o", self.path("one")))
        held_out = self.metrics("one")[-1]
        self.assertIn("validation_kl", held_out)
        for count in (2, 4):  # of four ranks one has no sequence
            for done in self.ranks(count, "-q", "-c", config, "-o", self.path(f"by{count}")):
                self.assert_ok(done)
            self.assertEqual(self.metrics(f"by{count}")[-1], held_out)

    def test_ranks_share_the_fit_of_tables(self):
        focus = {"unit": "tables", "tables": {"word": 2, "offsets": [0, 1], "fit_sequences": 5, "fit_length": 400}}
        config = self.train_config(task="adapter", model_config=self.config, model_checkpoint=self.checkpoint, window={"size": 32}, focus=focus, stages=[])
        settings = json.loads(read(config))
        for unread in ("optimizer", "accumulation"):
            del settings[unread]
        write(config, json.dumps(settings))
        self.assert_ok(self.train("-q", "-c", config, "-o", self.path("one")))
        for count in (2, 3):  # three ranks could not share out four micro-batches, but there are none
            for done in self.ranks(count, "-q", "-c", config, "-o", self.path(f"by{count}")):
                self.assert_ok(done)
            self.assert_same_parameters("one", f"by{count}")

    def test_a_run_goes_on_with_another_number_of_ranks(self):
        config = self.adapter_config()
        self.assert_ok(self.train("-q", "-c", config, "-o", self.path("one")))
        processes = self.start_ranks(2, "focus-train", "-q", "-c", config, "-o", self.path("changed"))
        self.wait_until(processes[0], lambda: os.path.exists(self.path("changed", "checkpoints", "step-00000002")))
        processes[1].send_signal(signal.SIGINT)  # rank 1 alone is told; both stop at the same step
        for done in self.finish(processes):
            self.assertEqual(done.returncode, INTERRUPTED, done.stderr)
            self.assertIn("interrupted after step", done.stderr)
        self.assertEqual(self.metrics("changed")[-1]["step"], int(max(os.listdir(self.path("changed", "checkpoints")))[5:]))
        self.assert_ok(self.train("-q", "-c", config, "-o", self.path("changed"), "--resume"))
        self.assert_same_training("one", "changed")

    def test_a_dead_rank_ends_the_others(self):
        config = self.adapter_config(stages=[{"length": 128, "steps": 5000}])
        for victim in (0, 1):
            processes = self.start_ranks(2, "focus-train", "-q", "-c", config, "-o", self.path(f"run{victim}"))
            self.wait_until(processes[0], lambda: os.path.exists(self.path(f"run{victim}", "checkpoints", "step-00000002")))
            processes[victim].kill()
            began = time.monotonic()
            done = self.finish(processes)[1 - victim]
            self.assert_clear(done, RESOURCES, f"rank {1 - victim} of 2", "--resume")
            self.assertLess(time.monotonic() - began, 60)

    def test_a_rank_that_never_comes(self):
        config = self.adapter_config()
        processes = self.start_ranks(2, "focus-train", "-q", "-c", config, "-o", self.path("run"), "--set", "rank_timeout_seconds=2", missing=(1,))
        self.assert_clear(self.finish(processes)[0], RESOURCES, "rank 0 of 2", "were started")
        self.assertFalse(os.path.exists(self.path("run")))

    def test_a_silent_rank_is_noticed_in_time(self):
        config = self.adapter_config(stages=[{"length": 128, "steps": 5000}])
        processes = self.start_ranks(2, "focus-train", "-q", "-c", config, "-o", self.path("run"), "--set", "rank_timeout_seconds=3")
        self.wait_until(processes[0], lambda: os.path.exists(self.path("run", "checkpoints", "step-00000002")))
        processes[1].send_signal(signal.SIGSTOP)
        done = self.finish(processes[:1])[0]
        processes[1].kill()
        self.assert_clear(done, RESOURCES, "rank 0 of 2")

    def test_ranks_that_do_not_fit(self):
        for done in self.ranks(2, "-q", "-c", self.adapter_config(accumulation=3), "-o", self.path("run")):
            self.assert_clear(done, USAGE, "accumulation = 3", "2 ranks")
        processes = self.start_ranks(2, "focus-train", "-q", "-c", self.adapter_config(), "-o", self.path("run"), more={1: ["--seed", "7"]})
        for done in self.finish(processes):
            self.assert_clear(done, USAGE, "another settings")
        self.assertFalse(os.path.exists(self.path("run")))

    def test_world_size_without_rank(self):
        self.assert_clear(self.train("-c", self.adapter_config(), "-o", self.path("run"), env={**os.environ, "WORLD_SIZE": "2"}), USAGE, "WORLD_SIZE", "RANK")

    # Kills and signals.

    def test_killed_runs_end_as_the_uninterrupted_one(self):
        done = subprocess.run([sys.executable, os.path.join(SOURCE, "scripts", "kill_loop.py"), "--bin", BIN, "--kills", "3", "--steps", "4"], capture_output=True, text=True, timeout=550)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("every one equals", done.stdout)

    def test_termination_saves_and_ends_with_143(self):
        config = self.train_config(stages=[{"length": 128, "steps": 5000, "batch": 2}], checkpoint_every=1000)
        process = self.start("focus-train", "-q", "-c", config, "-o", self.path("run"))
        self.wait_until(process, lambda: os.path.exists(self.path("run", "metrics.jsonl")) and read(self.path("run", "metrics.jsonl")).count(b"\n") >= 2)
        done = self.interrupt(process, signal.SIGTERM)
        self.assert_clear(done, TERMINATED, "interrupted after step", "--resume")
        reached = int(re.search(r"after step (\d+) of", done.stderr).group(1))
        self.assertEqual(os.listdir(self.path("run", "checkpoints")), [f"step-{reached:08d}"])

    # A full disk.

    def test_a_disk_that_fills_up_leaves_whole_checkpoints(self):
        disk = self.full_folder()
        subprocess.run(["mount", "-o", "remount,size=1m", disk], check=True)
        config = self.train_config(stages=[{"length": 128, "steps": 40, "batch": 2}], checkpoint_every=1, keep_last=100)
        self.assert_ok(self.train("-q", "-c", config, "-o", self.path("whole")))
        self.assert_clear(self.train("-q", "-c", config, "-o", disk + "/run"), DATA, "cannot write")
        self.assertEqual([name for name in os.listdir(disk + "/run/checkpoints") if ".tmp-" in name], [])
        saved = [name for name in os.listdir(disk + "/run/checkpoints") if ".tmp-" not in name]
        self.assertGreater(len(saved), 1)
        self.assertLess(len(saved), 40)
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        self.assert_ok(self.train("-q", "-c", config, "-o", disk + "/run", "--resume"))
        self.assertEqual(read(disk + "/run/model.pt"), read(self.path("whole", "model.pt")))
        self.assertEqual(sorted(os.listdir(disk + "/run/checkpoints")), sorted(os.listdir(self.path("whole", "checkpoints"))))

    # Plan and settings.

    def test_dry_run_tells_the_plan(self):
        config = self.adapter_config(validation=self.validation(3))
        out = self.assert_ok(self.train("-c", config, "--dry-run"))
        for part in ("6 steps of 4 x 1 x 128 bases, 4 windows", "windows: 32 bases, one entry for 8", "steps: 6", "bases: 3072", "learning rate:", "trainable parameters:",
                     "memory, estimated:", "first sample: 0 chr1:"):
            self.assertIn(part, out)
        self.assertFalse(os.path.exists(self.path("run")))
        env = {**os.environ, "RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "nowhere.invalid"}
        self.assertIn("ranks: 2, each 2 micro-batches", self.assert_ok(self.train("-c", config, "--dry-run", env=env)))

    def test_settings_without_effect(self):
        for override, mention in (("max_skips=3", "non_finite"), ("result=best", "validation.every"), ("validation.allow_overlap=true", "validation.every")):
            self.assert_clear(self.train("-c", self.train_config(), "--set", override, "-o", self.path("run")), USAGE, mention)

    def test_held_out_data_that_are_trained_on(self):
        config = self.adapter_config(validation={**self.validation(3), "data": {"sources": [{"fasta": self.path("train.fa")}]}})
        for extra in (["-o", self.path("run")], ["--dry-run"]):
            self.assert_clear(self.train("-c", config, *extra), DATA, "both draw from chr1", "validation.allow_overlap")
        self.assert_ok(self.train("-q", "-c", config, "--set", "validation.allow_overlap=true", "-o", self.path("run")))


if __name__ == "__main__":
    sys.exit(main(TrainTest))
