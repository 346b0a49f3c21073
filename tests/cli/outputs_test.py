"""What the programs do to files that are there already, and to each other: outputs that are inputs, two runs in one folder, saved states
that go on elsewhere, adapters and where they come from, wrapped names. How to run: support.py."""

import fcntl
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys

from support import BIN, DATA, MODEL, SOURCE, USAGE, ProgramTest, bases, fasta, main, read, safetensors, write


def write_tensors(path, tensors, metadata):
    """The inverse of support.safetensors()."""
    header, body = {"__metadata__": metadata} if metadata else {}, b""
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(raw)]}
        body += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return write(path, struct.pack("<Q", len(text)) + text + body)


class OutputsTest(ProgramTest):
    def model(self, *args, **options):
        return self.run_program("focus-model", *args, **options)

    def adapter_config(self, **changes):
        settings = {"task": "adapter", "model_config": self.config, "model_checkpoint": self.checkpoint, "window": {"size": 32}, "focus": {"k": 8},
                    "stages": [{"length": 100, "steps": 2}], **changes}
        return self.train_config(**settings)

    def adapter(self, name, *args, **changes):
        self.assert_ok(self.train("-q", "-c", self.adapter_config(**changes), "-o", self.path(name), *args))
        return self.path(name)

    def total(self, done):
        return float(self.assert_ok(done).splitlines()[-1].split("\t")[5])

    # Outputs that are inputs.

    def assert_kept(self, path, done, *mentions):
        """The call is refused, and the file is what it was before."""
        self.assert_clear(done, USAGE, "destroyed", *mentions)
        self.assertEqual(read(path), self.content, path)

    def test_score_spares_its_inputs(self):
        genome = self.genome()
        self.content = read(genome)
        os.symlink(genome, self.path("link.fa"))
        os.link(genome, self.path("hard.fa"))
        os.mkdir(self.path("sub"))
        for same in (genome, "genome.fa", "./genome.fa", "sub/../genome.fa", "new/../genome.fa", self.path("link.fa"), self.path("hard.fa")):
            for option in ("-o", "--logits", "--save-state"):
                self.assert_kept(genome, self.score(genome, "-r", "one", option, same), "--fasta")
        with open(genome) as file:
            self.assert_kept(genome, self.score("-", "-o", genome, stdin=file), "--fasta")
        for index in (".fai", ".gzi"):  # which are not there yet
            self.assert_clear(self.score(genome, "-r", "one", "--save-state", genome + index), USAGE, "index of --fasta")
        checkpoint = shutil.copy(self.checkpoint, self.path("model.pt"))
        self.content = read(checkpoint)
        self.assert_kept(checkpoint, self.score(genome, "--logits", checkpoint, checkpoint=checkpoint), "checkpoint", "--logits")
        config = shutil.copy(self.config, self.path("model.yml"))
        self.content = read(config)
        self.assert_kept(config, self.score(genome, "-o", config, config=config), "model config")
        bed = write(self.path("some.bed"), "one\t10\t100\n")
        self.content = read(bed)
        self.assert_kept(bed, self.score(genome, "-R", bed, "--logits", bed), "--bed")
        self.assert_clear(self.score(genome, "-r", "one", "--logits", self.path("x"), "--save-state", self.path("./x")), USAGE, "one file")
        self.assertFalse(os.path.exists(self.path("x")))

    def test_score_spares_states_adapters_and_folders(self):
        genome, state = self.genome(), self.path("state")
        self.assert_ok(self.score(genome, "-r", "one:1-100", "--save-state", state))
        self.content = read(state)
        self.assert_kept(state, self.score(genome, "-r", "one:101-200", "--load-state", state, "--save-state", state), "--load-state")
        folder = self.adapter("run")
        self.content = read(self.path("run", "adapter.safetensors"))
        self.assert_kept(self.path("run", "adapter.safetensors"), self.score(genome, "--adapter", folder, "-o", self.path("run", "adapter.safetensors")), "--adapter")
        self.assert_ok(self.score(genome, "--adapter", folder, "-r", "one:1-50", "-o", self.path("run", "scores.tsv")))
        self.assert_ok(self.score(genome, "--adapter", folder, "-r", "one:1-50", "-o", self.path("run", "scores.tsv")))
        hugging_face = shutil.copytree(os.path.join(self.golden, "llama", "letters"), self.path("hf"))
        for name in ("config.json", "tokenizer.json", "model.safetensors"):
            if os.path.exists(os.path.join(hugging_face, name)):
                self.content = read(os.path.join(hugging_face, name))
                done = self.run_program("focus-infer", "score", "--checkpoint", hugging_face, "--fasta", genome, "-q", "-o", os.path.join(hugging_face, name))
                self.assert_kept(os.path.join(hugging_face, name), done)

    def test_streams_are_written_to(self):
        genome = self.genome()
        wanted = self.assert_ok(self.score(genome, "-r", "one:1-40")).splitlines()[-1]
        self.assertEqual(self.assert_ok(self.score(genome, "-r", "one:1-40", "-o", "/dev/stdout")).splitlines()[-1], wanted)
        self.assert_ok(self.score(genome, "-r", "one:1-40", "-o", "/dev/null"))
        log = write(self.path("log"), "earlier\n")
        with open(log, "a") as file:  # >> log: what is there stays
            self.score(genome, "-r", "one:1-40", "-o", "/dev/stdout", capture_output=False, stdout=file, stderr=subprocess.PIPE)
        self.assertEqual([read(log).decode().splitlines()[i] for i in (0, -1)], ["earlier", wanted])
        os.mkfifo(self.path("pipe"))
        reader = subprocess.Popen(["cat", self.path("pipe")], stdout=subprocess.PIPE, text=True)
        self.assert_ok(self.score(genome, "-r", "one:1-40", "-o", self.path("pipe")))
        self.assertEqual(reader.communicate()[0].splitlines()[-1], wanted)

    def test_tools_spare_their_inputs(self):
        checkpoint = shutil.copy(self.checkpoint, self.path("model.pt"))
        config = shutil.copy(self.config, self.path("model.yml"))
        self.content = read(checkpoint)
        self.assert_kept(checkpoint, self.model("inspect", checkpoint, "-o", checkpoint))
        os.symlink("model.pt", self.path("link.pt"))
        for name in ("model.pt", "link.pt"):  # in place only by --force
            self.assert_clear(self.model("convert", checkpoint, self.path(name)), USAGE, name, "--force")
            self.assertEqual(read(checkpoint), self.content)
        os.mkdir(self.path("configs"))
        shipped = shutil.copy(self.config, self.path("configs", "tiny.yml"))
        self.content = read(config)
        self.assert_kept(shipped, self.model("inspect", checkpoint, "--configs", self.path("configs"), "-o", shipped), "--configs")
        self.assert_kept(config, self.model("random", "--model-config", config, "-o", config), "--model-config")
        sequences = self.genome()
        selftest = ["selftest", "--model-config", config, "--checkpoint", checkpoint, "--sequences", sequences, "-q"]
        self.content = read(sequences)
        self.assert_kept(sequences, self.model(*selftest, "-o", sequences), "--sequences")
        expectations = write(self.path("selftest.json"), json.dumps({"x": {"loss": 1, "tolerance": 9}}))
        self.content = read(expectations)
        self.assert_kept(expectations, self.model(*selftest, "--expect", "x", "-o", expectations), "--expectations")
        self.assert_ok(self.model("convert", checkpoint, self.path("shards") + "/"))
        shard = [name for name in os.listdir(self.path("shards")) if name.endswith(".safetensors")][0]
        self.content = read(self.path("shards", shard))
        self.assert_kept(self.path("shards", shard), self.model("convert", self.path("shards", shard), self.path("shards"), "-f"), "holds the input")
        self.assert_kept(self.path("shards", shard), self.model("inspect", self.path("shards"), "-o", self.path("shards", shard)))

    def test_pack_spares_its_inputs(self):
        genome = self.genome()
        self.content = read(genome)
        os.link(genome, self.path("hard.h5"))
        for output in (genome, self.path("hard.h5")):
            self.assert_kept(genome, self.train("pack", "--fasta", genome, "-o", output, "-f"), "source")
        bed = write(self.path("out.bed"), "one\t10\t100\n")
        self.content = read(bed)
        self.assert_kept(bed, self.train("pack", "--fasta", genome, "--exclude", bed, "-o", bed, "-f"), "exclude")

    def test_training_spares_its_inputs(self):
        folder = self.adapter("run")
        result = self.path("run", "adapter.safetensors")
        self.content = read(result)
        self.assert_kept(result, self.train("-q", "-c", self.adapter_config(), "--set", f"adapter={folder}", "-o", folder, "-f"), "adapter")
        own = self.path("run", "config.json")
        self.content = read(own)
        self.assert_kept(own, self.train("-q", "-c", own, "-o", folder, "--force"), "--config")
        self.assertTrue(os.path.exists(result))
        self.assert_ok(self.train("-q", "-c", own, "-o", folder, "--resume"))
        held = self.path("run", "checkpoints", "held_out.fa")
        self.content = fasta([("chr2", bases(3000, seed=9))]).encode()
        write(held, self.content)
        validation = {"every": 1, "sequences": 1, "length": 100, "data": {"sources": [{"fasta": held}]}}
        self.assert_kept(held, self.train("-q", "-c", self.adapter_config(validation=validation), "-o", folder, "-f"), "validation.data.sources.0.fasta")

    def test_evaluation_spares_its_inputs(self):
        os.mkdir(self.path("report"))
        config = shutil.copy(self.fidelity_config(methods=["state_only"]), self.path("report", "summary.json"))  # named like a report's file
        self.content = read(config)
        self.assert_kept(config, self.fidelity("-c", config, "-o", self.path("report"), "--force"), "--config")
        os.symlink(self.path("report"), self.path("also"))
        self.assert_kept(config, self.fidelity("-c", config, "-o", self.path("also"), "--force"), "--config")

    # Two runs in one folder.

    def test_two_trainings_in_one_folder(self):
        """The second is told who is there, whatever it asks for; the first ends as if alone."""
        config = self.adapter_config(stages=[{"length": 100, "steps": 40}])
        process = self.start("focus-train", "-q", "-c", config, "-o", self.path("run"))
        self.wait_until(process, lambda: os.path.exists(self.path("run", "checkpoints", "step-00000002")))
        process.send_signal(signal.SIGSTOP)
        other = shutil.copy(config, self.path("other.json"))
        for flags in ([], ["--force"], ["--resume"]):
            done = self.train("-q", "-c", other, "--set", "optimizer.lr=0.05", "-o", self.path("run"), *flags)
            self.assert_clear(done, USAGE, "in use by", f"process {process.pid} on ", "--output")
        process.send_signal(signal.SIGCONT)
        self.assert_ok(self.finish([process])[0])
        self.assertFalse(os.path.exists(self.path("run", ".lock")))
        alone = self.adapter("alone", stages=[{"length": 100, "steps": 40}])
        self.assertEqual(safetensors(self.path("run", "adapter.safetensors"))[0], safetensors(os.path.join(alone, "adapter.safetensors"))[0])

    def test_a_killed_training_holds_nothing(self):
        config = self.adapter_config(stages=[{"length": 100, "steps": 400}])
        process = self.start("focus-train", "-q", "-c", config, "-o", self.path("run"))
        self.wait_until(process, lambda: os.path.exists(self.path("run", "checkpoints", "step-00000002")))
        process.kill()
        process.wait()
        self.assertTrue(os.path.exists(self.path("run", ".lock")))
        self.assert_ok(self.train("-q", "-c", self.adapter_config(), "-o", self.path("run"), "--force"))
        self.assertFalse(os.path.exists(self.path("run", ".lock")))

    def test_ranks_are_one_holder(self):
        config = self.adapter_config(accumulation=2)
        for done in self.finish(self.start_ranks(2, "focus-train", "-q", "-c", config, "-o", self.path("run"))):
            self.assert_ok(done)

    def test_a_folder_that_is_held_is_left_alone(self):
        """Training and evaluation alike, and by any other program that takes the lock."""
        os.mkdir(self.path("held"))
        with open(self.path("held", ".lock"), "w") as file:
            file.write("someone, process 1 on elsewhere\n")
            file.flush()
            fcntl.flock(file, fcntl.LOCK_EX)
            for done in (self.train("-q", "-c", self.adapter_config(), "-o", self.path("held"), "--force"),
                         self.fidelity("-c", self.fidelity_config(methods=["state_only"]), "-o", self.path("held"), "--force")):
                self.assert_clear(done, USAGE, "in use by someone, process 1 on elsewhere")
            self.assertEqual(os.listdir(self.path("held")), [".lock"])
        self.assert_ok(self.fidelity("-c", self.fidelity_config(methods=["state_only"]), "-o", self.path("held")))
        self.assertFalse(os.path.exists(self.path("held", ".lock")))
        self.assertTrue(os.path.exists(self.path("held", "report.html")))

    def test_two_evaluations_in_one_folder(self):
        config = self.fidelity_config(methods=["state_only"], segments=200)
        process = self.start("focus-eval", "fidelity", "-q", "-c", config, "-o", self.path("report"))
        self.wait_until(process, lambda: os.path.exists(self.path("report", ".lock")))
        process.send_signal(signal.SIGSTOP)
        self.assert_clear(self.fidelity("-c", self.fidelity_config(methods=["state_only"]), "-o", self.path("report")), USAGE, "in use by")
        process.send_signal(signal.SIGCONT)
        self.assertNotEqual(self.interrupt(process).returncode, 0)
        self.assertEqual([name for name in os.listdir(self.folder) if name.startswith("report")], [])

    def test_a_checkpoint_beyond_the_run(self):
        self.adapter("long", stages=[{"length": 100, "steps": 6}])
        self.adapter("short", stages=[{"length": 100, "steps": 4}])
        shutil.copytree(self.path("long", "checkpoints", "step-00000006"), self.path("short", "checkpoints", "step-00000006"))
        config = self.adapter_config(stages=[{"length": 100, "steps": 4}])
        self.assert_clear(self.train("-q", "-c", config, "-o", self.path("short"), "--resume"), MODEL, "step 6", "4 steps")
        shutil.rmtree(self.path("short", "checkpoints"))
        shutil.copytree(self.path("long", "checkpoints", "step-00000004"), self.path("short", "checkpoints", "step-00000004"))
        self.assert_clear(self.train("-q", "-c", config, "-o", self.path("short"), "--resume"), MODEL, "another run")

    def test_a_resume_with_nothing_to_do_says_so(self):
        folder = self.adapter("run")
        before = read(self.path("run", "adapter.safetensors"))
        done = self.train("-c", self.adapter_config(), "-o", folder, "--resume")
        self.assert_ok(done)
        self.assertIn("nothing to resume: all 2 steps were done before", done.stderr)
        self.assertNotIn("last loss", done.stderr)
        self.assertEqual(read(self.path("run", "adapter.safetensors")), before)
        changed = self.train("-q", "-c", self.adapter_config(stages=[{"length": 100, "steps": 3}]), "-o", folder, "--resume")
        self.assert_clear(changed, USAGE, "stages.0.steps: 2 -> 3")
        self.assertNotIn("stages.0.length", changed.stderr)

    # Saved states.

    def test_a_state_goes_on_only_where_it_belongs(self):
        genome, state = self.genome([("one", bases(300)), ("two", bases(300, seed=2))]), self.path("state")
        self.assert_ok(self.score(genome, "-r", "one:1-100", "--save-state", state))
        for region, begins in (("one:102-200", "base 102"), ("one:1-100", "base 1"), ("two:101-200", "'two'")):
            self.assert_clear(self.score(genome, "-r", region, "--load-state", state), USAGE, "base 101 of 'one'", begins, "--continue-anyway")
            self.assert_ok(self.score(genome, "-r", region, "--load-state", state, "--continue-anyway"))
        self.assert_clear(self.score(genome, "-r", "one:1-9", "--continue-anyway"), USAGE, "--load-state")
        other = write(self.path("other.fa"), fasta([("one", bases(300, seed=7))]))
        self.assert_clear(self.score(other, "-r", "one:101-200", "--load-state", state), USAGE, "another sequence of that name")
        lower = write(self.path("lower.fa"), fasta([("one", bases(300).lower())], width=50))  # the same bases
        self.assert_ok(self.score(lower, "-r", "one:101-200", "--load-state", state))
        on = self.score(genome, "-r", "one:101-300", "--load-state", state)
        whole = self.total(self.score(genome, "-r", "one:1-300"))
        self.assertAlmostEqual(self.total(self.score(genome, "-r", "one:1-100")) + self.total(on), whole, delta=1e-3)

    def test_a_state_keeps_its_precision_and_memory(self):
        genome, state = self.genome(), self.path("state")
        self.assert_ok(self.score(genome, "-r", "one:1-100", "--save-state", state))
        on = ["-r", "one:101-200", "--load-state", state]
        self.assert_clear(self.score(genome, *on, "--dtype", "bf16"), MODEL, "saved in fp32", "this run is bf16")
        self.assert_clear(self.score(genome, *on, "--memory", "state_only"), MODEL, "full memory", "state_only")
        self.assert_ok(self.score(genome, "-r", "one:1-100", "--save-state", state, "--memory", "fitted", "--window", 50, "-k", 10))
        self.assert_clear(self.score(genome, *on, "--memory", "fitted", "--window", 50, "-k", 5), MODEL, "k=10", "k=5")
        self.assert_ok(self.score(genome, *on, "--memory", "fitted", "--window", 50, "-k", 10))

    def test_a_state_keeps_its_adapter(self):
        first, second = self.adapter("first"), self.adapter("second", "--seed", "9")
        genome, state = self.genome(), self.path("state")
        self.assert_ok(self.score(genome, "--adapter", first, "-r", "one:1-100", "--save-state", state))
        on = ["-r", "one:101-200", "--load-state", state]
        self.assert_clear(self.score(genome, "--adapter", second, *on), MODEL, "adapter of digest")
        self.assert_ok(self.score(genome, "--adapter", shutil.copy(os.path.join(first, "adapter.safetensors"), self.path("copy.safetensors")), *on))

    def test_damaged_states(self):
        genome, state = self.genome(), self.path("state")
        self.assert_ok(self.score(genome, "-r", "one:1-100", "--save-state", state))
        raw = read(state)
        on = lambda content: self.score(genome, "-r", "one:101-200", "--load-state", write(self.path("bad"), content))
        for at in (len(raw) // 3, len(raw) - 1):
            flipped = bytearray(raw)
            flipped[at] ^= 1
            self.assert_clear(on(bytes(flipped)), MODEL, "saved state", "bad")
        self.assert_clear(on(raw.replace(b'"bases":"100"', b'"bases":"101"')), MODEL, "saved state", "SHA-256")
        self.assert_clear(on(raw[:-5]), MODEL, "saved state", "cut short")
        self.assert_clear(on(b""), MODEL, "saved state")
        self.assert_clear(on(b"ACGT" * 100), MODEL, "saved state", "--save-state")
        tensors, metadata = safetensors(state)
        write_tensors(self.path("bad"), tensors, {**metadata, "format": "focus-stream-1"})
        self.assert_clear(on(read(self.path("bad"))), MODEL, "saved state", "earlier version")
        self.assert_clear(on(read(os.path.join(self.adapter("run"), "adapter.safetensors"))), MODEL, "is an adapter", "--adapter")
        self.assert_clear(self.score(genome, "-r", "one:101-200", "--load-state", self.path("none")), MODEL, "saved state", "no such file")
        for message in (on(raw[:-5]), on(b"ACGT" * 100)):
            self.assertNotIn("checkpoint", message.stderr)

    # Adapters.

    def test_an_adapter_says_how_it_was_made(self):
        held = write(self.path("held_out.fa"), fasta([("chr2", bases(3000, seed=9))]))
        validation = {"every": 1, "sequences": 1, "length": 100, "data": {"sources": [{"fasta": held}]}}
        folder = self.adapter("run", validation=validation, result="last")
        shown = self.assert_ok(self.model("inspect", folder))
        self.assertRegex(shown, r"(?m)^trained      2 steps, 200 bases; begun \d{4}-\d\d-\d\d by focus \d+\.\d+\.\d+ \(")
        self.assertRegex(shown, r"(?m)^read         .*train\.fa \(20340 bytes, sha256:[0-9a-f]{16}\.\.\.\)$")
        self.assertRegex(shown, r"(?m)^read         .*held_out\.fa ")
        self.assertRegex(shown, r"(?m)^validation   at step 2: kl [-\d.e]+, ce ")
        facts = json.loads(self.assert_ok(self.model("inspect", folder, "--json")))["training"]
        with open(os.path.join(folder, "metrics.jsonl")) as file:
            last = [json.loads(line) for line in file if "validation_kl" in line][-1]
        self.assertEqual(facts["validation"]["kl"], last["validation_kl"])
        with open(os.path.join(folder, "config.json")) as file:
            self.assertEqual(facts["config"], json.load(file))
        with open(os.path.join(folder, "provenance.json")) as file:
            self.assertEqual(facts["run"], json.load(file)["run"])
        # One of an earlier version says nothing, and is used as before.
        tensors, metadata = safetensors(os.path.join(folder, "adapter.safetensors"))
        del metadata["training"]
        old = write_tensors(self.path("old.safetensors"), tensors, metadata)
        self.assertIn("trained      not recorded", self.assert_ok(self.model("inspect", old)))
        both = [self.total(self.score(self.genome(), "--adapter", adapter, "-r", "one")) for adapter in (old, folder)]
        self.assertEqual(*both)

    def test_a_training_starts_from_an_adapter(self):
        first = self.adapter("first")
        second = self.adapter("second", "--set", f"adapter={first}", "--set", "optimizer.lr=0", "--set", "window.size=40")
        tensors = [safetensors(os.path.join(folder, "adapter.safetensors"))[0] for folder in (first, second)]
        self.assertEqual(*tensors)
        self.assertIn(f"started from {first}", self.assert_ok(self.model("inspect", second)))
        config = self.adapter_config(adapter=first)
        self.assertIn("trained with other settings (adapter -> run): window.size: 32 -> 48",
                      self.train("-c", config, "--set", "window.size=48", "--dry-run").stderr)
        self.assert_clear(self.train("-q", "-c", config, "--set", "focus.rank=3", "--dry-run"), USAGE, "focus.rank: 16 -> 3", "adapter")
        self.assert_clear(self.train("-q", "-c", config, "--set", "focus.unit=paper", "--dry-run"), USAGE, 'focus.unit: "fitted" -> "paper"')
        self.assert_clear(self.train("-q", "-c", config, "--set", f"adapter={self.path('none')}", "--dry-run"), MODEL, "none")
        self.assert_clear(self.train("-q", "-c", self.train_config(adapter=first), "--dry-run"), USAGE, "adapter", "task")

    def test_several_adapters_and_what_their_labels_promise(self):
        fitted, paper = self.adapter("fitted_run"), self.adapter("paper_run", focus={"k": 8, "unit": "paper"})
        config = {"methods": ["state_only", "mine", "paper"]}
        done = self.fidelity("-c", self.fidelity_config(adapters={"mine": fitted, "paper": paper}, **config), "-o", self.path("report"))
        for method in ("state_only", "mine", "paper"):
            self.assertRegex(self.assert_ok(done), rf"(?m)^{method} ")
        for label in ("paper", "the-paper", "Paper_2025"):
            config["methods"] = ["state_only", label]
            done = self.fidelity("-c", self.fidelity_config(adapters={label: fitted}, **config), "-o", self.path("wrong"))
            self.assert_clear(done, USAGE, f"adapters.{label}", "fitted unit")
        config["methods"] = ["tables"]
        self.assert_clear(self.fidelity("-c", self.fidelity_config(adapters={"tables": paper}, **config), "-o", self.path("wrong")), USAGE, "paper's unit")
        self.assertFalse(os.path.exists(self.path("wrong")))

    # Wrapped names.

    def wrapped(self, name, prefix, others=None):
        """The checkpoint as safetensors with a word before every name, and other tensors beside them."""
        plain = self.path("plain.safetensors")
        if not os.path.exists(plain):
            self.assert_ok(self.model("convert", self.checkpoint, plain))
        tensors, metadata = safetensors(plain)
        return write_tensors(self.path(name), {**{prefix + key: value for key, value in tensors.items()}, **(others or {})}, metadata)

    def test_a_prefix_that_all_names_share_is_taken_off(self):
        genome = self.genome()
        wanted = self.total(self.score(genome, "-r", "one"))
        facts = lambda path: json.loads(self.assert_ok(self.model("inspect", path, "--json")))
        for prefix in ("module.", "_orig_mod.", "model.", "state_dict.", "module._orig_mod."):
            path = self.wrapped("wrapped.safetensors", prefix)
            self.assertEqual(self.total(self.score(genome, "-r", "one", checkpoint=path)), wanted)
            self.assertEqual(facts(path)["name_prefix"], prefix)
            self.assertEqual(facts(path)["fingerprint"], facts(self.path("plain.safetensors"))["fingerprint"])
            self.assertEqual(facts(path)["model"], facts(self.path("plain.safetensors"))["model"])
            self.assert_ok(self.model("convert", path, self.path("clean.safetensors"), "--strip-prefix", prefix.rstrip("."), "-f"))
            self.assertEqual(safetensors(self.path("clean.safetensors"))[0], safetensors(self.path("plain.safetensors"))[0])
        self.assertIn("all begin with 'module._orig_mod.'", self.assert_ok(self.model("inspect", path)))

    def test_a_prefix_that_some_names_lack_is_named(self):
        genome = self.genome()
        step = {"step": ("F32", [1], struct.pack("<f", 3)), "ema.weight": ("F32", [1], struct.pack("<f", 3))}
        path = self.wrapped("mixed.safetensors", "state_dict.", step)
        done = self.score(genome, checkpoint=path)
        self.assert_clear(done, MODEL, "'state_dict.'", "'step'", "'ema.weight'", "--strip-prefix 'state_dict.'")
        self.assertIn("the model's begin with 'state_dict.', 2 others do not", self.assert_ok(self.model("inspect", path)))
        self.assert_clear(self.model("convert", path, self.path("out.pt"), "--strip-prefix", "state_dict."), USAGE, "'step'", "--drop")
        arguments = re.search(r"--strip-prefix .*", done.stderr)[0].replace("'", "").split()
        self.assert_ok(self.model("convert", path, self.path("out.pt"), *arguments))
        self.assertEqual(self.total(self.score(genome, "-r", "one", checkpoint=self.path("out.pt"))), self.total(self.score(genome, "-r", "one")))
        self.assert_clear(self.model("convert", self.checkpoint, self.path("x.pt"), "--strip-prefix", "module"), USAGE, "module.", "does not begin")


if __name__ == "__main__":
    sys.exit(main(OutputsTest))
