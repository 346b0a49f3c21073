"""focus-eval sweep and the gates: a grid's cells, resumed, shared and failed. How to run: support.py."""

import csv
import json
import os
import signal
import time

from support import CHECK, DATA, INTERRUPTED, SOURCE, USAGE, ProgramTest, bases, fasta, main, read, write


class SweepTest(ProgramTest):
    def sweep_config(self, sweep, train=None, **changes):
        settings = json.loads(read(self.fidelity_config(**changes)))
        settings["sweep"] = sweep
        if train is not None:
            del settings["window"], settings["focus"]
            settings["train"] = {"config": train}
        return write(self.path("sweep.json"), json.dumps(settings))

    def trained_sweep(self):
        train = self.train_config(task="adapter", model_config=self.config, model_checkpoint=self.checkpoint, window={"size": 32}, focus={"k": 8},
                                  stages=[{"length": 128, "steps": 6}], checkpoint_every=1)
        return self.sweep_config({"window.size": [32, 64], "focus.k": [4, 8]}, train, methods=["state_only", "focus"], length=200)

    def sweep(self, *args, **options):
        return self.run_program("focus-eval", "sweep", "-q", *args, **options)

    def rows(self, folder):
        """The table as dictionaries, times left out."""
        with open(os.path.join(folder, "sweep.tsv")) as file:
            rows = list(csv.DictReader((line for line in file if not line.startswith("##")), delimiter="\t"))
        return [{key: value for key, value in row.items() if not key.endswith("seconds")} for row in rows]

    def done_cells(self, folder):
        cells = os.path.join(folder, "cells")
        return {name for name in (os.listdir(cells) if os.path.isdir(cells) else []) if os.path.exists(os.path.join(cells, name, "cell.json"))}

    def untimed(self, folder):
        lines = read(os.path.join(folder, "sweep.tsv")).decode().splitlines()
        return [line if line.startswith("##") else line.rsplit("\t", 2)[0] for line in lines]

    def test_a_cell_is_a_fidelity_run_and_a_grid_grows(self):
        config = self.sweep_config({"focus.k": [4]}, methods=["state_only", "noise_floor", "fitted"])
        out = self.path("out")
        planned = self.assert_ok(self.sweep("-c", config, "-o", out, "--dry-run"))
        self.assertIn("1 to measure", planned)
        self.assertIn("fitted: ", planned)
        self.assertFalse(os.path.exists(out))
        self.assert_ok(self.sweep("-c", config, "-o", out))
        first = self.done_cells(out)
        self.assertEqual(len(first), 1)
        times = {name: os.stat(os.path.join(out, "cells", name, "cell.json")).st_mtime_ns for name in first}
        said = self.assert_ok(self.sweep("-c", config, "-o", out, "--set", 'sweep.focus.k={"from": 4, "to": 16, "factor": 2}'))
        self.assertIn("RANDOM WEIGHTS in 3 of 3", said)
        rows = self.rows(out)
        self.assertEqual([(row["focus.k"], row["method"]) for row in rows],
                         [(k, name) for k in ("4", "8", "16") for name in ("full", "state_only", "noise_floor", "fitted")])
        self.assertLess(first, self.done_cells(out))
        for name, before in times.items():
            self.assertEqual(os.stat(os.path.join(out, "cells", name, "cell.json")).st_mtime_ns, before)
        # The cell that took the baselines of another says what a run of its own does.
        self.assert_ok(self.fidelity("-c", self.fidelity_config(focus={"k": 16}, methods=["state_only", "noise_floor", "fitted"]), "-o", self.path("run")))
        cell = os.path.join(out, "cells", rows[-1]["cell"])
        for name in ("summary.tsv", "segments.tsv", "by_position.tsv", "by_offset.tsv"):
            table = [line for line in read(self.path("run", name)).splitlines() if not line.startswith(b"##")]
            self.assertEqual([line for line in read(os.path.join(cell, name)).splitlines() if not line.startswith(b"##")], table, name)
        by_cell = json.loads(read(os.path.join(out, "sweep.json")))
        self.assertEqual(len(by_cell["rows"]), len(rows))
        self.assertIn(b"<table", read(os.path.join(out, "sweep.html")).replace(b"'table'", b"<table"))
        self.assertIn("3 done, 0 to measure", self.assert_ok(self.sweep("-c", config, "-o", out, "--dry-run", "--set", "sweep.focus.k=[4, 8, 16]")))

    def test_killed_shared_and_taken_over(self):
        config = self.trained_sweep()
        self.assert_ok(self.sweep("-c", config, "-o", self.path("whole")))
        whole = self.untimed(self.path("whole"))
        self.assertEqual(len(self.rows(self.path("whole"))), 4 * 3)
        self.assertEqual(len(os.listdir(self.path("whole", "trainings"))), 4)

        killed = self.path("killed")
        for moment in (lambda: os.path.isdir(os.path.join(killed, "trainings")) and os.listdir(os.path.join(killed, "trainings")),
                       lambda: len(self.done_cells(killed)) >= 1, lambda: len(self.done_cells(killed)) >= 3):
            process = self.start("focus-eval", "sweep", "-q", "-c", config, "-o", killed)
            self.wait_until(process, moment)
            process.kill()
            process.communicate()
        os.mkdir(os.path.join(killed, "cells", min(self.done_cells(killed)) + ".tmp-1-old"))  # killed right after its rename
        self.assert_ok(self.sweep("-c", config, "-o", killed))
        self.assertEqual(self.untimed(killed), whole)
        self.assertEqual([name for name in os.listdir(os.path.join(killed, "cells")) if ".tmp-" in name], [])

        # One of two workers stops while it holds a cell; when it is killed, the other takes that cell over.
        shared = self.path("shared")
        stopped = self.start("focus-eval", "sweep", "-q", "-c", config, "-o", shared)
        self.wait_until(stopped, lambda: os.path.isdir(os.path.join(shared, "trainings")) and os.listdir(os.path.join(shared, "trainings")))
        stopped.send_signal(signal.SIGSTOP)
        self.assertLess(len(self.done_cells(shared)), 4)
        other = self.start("focus-eval", "sweep", "-q", "-c", config, "-o", shared)
        self.wait_until(other, lambda: len(self.done_cells(shared)) >= 3)
        time.sleep(0.5)
        self.assertIsNone(other.poll())
        stopped.kill()
        self.assertEqual(self.finish([other])[0].returncode, 0)
        self.assertEqual(self.untimed(shared), whole)

    def test_two_workers_and_an_interrupt(self):
        config = self.sweep_config({"focus.k": [2, 4, 8], "seed": {"from": 1, "to": 2, "step": 1}}, methods=["state_only", "fitted"], length=300)
        self.assert_ok(self.sweep("-c", config, "-o", self.path("one")))
        first = self.start("focus-eval", "sweep", "-q", "-c", config, "-o", self.path("two"))
        second = self.start("focus-eval", "sweep", "-q", "-c", config, "-o", self.path("two"))
        for done in self.finish([first, second]):
            self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.untimed(self.path("two")), self.untimed(self.path("one")))

        stopped = self.path("stopped")
        process = self.start("focus-eval", "sweep", "-q", "-c", config, "-o", stopped)
        self.wait_until(process, lambda: len(self.done_cells(stopped)) >= 1)
        done = self.interrupt(process)
        if done.returncode != 0:  # else it was faster
            self.assertEqual(done.returncode, INTERRUPTED)
            self.assertIn("not done", [row["state"] for row in self.rows(stopped)])
        self.assert_ok(self.sweep("-c", config, "-o", stopped))
        self.assertEqual(self.untimed(stopped), self.untimed(self.path("one")))

    def test_a_failed_cell_is_said_and_the_rest_done(self):
        config = self.sweep_config({"length": [100, 5000, 120]}, methods=["state_only", "fitted"])
        out = self.path("out")
        done = self.sweep("-c", config, "-o", out)
        self.assertEqual(done.returncode, DATA, done.stderr)
        self.assertIn("length 5000", done.stderr)
        self.assertIn("1 of 3 cell(s) failed", done.stderr)
        rows = self.rows(out)
        self.assertEqual([row["length"] for row in rows if row["method"] == "fitted"], ["100", "120"])
        (missing,) = [row for row in rows if row["method"] == "NA"]
        self.assertIn("failed: no segment of 5000 bases", missing["state"])
        self.assertIn(b"no segment of 5000 bases", read(os.path.join(out, "failed", missing["cell"] + ".txt")))
        self.assertFalse(os.path.exists(os.path.join(out, "cells", missing["cell"])))

    def test_one_window_is_labelled(self):
        config = self.sweep_config({"length": [30, 100]}, methods=["state_only", "fitted"])
        self.assertIn("ONE WINDOW in 1 of 2", self.assert_ok(self.sweep("-c", config, "-o", self.path("out"))))
        self.assertEqual([row["state"] for row in self.rows(self.path("out"))], 3 * ["ONE WINDOW"] + 3 * ["done"])

    def test_sweeps_that_make_no_sense(self):
        def refused(sweep, *mentions, args=(), **changes):
            self.assert_clear(self.sweep("-c", self.sweep_config(sweep, **changes), "-o", self.path("out"), *args), USAGE, *mentions)
            self.assertFalse(os.path.exists(self.path("out")))

        refused({"focus.rnak": [1]}, "focus.rnak 1", "focus.rank")
        refused({"focus.k": [4, 33]}, "cell focus.k 33", "window.size")
        refused({"focus.k": 4}, "sweep.focus.k", "list of values")
        refused({"focus.k": []}, "sweep.focus.k")
        refused({"focus.k": [4, 4]}, "twice")
        refused({"focus.k": {"from": 4, "to": 8}}, "step", "factor")
        refused({"focus.k": {"from": 4, "to": 8, "factor": 1}}, "does not grow")
        refused({"window.size, focus.k": [[32, 4], [32]]}, "a list of 2")
        refused({"train.seed": [1, 2]}, "train.seed", "train.config")
        refused({"threads": [1, 2]}, "are the same")
        refused({"focus.k": [4]}, "state_only", "--min-r", args=("--min-r", "0.1"), methods=["fitted"])
        write(self.path("twice.json"), '{"sweep": {}, "segments": 1, "segments": 2}')
        self.assert_clear(self.sweep("-c", self.path("twice.json"), "-o", self.path("out")), USAGE, "segments", "twice")
        os.mkdir(self.path("taken"))
        write(self.path("taken", "thesis.txt"), "mine")
        self.assert_clear(self.sweep("-c", self.sweep_config({}), "-o", self.path("taken")), USAGE, "taken", "no sweep")

    def test_protocols_can_be_planned(self):
        cells = {"ablate_w_k": 15, "chromosomes": 2, "genome_niah": 8, "grch38_fidelity": 2, "length_curve": 30, "long_length_curve": 7, "many_variants": 2,
                 "memory_curve": 5, "msl39_viruses": 2, "opengenome2": 2, "pareto": 4, "recall": 18}
        folder = os.path.join("configs", "protocols")
        self.assertEqual(sorted(cells), sorted(name[:-5] for name in os.listdir(os.path.join(SOURCE, folder)) if name.endswith(".json")))
        for name, count in cells.items():
            planned = self.assert_ok(self.sweep("-c", os.path.join(folder, name + ".json"), "-o", self.path("out"), "--dry-run", "-t", "1", cwd=SOURCE))
            trainings = count if name == "ablate_w_k" else 0
            self.assertRegex(planned, rf"(?m)^{count} cell\(s\): 0 done, {count} to measure, {trainings} training\(s\) before$")
            self.assertRegex(planned, r"about .* of evaluation and .* of training")

    def test_protocols_run_on_the_shipped_data(self):
        short = {
            "ablate_w_k": ["length=1100", "sweep.window.size=[256, 512]", "sweep.focus.k=[50]"],
            "chromosomes": ["length=1100"],
            "genome_niah": ["sweep.length=[2048]", "needles.questions=2"],
            "grch38_fidelity": ["sweep.length=[1024, 2048]"],
            "length_curve": ["sweep.length=[1000, 2100]"],
            "long_length_curve": ["sweep.length=[2100]"],
            "many_variants": ["length=2048", "needles.questions=8"],
            "memory_curve": ["sweep.length=[2100, 4200]"],
            "msl39_viruses": ["sweep.length=[1024, 2048]"],
            "opengenome2": ["sweep.length=[1024, 2048]"],
            "pareto": ["length=1100", "planted.distance=600", "sweep.focus.k=[50, 200]"],
            "recall": ["sweep.length, planted.distance=[[1600, 1280]]"],
        }
        # No cell is skipped, and none without figures; windows of 512 bases cross boundaries sooner.
        for name, settings in short.items():
            with self.subTest(name):
                args = [part for setting in ["scale=0.0001", "bootstrap_draws=20", *settings] for part in ("--set", setting)]
                if name not in ("ablate_w_k", "length_curve", "grch38_fidelity", "msl39_viruses", "opengenome2"):
                    args += ["--set", "window.size=512"]
                self.assert_ok(self.sweep("-c", os.path.join("configs", "protocols", name + ".json"), "-o", self.path(name), "-t", "1", *args, cwd=SOURCE))
                rows = self.rows(self.path(name))
                self.assertLessEqual({row["segments"] for row in rows}, {"1", "2"})  # of each record
                self.assertEqual({row["weights"] for row in rows}, {"not random"})
                self.assertLessEqual({row["state"] for row in rows}, {"done", "ONE WINDOW"})
                self.assertIn("done", {row["state"] for row in rows})
                asked = name in ("genome_niah", "many_variants")
                self.assertEqual({row["exact_match"] == "NA" for row in rows}, {not asked})
        folder = os.path.join("configs", "protocols")
        self.assertEqual(sorted(short), sorted(name[:-5] for name in os.listdir(os.path.join(SOURCE, folder))))

    def test_the_papers_run_on_a_genome_of_24_records(self):
        names = [f"chr{n}" for n in [*range(1, 23), "X", "Y"]]
        write(self.path("GRCh38.fa"), fasta([(name, bases(600, seed=n)) for n, name in enumerate(names)]))
        os.symlink(self.checkpoint, self.path("evo2_7b.pt"))
        small = ["--set", "model_config=" + self.config, "-t", "1"]
        paper = os.path.join(SOURCE, "configs", "paper")
        self.assert_ok(self.train("-q", "-c", os.path.join(paper, "train_grch38_chr1.json"), "-o", self.path("runs", "chr1"), *small,
                                  "--set", "window.size=64", "--set", "focus.k=8", "--set", 'stages=[{"length": 256, "batch": 1, "steps": 2}]'))
        fidelity = ["-c", os.path.join(paper, "fidelity_grch38.json"), "--adapter", "runs/chr1", *small, "--set", "scale=0.002", "--set", "sweep.length=[60, 256]"]
        self.assert_ok(self.sweep(*fidelity, "-o", self.path("figure2")))
        rows = self.rows(self.path("figure2"))
        self.assertEqual([(row["length"], row["method"], row["state"]) for row in rows],
                         [("60", name, "ONE WINDOW") for name in ("full", "noise_floor", "state_only", "focus")] +
                         [("256", name, "done") for name in ("full", "noise_floor", "state_only", "focus")])
        self.assertEqual({row["segments"] for row in rows}, {"23"})
        segments = read(self.path("figure2", "cells", rows[-1]["cell"], "segments.tsv")).decode().splitlines()
        self.assertEqual([line.split("\t")[1] for line in segments if line[0].isdigit()], names[1:])
        # The same records as a folder of files are the same evaluation.
        os.mkdir(self.path("genome"))
        for n, name in enumerate(names):
            write(self.path("genome", f"{n:02}.fa"), fasta([(name, bases(600, seed=n))]))
        self.assert_ok(self.sweep(*fidelity, "--fasta", self.path("genome"), "-o", self.path("folder")))
        def figures(rows):
            return [{key: value for key, value in row.items() if key not in ("cell", "folder")} for row in rows]

        self.assertEqual(figures(self.rows(self.path("folder"))), figures(rows))
        write(self.path("genome", "99.fa"), fasta([("chr7", bases(600))]))
        done = self.sweep(*fidelity, "--fasta", self.path("genome"), "-o", self.path("twice"))
        self.assertEqual(done.returncode, DATA)
        self.assertIn("the record 'chr7' stands in '06.fa' and in '99.fa'", done.stderr)

    def test_gates(self):
        def run(out, *args, **changes):
            return self.fidelity("-c", self.fidelity_config(**{"methods": ["state_only", "fitted"], "length": 200, "segments": 4, **changes}), "-o", self.path(out), *args)

        kept = self.assert_ok(run("a", "--max-kl", "100", "--min-top1", "0", "--min-r", "-100"))
        self.assertEqual([line.split(" of fitted")[0] for line in kept.splitlines() if " of fitted is " in line],
                         ["passed: kl", "passed: R", "passed: top1_agreement"])
        missed = run("b", "--max-kl", "0", "--baseline", self.path("a"))
        self.assert_clear(missed, CHECK, "1 gate was not kept")
        self.assertIn("FAILED: kl of fitted", missed.stdout)
        self.assertIn("passed: kl of fitted less the baseline's is 0 ", missed.stdout)
        self.assertTrue(os.path.exists(self.path("b", "report.html")))
        # Every key is kept by 'full': state_only is worse, beyond what segments vary.
        write(self.path("full.json"), read(self.path("a", "summary.json")).replace(b'"state_only"', b'"?"').replace(b'"full"', b'"state_only"'))
        os.mkdir(self.path("full"))
        os.rename(self.path("full.json"), self.path("full", "summary.json"))
        worse = run("c", "--gate-method", "state_only", "--baseline", self.path("full"))
        self.assert_clear(worse, CHECK)
        self.assertIn("above 0", worse.stdout)

        self.assert_clear(run("d", "--min-r", "0", methods=["fitted"]), USAGE, "state_only")
        self.assert_clear(run("d", "--max-kl", "1", "--gate-method", "sliding"), USAGE, "sliding")
        self.assert_clear(run("d", "--gate-method", "fitted"), USAGE, "no effect")
        self.assert_clear(run("d", "--max-kl", "nan"), USAGE, "nan")
        self.assert_clear(run("d", "--baseline", self.folder), DATA, "summary.json")
        self.assertFalse(os.path.exists(self.path("d")))
        self.assert_clear(run("e", "--baseline", self.path("a"), seed=7), USAGE, "other segments")
        self.assert_clear(run("f", "--max-kl", "1", length=30), USAGE, "one window")
        self.assert_clear(run("g", "--min-recall", "0"), USAGE, "--min-recall", "planted.size")

        config = self.sweep_config({"focus.k": [4, 8]}, methods=["state_only", "fitted"])
        swept = self.sweep("-c", config, "-o", self.path("sweep"), "--max-kl", "0")
        self.assert_clear(swept, CHECK, "2 gates were not kept")
        self.assertEqual(sum(line.startswith("cell ") and "FAILED: kl of fitted" in line for line in swept.stdout.splitlines()), 2)

    def test_settings_that_change_together_and_trainings_that_are_shared(self):
        train = self.train_config(task="adapter", model_config=self.config, model_checkpoint=self.checkpoint, window={"size": 32}, focus={"k": 8},
                                  stages=[{"length": 128, "steps": 4}])
        other = write(self.path("other.fa"), fasta([("two", bases(900, seed=5))]))
        config = self.sweep_config({"window.size, focus.k": [[32, 4], [64, 8]], "fasta": [self.path("genome.fa"), other], "train.optimizer.lr": [1e-3]},
                                   train, methods=["focus"], length=150)
        out = self.path("out")
        self.assert_ok(self.sweep("-c", config, "-o", out, "--set", "scale=0.5"))
        rows = [row for row in self.rows(out) if row["method"] == "focus"]
        self.assertEqual([(row["window"], row["kmer"]) for row in rows], [("32", "4"), ("32", "4"), ("64", "8"), ("64", "8")])
        self.assertEqual({row["segments"] for row in rows}, {"1"})
        trainings = os.listdir(os.path.join(out, "trainings"))
        self.assertEqual(len(trainings), 2)
        resolved = json.loads(read(os.path.join(out, "trainings", trainings[0], "config.json")))
        self.assertEqual(resolved["stages"][0]["steps"], 2)
        self.assertEqual(resolved["optimizer"]["lr"], 1e-3)
        notes = [line for line in self.untimed(out) if line.startswith("##note=")]
        self.assertTrue(any("scale 0.5" in note for note in notes), notes)
        self.assertTrue(any("not measured: R" in note for note in notes), notes)


if __name__ == "__main__":
    raise SystemExit(main(SweepTest))
