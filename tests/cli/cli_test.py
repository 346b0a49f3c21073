"""How the programs behave at their edges: exit code and message of every wrong call, and that interrupted or failed work leaves nothing half done.

How to run: support.py.
"""

import json
import os
import pickle
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import zipfile

from support import BIN, SOURCE, USAGE, DATA, MODEL, INTERRUPTED, PROGRAMS, bases, write, read, fasta, safetensors, ProgramTest, main


class Bomb:
    """Runs a command when unpickled without care."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


class CliTest(ProgramTest):
    # focus-infer score

    def rows(self, text):
        lines = text.splitlines()
        header = [line for line in lines if line.startswith("#") and not line.startswith("##")]
        self.assertEqual(header, ["#name\tstart\tend\tlength\tscored\tsum_log_likelihood_nats\tmean_log_likelihood_nats\tn_bases\tlowercase_bases\tkept_entries\t"
                                  "kept_bytes\tstream_bytes"])
        for key in ("focus_version", "command", "model", "memory"):
            self.assertEqual(len([line for line in lines if line.startswith(f"##{key}=")]), 1, text)
        return [line.split("\t")[:9] for line in lines if not line.startswith("#")]

    def memory_of(self, done):
        """Kept entries, kept bytes and all bytes of the stream, of the only row."""
        return [int(field) for field in self.assert_ok(done).splitlines()[-1].split("\t")[9:]]

    def assert_rows_close(self, a, b):
        self.assertEqual([row[:5] + row[7:] for row in a], [row[:5] + row[7:] for row in b])
        for x, y in zip(a, b):
            self.assertAlmostEqual(float(x[5]), float(y[5]), delta=1e-5 * abs(float(y[5])))

    # The command line.

    def test_no_arguments(self):
        for program in PROGRAMS:
            done = self.run_program(program)
            self.assertEqual(done.returncode, USAGE)
            self.assertEqual(done.stdout, "")
            self.assertIn("Usage: " + program, done.stderr)

    def test_help(self):
        for call in ([program] for program in PROGRAMS), [["focus-infer", "score"], ["focus-eval", "fidelity"], ["focus-eval", "calibrate"]]:
            for command in call:
                for flag in ("--help", "-h"):
                    done = self.run_program(*command, flag)
                    self.assertEqual(self.assert_ok(done).count("Usage:"), 1)
                    self.assertEqual(done.stderr, "")

    def test_version(self):
        for program in PROGRAMS:
            done = self.run_program(program, "--version")
            self.assertRegex(self.assert_ok(done), r"^focus \d+\.\d+\.\d+ \(\S+\)\n$")
            self.assertEqual(done.stderr, "")

    def test_idle_threads_soon_sleep(self):
        def spin_count(**settings):
            env = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
            done = self.run_program("focus-infer", "--version", env={**env, "OMP_DISPLAY_ENV": "verbose", **settings})
            shown = re.search(r"GOMP_SPINCOUNT = '(\d+)'", done.stderr)
            if not shown:
                self.skipTest("LibTorch's OpenMP run time is not GNU's")
            return int(shown[1])

        self.assertEqual(spin_count(), 1000)
        # What the user sets counts.
        self.assertEqual(spin_count(GOMP_SPINCOUNT="77"), 77)
        self.assertEqual(spin_count(OMP_WAIT_POLICY="passive"), 0)

    def test_unknown_option_and_subcommand(self):
        for program in PROGRAMS:
            self.assert_clear(self.run_program(program, "--no-such-option"), USAGE)
        self.assert_clear(self.run_program("focus-infer", "scroe"), USAGE, "scroe", "score")
        self.assert_clear(self.run_program("focus-eval", "fidelty"), USAGE, "fidelty", "fidelity")
        self.assert_clear(self.run_program("focus-eval", "fidelity", "--no-such-option"), USAGE, "--no-such-option")
        self.assert_clear(self.run_program("focus-infer", "score"), USAGE, "--checkpoint")
        self.assert_clear(self.score(self.genome(), "--norm", "base"), USAGE, "--norm", "acgt")
        self.assert_clear(self.score(self.genome(), "--chunk", "many"), USAGE, "--chunk", "many")
        self.assert_clear(self.score(self.genome(), "--chunk", "-5"), USAGE, "--chunk", "-5")

    def test_contradicting_options(self):
        self.assert_clear(self.score(self.genome(), "--norm", "acgt", "--case", "keep"), USAGE, "--case keep", "--norm acgt")
        self.assert_clear(self.score(self.genome(), "--norm", "acgt", "--ambiguous", "keep"), USAGE, "--ambiguous keep", "--norm acgt")
        self.assert_clear(self.score("-", "-r", "one:1-5", input=">one\nACGT\n"), USAGE, "standard input")
        self.assert_clear(self.score(self.genome(), "--dtype", "fp8"), USAGE, "fp8", "bf16")
        self.assert_clear(self.score(self.genome(), "--device", "gpu"), USAGE, "gpu", "cuda:N")

    def test_unknown_instruction_set(self):
        done = self.score(self.genome(), env={**os.environ, "FOCUS_CPU_ISA": "avx-2"})
        self.assert_clear(done, USAGE, "FOCUS_CPU_ISA=avx-2", "avx2")

    # Configuration.

    def test_unknown_config_key(self):
        self.assert_clear(self.train("-c", self.train_config(optimizer={"ler": 1e-3}), "-o", self.path("run")), USAGE, "train.json", "optimizer.ler", "optimizer.lr")
        self.assert_clear(self.train("-c", self.train_config(), "--set", "chekpoint_every=3", "-o", self.path("run")), USAGE, "checkpoint_every")
        self.assertFalse(os.path.exists(self.path("run")))

    def test_wrong_type_in_config(self):
        self.assert_clear(self.train("-c", self.train_config(accumulation="four"), "-o", self.path("run")), USAGE, "train.json", "accumulation", "four")
        self.assert_clear(self.train("-c", self.train_config(), "--set", "stages.0.length=long", "-o", self.path("run")), USAGE, "stages.0.length", "long")
        self.assert_clear(self.train("-c", self.train_config(accumulation=0), "-o", self.path("run")), USAGE, "accumulation", "0")

    def test_broken_json(self):
        self.assert_clear(self.train("-c", write(self.path("bad.json"), '{"seed": 1,, }'), "-o", self.path("run")), USAGE, "bad.json")
        self.assert_clear(self.train("-c", write(self.path("bad.json"), "[1]"), "-o", self.path("run")), USAGE, "bad.json")

    def test_missing_files(self):
        self.assert_clear(self.train("-c", self.path("none.json"), "-o", self.path("run")), USAGE, "none.json")
        self.assert_clear(self.train("-c", self.train_config(model_config=self.path("none.yml")), "-o", self.path("run")), USAGE, "none.yml")
        self.assert_clear(self.train("-c", self.train_config(data={"sources": [{"fasta": self.path("none.fa")}]}), "-o", self.path("run")), DATA, "none.fa")
        self.assert_clear(self.train("-c", self.train_config(model_checkpoint=self.path("none.pt")), "-o", self.path("run")), MODEL, "none.pt")
        self.assert_clear(self.score(self.path("none.fa")), DATA, "none.fa")
        self.assert_clear(self.score(self.genome(), config=self.path("none.yml")), USAGE, "none.yml")
        self.assert_clear(self.score(self.genome(), checkpoint=self.path("none.pt")), MODEL, "none.pt")
        self.assert_clear(self.score(self.genome(), "-R", self.path("none.bed")), DATA, "none.bed")
        self.assert_clear(self.score(self.genome(), "-o", self.path("none", "out.tsv")), DATA, "none/out.tsv")
        self.assert_clear(self.score(self.genome(), "--logits", self.path("none", "out.safetensors")), DATA, "none/out.safetensors")
        self.assertFalse(os.path.exists(self.path("run")))

    def test_no_output_folder_named(self):
        self.assert_clear(self.train("-c", self.train_config()), USAGE, "--output")
        self.assert_clear(self.train("-o", self.path("run")), USAGE, "--config")

    def test_k_larger_than_window(self):
        adapter = {"task": "adapter", "model_config": self.config, "model_checkpoint": self.checkpoint}
        self.assert_clear(self.train("-c", self.train_config(window={"size": 64}, focus={"k": 100}, **adapter), "-o", self.path("run")), USAGE, "focus.k", "100", "window.size", "64")
        self.assertFalse(os.path.exists(self.path("run")))

    def test_sequence_shorter_than_a_window(self):
        adapter = {"task": "adapter", "model_config": self.config, "model_checkpoint": self.checkpoint}
        config = self.train_config(window={"size": 1024}, focus={"k": 100}, stages=[{"length": 512, "steps": 1}], **adapter)
        self.assert_clear(self.train("-c", config, "-o", self.path("run")), USAGE, "stages.0.length", "512", "1024")

    def test_training_data_too_short(self):
        short = write(self.path("short.fa"), fasta([("chr1", bases(100))]))
        self.assert_clear(self.train("-c", self.train_config(data={"sources": [{"fasta": short}]}), "-o", self.path("run")), DATA, "short.fa", "128")
        # A later, longer stage is found out at once, and a corrected run may use the same folder.
        stages = [{"length": 32, "steps": 1}, {"length": 101, "steps": 1}]
        self.assert_clear(self.train("-c", self.train_config(data={"sources": [{"fasta": short}]}, stages=stages), "-o", self.path("run")), DATA, "short.fa", "101")
        self.assertFalse(os.path.exists(self.path("run")))

    def test_output_folder_in_use(self):
        os.mkdir(self.path("run"))
        write(self.path("run", "notes.txt"), "mine")
        self.assert_clear(self.train("-c", self.train_config(), "-o", self.path("run")), USAGE, "not empty", "--resume")
        self.assertEqual(os.listdir(self.path("run")), ["notes.txt"])

    def test_dry_run_trains_nothing(self):
        self.assertIn("steps: 6", self.assert_ok(self.train("-c", self.train_config(), "--dry-run")))

    # Hugging Face folders.

    def hugging_face(self, name):
        return os.path.join(self.golden, "llama", name)

    def test_hugging_face_score(self):
        genome = write(self.path("mixed.fa"), ">one\n" + bases(300) + "\n>two\nACGTNNacgtRA\n")
        for name in ("bytes", "letters"):
            args = ["focus-infer", "score", "--checkpoint", self.hugging_face(name), "--fasta", genome, "-q", "-t", "1"]
            rows = self.rows(self.assert_ok(self.run_program(*args)))
            self.assertEqual([row[3:5] for row in rows], [["300", "299"], ["12", "8"]])
            self.assert_rows_close(self.rows(self.assert_ok(self.run_program(*args, "--chunk", "7", "--model-config", self.hugging_face(name)))), rows)
            acgt = self.rows(self.assert_ok(self.run_program(*args, "--norm", "acgt")))
            self.assertGreater(float(acgt[0][5]), float(rows[0][5]))
        self.assertIn("model=letters fingerprint:", self.assert_ok(self.run_program(*args)))
        # This vocabulary has no lowercase letters, and N for all others.
        self.assert_clear(self.run_program(*args, "--case", "keep"), DATA, "no token for 'a'", "position 7", "'two'")
        self.assert_ok(self.run_program(*args, "--ambiguous", "keep"))

    def test_hugging_face_folder_errors(self):
        folder = shutil.copytree(self.hugging_face("letters"), self.path("hf"))
        score = ["focus-infer", "score", "--checkpoint", folder, "--fasta", self.genome(), "-q"]
        with open(os.path.join(folder, "config.json")) as file:
            config = json.load(file)
        write(os.path.join(folder, "config.json"), json.dumps({**config, "hidden_act": "gelu"}))
        self.assert_clear(self.run_program(*score), USAGE, "config.json", "hidden_act", "silu")
        write(os.path.join(folder, "config.json"), json.dumps({**config, "num_hidden_layers": 2}))
        self.assert_clear(self.run_program(*score), MODEL, "hf", "unexpected in the file", "model.layers.2.")
        write(os.path.join(folder, "config.json"), json.dumps(config))
        tokenizer = {"model": {"type": "WordLevel", "vocab": {"AAA": 0, "AAC": 1}}}
        write(os.path.join(folder, "tokenizer.json"), json.dumps(tokenizer))
        self.assert_clear(self.run_program(*score), USAGE, "tokenizer.json", "'AAA'", "k-mer")
        os.remove(os.path.join(folder, "config.json"))
        self.assert_clear(self.run_program(*score), USAGE, "config.json")
        self.assert_clear(self.train("-c", self.train_config(model_config=folder), "-o", self.path("run")), USAGE, "pretrain", "YAML")

    def test_hugging_face_training_and_fidelity(self):
        for name in ("bytes", "letters"):
            folder = self.hugging_face(name)
            config = self.train_config(task="adapter", model_config="", model_checkpoint=folder, window={"size": 32}, focus={"k": 8},
                                       stages=[{"length": 100, "steps": 2}])
            self.assert_ok(self.train("-q", "-c", config, "-o", self.path(name)))
            tensors, metadata = safetensors(self.path(name, "adapter.safetensors"))
            kv_heads = {"bytes": 2, "letters": 1}[name]
            self.assertEqual(tensors["layers.0.beta_bias"][1], [kv_heads])
            with open(self.path(name, "provenance.json")) as file:
                inputs = [os.path.basename(entry["path"]) for entry in json.load(file)["starts"][0]["inputs"]]
            self.assertIn("config.json", inputs)
            table = self.assert_ok(self.fidelity("-c", self.fidelity_config(model_config="", model_checkpoint=folder, window={}, focus={}),
                                                 "--adapter", self.path(name), "-o", self.path("report-" + name)))
            for method in ("full", "noise_floor", "state_only", "sliding", "mean_pool", "fitted", "focus"):
                self.assertRegex(table, rf"(?m)^{method} ")
        # An adapter belongs to one backbone.
        self.assert_clear(self.fidelity("-c", self.fidelity_config(model_config="", model_checkpoint=folder, window={}, focus={}),
                                        "--adapter", self.path("bytes"), "-o", self.path("report")), MODEL, "another backbone")

    # Sequences.

    def test_score_of_files_streams_and_regions_agree(self):
        genome = self.genome([("one", bases(300)), ("two words", "NN" + bases(130, seed=2).lower())])
        table = self.rows(self.assert_ok(self.score(genome)))
        self.assertEqual([row[:5] + row[7:] for row in table], [["one", "1", "300", "300", "299", "0", "0"], ["two", "1", "132", "132", "130", "2", "130"]])
        for row in table:
            self.assertAlmostEqual(float(row[6]), float(row[5]) / int(row[4]), places=6)
            self.assertLess(float(row[6]), 0)
        self.assertEqual(self.rows(self.assert_ok(self.score("-", input=read(genome).decode()))), table)
        for chunk in (1, 7, 0):
            self.assert_rows_close(self.rows(self.assert_ok(self.score(genome, "--chunk", chunk))), table)
        done = self.score(genome, "-r", "one:11-100", "-r", "two", "-o", self.path("out.tsv"))
        self.assertEqual(self.assert_ok(done), "")
        regions = self.rows(read(self.path("out.tsv")).decode())
        self.assertEqual([row[:5] for row in regions], [["one", "11", "100", "90", "89"], ["two", "1", "132", "132", "130"]])
        self.assertEqual(regions[1], table[1])
        bed = write(self.path("some.bed"), "one\t10\t100\n")
        self.assertEqual(self.rows(self.assert_ok(self.score(genome, "-R", bed))), regions[:1])
        alone = write(self.path("alone.fa"), fasta([("one", bases(300)[10:100])]))
        self.assertEqual(self.rows(self.assert_ok(self.score(alone)))[0][5:], regions[0][5:])

    def test_norm_and_case_change_the_score(self):
        genome = self.genome([("one", bases(200).lower())])
        scores = {}
        for name, args in {"vocab": [], "acgt": ["--norm", "acgt"], "keep": ["--case", "keep"], "bf16": ["--dtype", "bf16"]}.items():
            scores[name] = float(self.rows(self.assert_ok(self.score(genome, *args)))[0][5])
        self.assertEqual(len(set(scores.values())), 4, scores)
        self.assertGreater(scores["acgt"], scores["vocab"])

    def test_single_base(self):
        self.assertEqual(self.rows(self.assert_ok(self.score("-", input=">x\nA\n"))), [["x", "1", "1", "1", "0", "0", "NA", "0", "0"]])

    def test_score_with_compressed_memory(self):
        genome = write(self.path("long.fa"), ">long\n" + bases(700) + "\n")
        plan = ["--window", 100, "-k", 10]
        full = self.memory_of(self.score(genome))
        self.assertEqual(full[0], 700)
        self.assertEqual(self.memory_of(self.score(genome, "--memory", "state_only", *plan))[:2], [0, 0])
        for memory in ("fitted", "mean_pool"):
            entries, kept, stream = self.memory_of(self.score(genome, "--memory", memory, *plan))
            self.assertEqual((entries, kept % entries), (70, 0), memory)
            self.assertLess(stream, full[2])
        self.assert_clear(self.score(genome, "--memory", "nothing"), USAGE, "--memory nothing", "state_only")
        self.assert_clear(self.score(genome, "--memory", "focus"), USAGE, "--adapter")
        self.assert_clear(self.score(genome, "--window", 100), USAGE, "--window", "full")
        self.assert_clear(self.score(genome, "--adapter", self.path("none")), MODEL, "none")

    def test_score_goes_on_from_a_saved_state(self):
        genome = write(self.path("long.fa"), ">long\n" + bases(700) + "\n")
        state = self.path("state.safetensors")
        for memory in ([], ["--memory", "fitted", "--window", 100, "-k", 10]):
            total = lambda *args: float(self.rows(self.assert_ok(self.score(genome, *memory, *args)))[0][5])
            whole = total()
            first = total("-r", "long:1-333", "--save-state", state)
            self.assertAlmostEqual(first + total("-r", "long:334-700", "--load-state", state), whole, delta=1e-3)
        self.assert_clear(self.score(genome, "--load-state", state), MODEL, "state.safetensors", "fitted", "full memory")
        self.assert_clear(self.score(self.genome(), "--save-state", state), USAGE, "--save-state", "--region")
        self.assert_clear(self.score(genome, "--load-state", genome), MODEL, "long.fa")

    def test_logits(self):
        genome = self.genome()
        self.assert_ok(self.score(genome, "-r", "one:1-40", "-r", "two", "--logits", self.path("whole.safetensors"), "--chunk", 0))
        whole, metadata = safetensors(self.path("whole.safetensors"))
        self.assertEqual({name: value[:2] for name, value in whole.items()}, {"one:1-40": ("F32", [40, 512]), "two": ("F32", [130, 512])})
        self.assertEqual(sorted(metadata), ["command", "focus_version", "memory", "model"])
        for chunk in (1, 7, 1024):
            self.assert_ok(self.score(genome, "-r", "one:1-40", "-r", "two", "--logits", self.path("chunks.safetensors"), "--chunk", chunk))
            for name, (_, shape, raw) in safetensors(self.path("chunks.safetensors"))[0].items():
                form = f"<{shape[0] * shape[1]}f"
                self.assertLess(max(abs(a - b) for a, b in zip(struct.unpack(form, raw), struct.unpack(form, whole[name][2]))), 1e-4)
        self.assert_clear(self.score(genome, "-r", "one", "-r", "one", "--logits", self.path("twice.safetensors")), USAGE, "one", "twice")

    def test_regions_outside_the_record(self):
        self.assert_clear(self.score(self.genome(), "-r", "one:200-301"), DATA, "one:200-301", "300 bases")
        self.assert_clear(self.score(self.genome(), "-r", "one:0-10"), DATA, "one:0-10", "from 1")
        self.assert_clear(self.score(self.genome(), "-r", "one:20-10"), DATA, "one:20-10")
        self.assert_clear(self.score(self.genome(), "-r", "chrone"), DATA, "chrone", "'one'")
        self.assert_clear(self.score(self.genome(), "-R", write(self.path("far.bed"), "one\t0\t10\none\t0\t301\n")), DATA, "line 2", "far.bed", "300")

    def test_empty_record(self):
        for text in (">one\nACGT\n>two\n>three\nAC\n", ">one\nACGT\n>two\n"):
            self.assert_clear(self.score(write(self.path("empty.fa"), text)), DATA, "'two'", "no bases")
            self.assert_clear(self.score("-", input=text), DATA, "'two'", "no bases", "standard input")

    def test_not_fasta(self):
        for text, mention in (("", "no FASTA record"), ("@read\nACGT\n+\nIIII\n", "FASTQ"), ("ACGT\n", "'>'"), (">one\nAC\n>one\nGT\n", "twice")):
            if text:
                self.assert_clear(self.score(write(self.path("bad.fa"), text)), DATA, "bad.fa", mention)
            self.assert_clear(self.score("-", input=text), DATA, "standard input", mention)
        self.assert_clear(self.score(write(self.path("bad.fa"), "")), DATA, "bad.fa", "empty")
        self.assert_clear(self.score(self.folder), DATA, self.folder)

    def test_letters_that_are_no_dna(self):
        for letter, mention in (("U", "RNA"), ("-", "gaps"), ("*", "letters"), ("7", "letters")):
            text = fasta([("chr9", bases(70) + letter + bases(20))])
            for source, options in ((write(self.path(f"bad{ord(letter)}.fa"), text), {}), ("-", {"input": text})):
                self.assert_clear(self.score(source, **options), DATA, "71", "chr9", letter, mention)
        text = fasta([("chr9", bases(70) + "N" + bases(20))])
        self.assertEqual(self.rows(self.assert_ok(self.score("-", input=text)))[0][4], "89")
        self.assertEqual(self.rows(self.assert_ok(self.score("-", "--ambiguous", "keep", input=text)))[0][4], "90")
        self.assert_clear(self.score("-", "--ambiguous", "error", input=text), DATA, "71", "chr9", "'N'")

    def test_fasta_in_a_read_only_folder(self):
        os.mkdir(self.path("fixed"))
        genome = write(self.path("fixed", "genome.fa"), read(self.genome()))
        os.chmod(self.path("fixed"), 0o555)
        options = self.as_nobody()
        self.assertEqual(len(self.rows(self.assert_ok(self.score(genome, "-r", "two:5-50", **options)))), 1)
        self.assertEqual(os.listdir(self.path("fixed")), ["genome.fa"])
        if options:
            self.assertEqual(os.listdir(self.path("tmp")), [])
        os.chmod(self.path("fixed"), 0o755)

    def test_stale_index(self):
        genome = self.genome()
        self.assert_ok(self.score(genome, "-r", "one:1-9"))
        self.assertTrue(os.path.exists(genome + ".fai"))
        write(genome, fasta([("one", bases(120))]))
        self.assertEqual(self.rows(self.assert_ok(self.score(genome)))[0][:4], ["one", "1", "120", "120"])
        self.assertTrue(read(genome + ".fai").startswith(b"one\t120\t"))

    # Model files.

    def test_truncated_checkpoint(self):
        whole = read(self.checkpoint)
        for size in (0, 3, 1000, len(whole) // 2, len(whole) - 1):
            self.assert_clear(self.score(self.genome(), checkpoint=write(self.path("cut.pt"), whole[:size])), MODEL, "cut.pt")
        self.assert_clear(self.train("-c", self.train_config(model_config=self.config, model_checkpoint=self.path("cut.pt")), "-o", self.path("run")), MODEL, "cut.pt")

    def test_malicious_checkpoint(self):
        marker = self.path("executed")
        for name, content in {"direct": Bomb(f"touch {marker}"), "inside": {"embedding_layer.weight": Bomb(f"touch {marker}")}}.items():
            raw = pickle.dumps(content, protocol=2)
            pickle.loads(raw)
            self.assertTrue(os.path.exists(marker), "the file under test is harmless")
            os.remove(marker)
            path = self.path(name + ".pt")
            with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
                archive.writestr(f"{name}/data.pkl", raw)
                archive.writestr(f"{name}/byteorder", "little")
                archive.writestr(f"{name}/version", "3\n")
            self.assert_clear(self.score(self.genome(), checkpoint=path), MODEL, path, "system")
            config = self.train_config(model_config=self.config, model_checkpoint=path)
            self.assert_clear(self.train("-c", config, "-o", self.path("run")), MODEL, path, "system")
            self.assertFalse(os.path.exists(marker), "the checkpoint's command was executed")

    def test_checkpoint_that_is_none(self):
        self.assert_clear(self.score(self.genome(), checkpoint=write(self.path("text.pt"), "no tensors here, only text\n")), MODEL, "text.pt")
        self.assert_clear(self.score(self.genome(), checkpoint=self.folder), MODEL, self.folder)
        with zipfile.ZipFile(self.path("other.pt"), "w") as archive:
            archive.writestr("readme.txt", "nothing")
        self.assert_clear(self.score(self.genome(), checkpoint=self.path("other.pt")), MODEL, "other.pt")

    def test_checkpoint_of_another_shape(self):
        other = os.path.join(SOURCE, "configs", "models", "focus-small.yml")
        self.assert_clear(self.score(self.genome(), config=other), MODEL, "tiny7b.pt", "focus-small", "embedding_layer.weight")
        self.assert_clear(self.train("-c", self.train_config(model_config=other, model_checkpoint=self.checkpoint), "-o", self.path("run")), MODEL, "tiny7b.pt", "focus-small", "embedding_layer.weight")

    def test_bad_model_config(self):
        text = read(self.config).decode()
        for changed, mention in ((text + "no_such_key: 1\n", "no_such_key"), (text.replace("hidden_size: 64", "hidden_size: wide"), "hidden_size"),
                                 (text.replace("hidden_size: 64\n", ""), "hidden_size"), (text + "  : [\n", "YAML")):
            self.assert_clear(self.score(self.genome(), config=write(self.path("bad.yml"), changed)), USAGE, "bad.yml", mention)

    # Outputs.

    def test_score_on_a_full_disk(self):
        disk = self.full_folder()
        self.assert_clear(self.score(self.genome(), "--logits", disk + "/logits.safetensors", "-o", disk + "/table.tsv"), DATA, "logits.safetensors", "the disk has")
        self.assertEqual(os.listdir(disk), [])
        with open(disk + "/filler", "wb", buffering=0) as file:
            try:
                while file.write(b"x" * 4096):
                    pass
            except OSError:
                pass
        self.assert_clear(self.score(self.genome(), "-o", disk + "/table.tsv"), DATA, "table.tsv", "No space left")
        self.assertEqual(os.listdir(disk), ["filler"])

    def test_training_on_a_full_disk(self):
        disk = self.full_folder()
        self.assert_clear(self.train("-q", "-c", self.train_config(), "-o", disk + "/run"), DATA, "checkpoints/step-", "the disk has")
        self.assertEqual([name for name in os.listdir(disk + "/run/checkpoints") if ".tmp-" not in name], [])
        self.assertFalse(os.path.exists(disk + "/run/model.pt"))

    def test_score_beyond_the_file_size_limit(self):
        def limit():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))

        self.assert_clear(self.score(self.genome(), "--logits", self.path("logits.safetensors"), "-o", self.path("table.tsv"), preexec_fn=limit), DATA, "logits.safetensors", "too large")
        self.assertEqual(sorted(os.listdir(self.folder)), ["genome.fa", "genome.fa.fai"])

    def test_output_that_takes_nothing(self):
        done = self.score(self.genome(), "-o", "/dev/full")
        self.assert_clear(done, DATA, "/dev/full", "No space left")
        with open("/dev/full", "w") as full:
            command = [os.path.join(BIN, "focus-infer"), "score", "--model-config", self.config, "--checkpoint", self.checkpoint, "--fasta", self.genome(), "-q"]
            for args in (command, [os.path.join(BIN, "focus-train"), "-c", self.train_config(), "--dry-run", "-q"]):
                done = subprocess.run(args, stdout=full, stderr=subprocess.PIPE, text=True, timeout=300)
                done.stdout = ""
                self.assert_clear(done, DATA, "standard output")
        self.assert_ok(self.score(self.genome(), "-o", "/dev/null"))
        self.assertFalse(os.path.isfile("/dev/null"))

    def test_closed_pipe_is_quiet(self):
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run([os.path.join(BIN, "focus-infer"), "--help"], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=300)
        os.close(writing)
        self.assertEqual(done.returncode, -signal.SIGPIPE)
        self.assertEqual(done.stderr, "")

    def test_earlier_output_survives_a_failure(self):
        write(self.path("table.tsv"), "before")
        text = fasta([("one", bases(50)), ("two", "ACGU")])
        self.assert_clear(self.score("-", "-o", self.path("table.tsv"), input=text), DATA, "RNA", "two")
        self.assertEqual(read(self.path("table.tsv")), b"before")
        self.assertEqual(sorted(os.listdir(self.folder)), ["table.tsv", "table.tsv.part"])

    # Interrupts.

    def test_interrupted_training_resumes_bit_for_bit(self):
        steps = 80
        config = self.train_config(stages=[{"length": 128, "steps": steps, "batch": 2}], checkpoint_every=1000)
        self.assert_ok(self.train("-q", "-c", config, "-o", self.path("whole")))
        final = read(self.path("whole", "model.pt"))

        metrics = self.path("run", "metrics.jsonl")
        process = self.start("focus-train", "-q", "-c", config, "-o", self.path("run"))
        self.wait_until(process, lambda: os.path.exists(metrics) and read(metrics).count(b"\n") >= 3)
        done = self.interrupt(process)
        self.assert_clear(done, INTERRUPTED, "interrupted after step", "--resume")
        reached = int(re.search(r"after step (\d+) of", done.stderr).group(1))
        self.assertLess(reached, steps)
        self.assertEqual(os.listdir(self.path("run", "checkpoints")), [f"step-{reached:08d}"])
        self.assertFalse(os.path.exists(self.path("run", "model.pt")))

        # Without --resume the run is left alone, and with other settings it is not continued.
        self.assert_clear(self.train("-q", "-c", config, "-o", self.path("run")), USAGE, "not empty", "--resume")
        self.assert_clear(self.train("-q", "-c", config, "--seed", "7", "-o", self.path("run"), "--resume"), USAGE, "seed", "42", "7")

        self.assert_ok(self.train("-q", "-c", config, "-o", self.path("run"), "--resume"))
        self.assertEqual(read(self.path("run", "model.pt")), final)
        recorded = [json.loads(line)["step"] for line in read(metrics).splitlines()]
        self.assertEqual(recorded, list(range(1, steps + 1)))

    def test_damaged_training_checkpoint(self):
        config = self.train_config()
        self.assert_ok(self.train("-q", "-c", config, "-o", self.path("run")))
        state = self.path("run", "checkpoints", "step-00000006", "trainable.safetensors")
        write(state, read(state)[:-1])
        self.assert_clear(self.train("-q", "-c", config, "-o", self.path("run"), "--resume"), MODEL, "trainable.safetensors", "damaged")

    def test_interrupted_scoring_leaves_no_table(self):
        genome = self.genome([("long", bases(20000))])
        process = self.start("focus-infer", "score", "--model-config", self.config, "--checkpoint", self.checkpoint, "--fasta", genome, "--chunk", "1", "-q", "-t", "1",
                             "-o", self.path("table.tsv"))
        self.wait_until(process, lambda: os.path.exists(self.path("table.tsv.part")))
        self.assert_clear(self.interrupt(process, signal.SIGTERM), 143, "interrupted", "'long'")
        self.assertEqual(sorted(os.listdir(self.folder)), ["genome.fa", "genome.fa.fai"])


if __name__ == "__main__":
    sys.exit(main(CliTest))
