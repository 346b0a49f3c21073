"""What the programs do when the machine gives less than they want, or says stop: full disks, limits, signals, processors.

How to run: support.py.
"""

import json
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time

from support import BIN, USAGE, DATA, RESOURCES, INTERRUPTED, bases, write, read, fasta, safetensors, ProgramTest, main

MANY = [(f"r{i}", bases(400, seed=i)) for i in range(60)]


class ResourceTest(ProgramTest):
    def score_command(self, genome, *args):
        return ["score", "--model-config", self.config, "--checkpoint", self.checkpoint, "--fasta", genome, "-q", "-t", "1", *args]

    def temporaries(self):
        found = []
        for folder, folders, files in os.walk(self.folder):
            found += [os.path.join(folder, name) for name in folders + files if ".tmp-" in name]
        return found

    def rows(self, path):
        return [line for line in read(path).decode().splitlines() if not line.startswith("#")]

    # Full disks and limits.

    def test_full_disk_in_every_writer(self):
        disk = self.full_folder()
        genome = self.genome([("one", bases(20000))])
        config = self.fidelity_config(fasta=genome, methods=["state_only", "sliding"], segments=4, length=4000)
        pack = ["focus-train", "pack", "-q", "--fasta", self.genome([("one", bases(600000))]), "-o", disk + "/x.h5"]
        for command in (["focus-eval", "fidelity", "-q", "-c", config, "-o", disk + "/report"], pack,
                        ["focus-infer", *self.score_command(genome, "-r", "one:1-2000", "--logits", disk + "/logits.safetensors")],
                        ["focus-infer", *self.score_command(genome, "-r", "one:1-2000", "--save-state", disk + "/state.safetensors")]):
            for _ in range(2):
                self.assert_clear(self.run_program(*command), DATA, disk)
            self.assertEqual(os.listdir(disk), [])

    def test_earlier_files_survive_a_full_disk(self):
        disk = self.full_folder()
        small, large = write(self.path("small.fa"), fasta([("one", bases(500))])), write(self.path("large.fa"), fasta([("one", bases(600000))]))
        self.assert_ok(self.run_program("focus-train", "pack", "-q", "--fasta", small, "-o", disk + "/x.h5"))
        before = read(disk + "/x.h5")
        self.assert_clear(self.run_program("focus-train", "pack", "-q", "-f", "--fasta", large, "-o", disk + "/x.h5"), DATA, "x.h5", "No space left")
        self.assertEqual((os.listdir(disk), read(disk + "/x.h5")), (["x.h5"], before))

    def test_files_that_may_not_grow(self):
        """ulimit -f: the system sends SIGXFSZ, which ends a program that does not expect it."""

        def limited(size):
            return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

        genome = self.genome([("one", bases(600000))])
        self.assert_ok(self.score(genome, "-r", "one:1-9"))
        for command in (["focus-train", "pack", "-q", "--fasta", genome, "-o", self.path("x.h5")],
                        ["focus-model", "convert", "-q", self.checkpoint, self.path("x.pt")],
                        ["focus-infer", *self.score_command(genome, "-r", "one:1-2000", "-o", self.path("x.tsv"), "--logits", self.path("x.safetensors"))]):
            self.assert_clear(self.run_program(*command, preexec_fn=limited(50000)), DATA, self.path("x"), "too large")
        self.assertEqual(sorted(os.listdir(self.folder)), ["genome.fa", "genome.fa.fai"])

    def test_temporary_folder_gone(self):
        os.mkdir(self.path("fixed"))
        genome = write(self.path("fixed", "genome.fa"), fasta([("one", bases(300))]))
        os.chmod(self.path("fixed"), 0o555)
        options = self.as_nobody() or {"env": dict(os.environ)}
        for folder in (self.path("nowhere"), genome, self.path("fixed")):
            options["env"]["TMPDIR"] = folder
            self.assert_ok(self.score(genome, **options))
        self.assertEqual(os.listdir(self.path("fixed")), ["genome.fa"])
        os.chmod(self.path("fixed"), 0o755)

    # Crafted and slipped words.

    def test_deeply_nested_json(self):
        def deep(begin, end, count=200000):
            return begin * count + end * count

        for name, text in (("list.json", '{"stages":' + deep("[", "]") + "}"), ("object.json", deep('{"a":', "1}").replace("1}", "1", 1) + "}"),
                           ("open.json", deep("[", "")), ("mixed.json", deep('[{"data":', ""))):
            config = write(self.path(name), text)
            self.assert_clear(self.train("-q", "-c", config, "-o", self.path("run")), USAGE, name, "nested")
            self.assert_clear(self.fidelity("-c", config, "-o", self.path("report")), USAGE, name, "nested")
        self.assert_clear(self.train("-q", "-c", self.train_config(), "--set", "stages=" + deep("[", "]", 30000), "-o", self.path("run")), USAGE, "nested")
        lines = write(self.path("x.jsonl"), '{"text": "ACGT"}\n{"text": "ACGT", "name": ' + deep("[", "]") + "}\n")
        self.assert_clear(self.run_program("focus-train", "pack", "-q", "--jsonl", lines, "-o", self.path("x.h5")), DATA, "line 2", "x.jsonl", "nested")
        yaml = write(self.path("x.yml"), "hidden_size: " + deep("[", "]"))
        self.assert_clear(self.score(self.genome(), config=yaml), USAGE, "x.yml")
        header = deep('{"a":', "").encode()
        checkpoint = write(self.path("x.safetensors"), struct.pack("<Q", len(header)) + header)
        self.assert_clear(self.score(self.genome(), checkpoint=checkpoint), 3, "x.safetensors")
        index = write(self.path("x.safetensors.index.json"), '{"metadata":' + deep("[", "]") + "}")
        self.assert_clear(self.score(self.genome(), checkpoint=index), 3, "x.safetensors.index.json")

    def test_numbers_that_would_become_zero(self):
        self.assert_clear(self.train("-c", self.train_config(), "--set", "optimizer.lr=1e-400", "-o", self.path("run")), USAGE, "optimizer.lr", "1e-400", "too small")
        config = write(self.path("zero.json"), read(self.train_config()).replace(b"0.001", b"1e-999"))
        self.assert_clear(self.train("-c", config, "-o", self.path("run")), USAGE, "zero.json", "optimizer.lr", "1e-999", "too small")

    def test_paths_beside_the_configuration(self):
        os.makedirs(self.path("there", "data"))
        config = json.loads(read(self.train_config()))
        config["model_config"] = "tiny.yml"
        config["data"]["sources"][0]["fasta"] = "data/train.fa"
        write(self.path("there", "train.json"), json.dumps(config))
        for source, target in (("tiny.yml", "tiny.yml"), ("train.fa", "data/train.fa")):
            os.rename(self.path(source), self.path("there", target))
        done = self.train("-c", "there/train.json", "--dry-run")
        self.assert_ok(done)
        for path in ("there/tiny.yml", "there/data/train.fa"):
            self.assertEqual(len([line for line in done.stderr.splitlines() if f"'{path}'" in line]), 1, done.stderr)
        self.assertNotIn("there/tiny.yml", self.train("-q", "-c", "there/train.json", "--dry-run").stderr)
        # The working folder comes first.
        os.mkdir(self.path("data"))
        shutil.copy(self.path("there", "data", "train.fa"), self.path("data", "train.fa"))
        self.assertNotIn("there/data", self.train("-c", "there/train.json", "--dry-run").stderr)
        os.remove(self.path("data", "train.fa"))
        os.remove(self.path("there", "data", "train.fa"))
        self.assert_clear(self.train("-c", "there/train.json", "--dry-run"), DATA, "'data/train.fa'", "'there/data/train.fa'")
        os.remove(self.path("there", "tiny.yml"))
        self.assert_clear(self.train("-c", "there/train.json", "--dry-run"), USAGE, "'tiny.yml'", "'there/tiny.yml'")

    # Processors.

    def test_threads_are_what_may_be_used(self):
        def threads(*args, **environment):
            env = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
            report = json.loads(self.assert_ok(self.run_program("focus-model", "doctor", "--json", *args, env={**env, **environment})))
            return report["threads"]["torch_threads"], report["threads"]["limited_by"], report

        allowed = os.sched_getaffinity(0)
        _, _, report = threads()
        self.assertEqual(report["processor"]["cores_allowed"], len(allowed))
        self.assertLessEqual(report["threads"]["default_threads"], len(allowed))
        self.assertEqual(threads(OMP_NUM_THREADS="1")[0], 1)
        self.assertEqual(threads(OMP_NUM_THREADS="1,4")[0], 1)
        self.assertEqual(threads(OMP_THREAD_LIMIT="1", OMP_NUM_THREADS="64")[0], 1)
        self.assertEqual(threads("-t", "0", OMP_NUM_THREADS="1")[0], 1)
        self.assertEqual(threads("-t", "3", OMP_NUM_THREADS="1")[0], 3)
        if len(allowed) > 1:
            os.sched_setaffinity(0, {min(allowed)})
            self.addCleanup(os.sched_setaffinity, 0, allowed)
            self.assertEqual(threads()[:2], (1, "affinity"))

    def test_numbers_of_threads_and_seeds_have_bounds(self):
        for text in ("-3", "100000", "2x", "1.5", "99999999999999999999"):
            self.assert_clear(self.run_program("focus-model", "doctor", f"--threads={text}"), USAGE, "--threads", "from 0 to")
            self.assert_clear(self.score(self.genome(), f"--threads={text}"), USAGE, "--threads")
        self.assert_clear(self.run_program("focus-model", "doctor", "-t", "-3"), USAGE, "--threads", "-3")
        if 16 * os.cpu_count() < 4096:
            self.assert_clear(self.train("-c", self.train_config(threads=4096), "-o", self.path("run")), USAGE, "threads", "4096", "-t")
        for text in ("-1", "4611686018427387905", "one", "1e3"):
            self.assert_clear(self.train("-c", self.train_config(), f"--seed={text}", "-o", self.path("run")), USAGE, "--seed", "from 0 to")
        self.assert_ok(self.train("-c", self.train_config(), "--seed", "4611686018427387904", "--dry-run"))

    # Ranks.

    def test_a_port_that_another_program_holds(self):
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            port = str(silent.getsockname()[1])
            config = self.train_config(rank_timeout_seconds=3, accumulation=2)
            for rank in ("1", "0"):
                env = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": rank, "LOCAL_RANK": rank}
                began = time.monotonic()
                done = self.finish([self.start("focus-train", "-q", "-c", config, "-o", self.path("run"), env=env)])[0]
                self.assert_clear(done, RESOURCES, f"rank {rank} of 2", f"127.0.0.1:{port}", "MASTER_PORT")
                self.assertLess(time.monotonic() - began, 30)
        self.assertIn("3 s", self.finish(self.start_ranks(2, "focus-train", "-q", "-c", config, "-o", self.path("run"), missing=(0,)))[0].stderr)

    # Signals.

    def test_every_request_to_stop_is_one(self):
        genome = self.genome([("long", bases(20000))])
        for which in (signal.SIGHUP, signal.SIGTERM, signal.SIGXCPU, signal.SIGUSR1):
            process = self.start("focus-infer", *self.score_command(genome, "--chunk", "1", "-o", self.path("table.tsv"), "--logits", self.path("logits.safetensors")))
            self.wait_until(process, lambda: any("logits.safetensors.tmp-" in name and os.path.getsize(name) > 100000 for name in self.temporaries()))
            self.assert_clear(self.interrupt(process, which), 128 + which, "interrupted", "'long'")
            self.assertEqual(sorted(os.listdir(self.folder)), ["genome.fa", "genome.fa.fai"])

    def test_a_closed_terminal_saves_the_training(self):
        config = self.train_config(stages=[{"length": 128, "steps": 5000, "batch": 2}], checkpoint_every=1000)
        process = self.start("focus-train", "-q", "-c", config, "-o", self.path("run"))
        self.wait_until(process, lambda: os.path.exists(self.path("run", "metrics.jsonl")) and read(self.path("run", "metrics.jsonl")).count(b"\n") >= 3)
        self.assert_clear(self.interrupt(process, signal.SIGHUP), 129, "interrupted after step", "--resume")
        self.assertEqual(len(os.listdir(self.path("run", "checkpoints"))), 1)
        self.assertEqual(self.temporaries(), [])

    def test_nohup_stays_ignored(self):
        genome = self.genome([("long", bases(600))])
        command = [os.path.join(BIN, "focus-infer"), *self.score_command(genome, "--chunk", "1", "-o", self.path("table.tsv"))]
        process = subprocess.Popen(command, cwd=self.folder, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
        self.wait_until(process, lambda: os.path.exists(self.path("table.tsv.part")))
        process.send_signal(signal.SIGHUP)
        self.assertEqual(process.wait(timeout=300), 0)
        self.assertEqual(len(self.rows(self.path("table.tsv"))), 1)

    def test_a_second_signal_leaves_nothing_either(self):
        genome = write(self.path("long.fa"), fasta([("one", bases(60000))]))
        for command, waits in ((["focus-infer", *self.score_command(genome, "--chunk", "0", "--logits", self.path("logits.safetensors"))], "logits.safetensors.tmp-"),
                               (["focus-eval", "fidelity", "-q", "-c", self.fidelity_config(methods=["sliding"], fasta=genome, length=50000, segments=1), "-o", self.path("report")],
                                "report.tmp-")):
            process = self.start(*command)
            self.wait_until(process, lambda: any(waits in name for name in self.temporaries()))
            process.send_signal(signal.SIGINT)
            time.sleep(1.5)
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            self.assertIn(self.finish([process])[0].returncode, (0, 143, INTERRUPTED))
            self.assertEqual(self.temporaries(), [])

    # Long scorings.

    def test_rows_appear_as_they_are_done_and_a_killed_run_goes_on(self):
        genome = self.genome(MANY)
        table, part = self.path("table.tsv"), self.path("table.tsv.part")
        self.assert_ok(self.score(genome, "-o", self.path("whole.tsv")))
        whole = self.rows(self.path("whole.tsv"))
        for which in (signal.SIGKILL, signal.SIGHUP):
            process = self.start("focus-infer", *self.score_command(genome, "--chunk", "16", "-o", table))
            self.wait_until(process, lambda: os.path.exists(part) and len(self.rows(part)) >= 3)
            self.assertFalse(os.path.exists(table))
            process.send_signal(which)
            self.finish([process])
            kept = read(part)
            self.assertLess(len(self.rows(part)), len(whole))
            # Half a row is cut.
            write(part, kept + b"r59\t1\t40")
            done = self.run_program("focus-infer", *[word for word in self.score_command(genome, "--chunk", "16", "-o", table, "--resume") if word != "-q"])
            self.assert_ok(done)
            self.assertIn(f"{len(kept.splitlines()) - 6} rows", done.stderr)
            self.assertTrue(read(table).startswith(kept))
            self.assertEqual([row.split("\t")[:5] for row in self.rows(table)], [row.split("\t")[:5] for row in whole])
            self.assertFalse(os.path.exists(part))
            os.remove(table)

    def test_resume_judges_what_is_there(self):
        genome = self.genome()
        table, part = self.path("table.tsv"), self.path("table.tsv.part")
        resume = lambda *args, **options: self.score(options.pop("genome", genome), "-o", table, "--resume", *args, **options)
        self.assert_ok(resume())  # nothing there: a new table
        first = read(table)
        self.assertIn("nothing was scored", self.run_program("focus-infer", *[word for word in self.score_command(genome, "-o", table, "--resume") if word != "-q"]).stderr)
        self.assertEqual(read(table), first)
        self.assert_clear(resume("--norm", "acgt"), USAGE, "table.tsv", "norm vocab", "norm acgt")
        self.assert_clear(resume("--memory", "state_only"), USAGE, "table.tsv", "state_only")
        self.assert_clear(resume("-r", "two"), USAGE, "row 1", "'one'", "'two'")
        self.assert_clear(resume("-r", "one:1-200"), USAGE, "row 1", "'one'")
        self.assert_clear(resume("-r", "one"), USAGE, "2 rows", "1 sequences")
        self.assertEqual(read(table), first)
        self.assertFalse(os.path.exists(part))
        # More records than there were, from a file and from a stream.
        longer = write(self.path("longer.fa"), read(genome) + fasta([("three", bases(100, seed=3))]).encode())
        self.assert_ok(resume(genome=longer))
        self.assertTrue(read(table).startswith(first))
        self.assertEqual([row.split("\t")[0] for row in self.rows(table)], ["one", "two", "three"])
        write(part, first + b"thr")
        os.remove(table)
        self.assert_ok(resume(genome="-", input=read(longer).decode()))
        self.assertEqual([row.split("\t")[0] for row in self.rows(table)], ["one", "two", "three"])
        # A run that was killed while it wrote the first lines left nothing to keep.
        write(part, first[:40])
        self.assert_ok(resume())
        self.assertEqual(self.rows(table), [row for row in first.decode().splitlines() if not row.startswith("#")])
        self.assert_clear(self.score(genome, "--resume"), USAGE, "--resume", "--output")
        self.assert_clear(self.score(genome, "--resume", "-o", "/dev/null"), USAGE, "--resume", "/dev/null")
        self.assert_clear(resume("--logits", self.path("x.safetensors")), USAGE, "--resume", "--logits")

    def test_two_runs_do_not_share_a_table(self):
        genome = self.genome([("long", bases(20000))])
        process = self.start("focus-infer", *self.score_command(genome, "--chunk", "1", "-o", self.path("table.tsv")))
        self.wait_until(process, lambda: os.path.exists(self.path("table.tsv.part")))
        self.assert_clear(self.score(genome, "-o", self.path("table.tsv")), DATA, "another run", "table.tsv.part")
        self.interrupt(process)

    def test_logits_of_a_stream_equal_those_of_a_file(self):
        genome = self.genome()
        self.assert_ok(self.score(genome, "--logits", self.path("file.safetensors")))
        self.assert_ok(self.score("-", "--logits", self.path("stream.safetensors"), input=read(genome).decode()))
        self.assertEqual(safetensors(self.path("file.safetensors"))[0], safetensors(self.path("stream.safetensors"))[0])
        done = self.score("-", "--logits", self.path("twice.safetensors"), input=read(genome).decode() + ">one\nACGT\n")
        self.assert_clear(done, DATA, "'one'", "twice")
        self.assertEqual(self.temporaries(), [])
        self.assertFalse(os.path.exists(self.path("twice.safetensors")))

    def test_logits_take_no_memory(self):
        def peak(length, *args):
            genome = write(self.path(f"{length}.fa"), fasta([("one", bases(length))]))
            command = ["/proc/self/exe", "-c", "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
                       "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"]
            program = [os.path.join(BIN, "focus-infer"), *self.score_command(genome, "--chunk", "512", "--memory", "state_only", *args)]
            return int(subprocess.run([sys.executable, *command[1:], *program], capture_output=True, text=True, check=True, cwd=self.folder).stdout)

        short, long = peak(4000, "--logits", self.path("a.safetensors")), peak(40000, "--logits", self.path("b.safetensors"))
        # 36,000 more rows of 512 numbers are 70 MiB.
        self.assertLess(long - short, 30 * 1024, f"{short} KiB, {long} KiB")


if __name__ == "__main__":
    sys.exit(main(ResourceTest))
