"""How focus-eval behaves at its edges: wrong settings and inputs, reports in use, interruption, and several ranks. How to run: support.py."""

import csv
import gzip
import json
import os
import shlex
import subprocess
import sys
import time

from support import DATA, INTERRUPTED, MODEL, RESOURCES, SOURCE, USAGE, ProgramTest, bases, fasta, main, read, write

REPORT_FILES = ["by_class.tsv", "by_offset.tsv", "by_position.tsv", "distribution.tsv", "focus_mqc.json", "report.html", "segments.tsv", "summary.json", "summary.tsv"]


class EvalTest(ProgramTest):
    def assert_no_report(self):
        self.assertEqual([name for name in os.listdir(self.folder) if name.startswith("report")], [])

    def test_fidelity_without_arguments(self):
        self.assert_clear(self.run_program("focus-eval", "fidelity"), USAGE, "model_config")
        self.assert_clear(self.fidelity("-c", self.fidelity_config()), USAGE, "--output")
        self.assertIn("bootstrap_draws", self.assert_ok(self.run_program("focus-eval", "fidelity", "--help-config")))

    def test_fidelity_config_errors(self):
        report = ["-o", self.path("report")]
        self.assert_clear(self.fidelity("-c", self.fidelity_config(segmnets=3), *report), USAGE, "eval.json", "segmnets", '"segments"')
        self.assert_clear(self.fidelity("-c", self.fidelity_config(), "--set", "focus.rnak=3", *report), USAGE, "focus.rnak", "focus.rank")
        self.assert_clear(self.fidelity("-c", self.fidelity_config(length="long"), *report), USAGE, "eval.json", "length", "long")
        self.assert_clear(self.fidelity("-c", self.fidelity_config(methods=["full", "slidng"]), *report), USAGE, "slidng", "did you mean 'sliding'", "state_only", "mean_pool", "fitted")
        self.assert_clear(self.fidelity("-c", self.fidelity_config(methods=["full", "focus"]), *report), USAGE, "'focus'", "adapter")
        self.assert_no_report()

    def test_fidelity_k_larger_than_window(self):
        report = ["-o", self.path("report")]
        self.assert_clear(self.fidelity("-c", self.fidelity_config(focus={"k": 33}), *report), USAGE, "focus.k", "33", "window.size", "32")
        self.assert_clear(self.fidelity("-c", self.fidelity_config(), "--set", "focus.k=33", *report), USAGE, "focus.k", "33", "window.size", "32")
        self.assert_clear(self.fidelity("-c", self.fidelity_config(), "--set", "window.size=7", *report), USAGE, "focus.k", "8", "window.size", "7")
        self.assert_no_report()

    def test_fidelity_missing_files(self):
        report = ["-o", self.path("report")]
        self.assert_clear(self.fidelity("-c", self.path("none.json"), *report), USAGE, "none.json")
        self.assert_clear(self.fidelity("-c", self.fidelity_config(model_config=self.path("none.yml")), *report), USAGE, "none.yml")
        self.assert_clear(self.fidelity("-c", self.fidelity_config(), "--fasta", self.path("none.fa"), *report), DATA, "none.fa")
        self.assert_clear(self.fidelity("-c", self.fidelity_config(regions=["none.bed"]), *report), DATA, "none.bed")
        self.assert_clear(self.fidelity("-c", self.fidelity_config(model_checkpoint=self.path("none.pt")), *report), MODEL, "none.pt")
        self.assert_clear(self.fidelity("-c", self.fidelity_config(), "--adapter", self.path("none.safetensors"), *report), MODEL, "none.safetensors")
        os.mkdir(self.path("empty"))
        self.assert_clear(self.fidelity("-c", self.fidelity_config(), "--adapter", self.path("empty"), *report), MODEL, "empty", "adapter.safetensors")
        self.assert_no_report()

    def test_fidelity_regions(self):
        report = ["-o", self.path("report")]
        self.assert_clear(self.fidelity("-c", self.fidelity_config(regions=["one:1900-2001"]), *report), DATA, "one:1900-2001", "2000 bases")
        self.assert_clear(self.fidelity("-c", self.fidelity_config(regions=["chrone"]), *report), DATA, "chrone", "'one'")
        self.assert_clear(self.fidelity("-c", self.fidelity_config(regions=["one:1-99"]), *report), DATA, "100 bases", "genome.fa", "shorter")
        self.assert_no_report()

    def test_fidelity_and_score_of_plain_gzip(self):
        plain = write(self.path("plain.fa"), fasta([("one", bases(2000)), ("two", bases(700, seed=3))]))
        packed = write(self.path("packed.fa.gz"), gzip.compress(read(plain)))
        for name, path in (("plain", plain), ("packed", packed)):
            done = self.run_program("focus-eval", "fidelity", "-c", self.fidelity_config(fasta=path, methods=["state_only"], regions=["one:101-900", "two"]), "-o", self.path(name))
            self.assert_ok(done)
            self.assertEqual("held in memory" in done.stderr, name == "packed")
        for name in ("summary.tsv", "segments.tsv", "by_position.tsv"):
            self.assertEqual(self.table(self.path("plain"), name), self.table(self.path("packed"), name), name)
        scores = [[line for line in self.assert_ok(self.score(path, "-r", "two:51-400")).splitlines() if not line.startswith("##")] for path in (plain, packed)]
        self.assertEqual(scores[0], scores[1])

    def test_fidelity_adapter_of_another_backbone(self):
        adapter = self.train_config(task="adapter", model_config=self.config, model_checkpoint=self.checkpoint, window={"size": 32}, focus={"k": 8},
                                    stages=[{"length": 100, "steps": 1}])
        self.assert_ok(self.train("-q", "-c", adapter, "-o", self.path("adapter")))
        self.assert_ok(self.train("-q", "-c", self.train_config(model_config=self.config, stages=[{"length": 64, "steps": 1}]), "-o", self.path("backbone")))
        config = self.fidelity_config(window={}, focus={}, methods=["focus"])
        args = ["--adapter", self.path("adapter"), "-o", self.path("report")]
        other = "model_checkpoint=" + self.path("backbone", "model.pt")
        self.assert_clear(self.fidelity("-c", config, "--set", other, *args), MODEL, "adapter.safetensors", "another backbone")
        self.assert_clear(self.fidelity("-c", config, "--set", "focus.k=33", *args), USAGE, "focus.k", "33", "window.size", "32")
        self.assert_no_report()
        self.assertRegex(self.assert_ok(self.fidelity("-c", config, *args)), r"(?m)^focus ")
        self.assert_clear(self.fidelity("-c", self.fidelity_config(focus={"rank": 4}), *args, "--force"), USAGE, "focus.rank has no effect", "adapter")

    def test_fidelity_report(self):
        report = self.path("report of 'one'")
        done = self.fidelity("-c", self.fidelity_config(), "-o", report)
        lines = self.assert_ok(done).splitlines()
        self.assertEqual(done.stderr, "")
        self.assertEqual(lines[-1], os.path.join(report, "report.html"))
        self.assertIn("RANDOM WEIGHTS", lines[0])
        self.assertIn("2 segment(s) of 100 bases, window 32, k 8", lines[1])
        methods = ["full", "noise_floor", "state_only", "sliding", "sinks", "strided", "random", "snapkv", "expected_attention", "heavy",
                   "kv_quant_int8", "kv_quant_int4", "mean_pool", "mean_pool_nobeta", "window_mass",
                   "heavy_fitted", "attention_match", "adaptive", "multires", "quantised_int8", "quantised_int4", "mixture", "adaptive_entropy", "fitted"]
        self.assertEqual([line.split()[0] for line in lines[2:-1]], ["method"] + methods)
        self.assertEqual(sorted(os.listdir(report)), REPORT_FILES)
        summary = json.loads(read(os.path.join(report, "summary.json")))
        self.assertEqual([method["name"] for method in summary["methods"]], methods)
        self.assertEqual(summary["config"]["segments"], 2)
        self.assertEqual(shlex.split(summary["provenance"]["command_line"]), done.args)
        html = read(os.path.join(report, "report.html")).decode()
        self.assertTrue(html.startswith("<!DOCTYPE html>") and html.endswith("</html>\n"))

    def test_fidelity_output_folder_in_use(self):
        report = self.path("report")
        config = self.fidelity_config(methods=["full", "sliding"])
        os.mkdir(report)
        self.assert_ok(self.fidelity("-c", config, "-o", report))
        before = read(os.path.join(report, "summary.tsv"))
        self.assert_clear(self.fidelity("-c", config, "--seed", "7", "-o", report), USAGE, "report", "not empty", "--force")
        self.assertEqual(read(os.path.join(report, "summary.tsv")), before)
        self.assert_ok(self.fidelity("-c", config, "--seed", "7", "-o", report, "--force"))
        self.assertNotEqual(read(os.path.join(report, "summary.tsv")), before)
        # What no report wrote is not replaced.
        write(os.path.join(report, "notes.txt"), "mine")
        self.assert_clear(self.fidelity("-c", config, "-o", report, "--force"), USAGE, "notes.txt", "--output")
        self.assertEqual(sorted(os.listdir(report)), sorted(REPORT_FILES + ["notes.txt"]))
        self.assert_clear(self.fidelity("-c", config, "-o", config), USAGE, "eval.json", "is a file")
        self.assertEqual([name for name in os.listdir(self.folder) if ".tmp-" in name or ".old-" in name], [])

    def test_interrupted_fidelity_leaves_no_report(self):
        config = self.fidelity_config(methods=["full", "sliding"], segments=100, length=1000, chunk=1)
        process = self.start("focus-eval", "fidelity", "-q", "-c", config, "-o", self.path("report"))
        self.wait_until(process, lambda: any(name.startswith("report.tmp-") for name in os.listdir(self.folder)))
        done = self.interrupt(process)
        self.assert_clear(done, INTERRUPTED, "interrupted", "no report")
        self.assertEqual(done.stdout, "")
        self.assert_no_report()

    def test_calibrate_makes_a_plan_that_every_program_takes(self):
        plan = self.path("plan")
        done = self.calibrate("-c", self.calibrate_config(), "--min-r", "0.5", "-o", plan)
        lines = self.assert_ok(done).splitlines()
        self.assertEqual(lines[-1], os.path.join(plan, "memory.json"))
        self.assertEqual(sorted(os.listdir(plan)), ["adapter.safetensors", "blocks.tsv", "memory.json", "report.html", "summary.json", "summary.tsv"])
        summary = json.loads(read(os.path.join(plan, "summary.json")))
        self.assertEqual(shlex.split(summary["provenance"]["command_line"]), done.args)
        memory = json.loads(read(os.path.join(plan, "memory.json")))
        self.assertEqual(summary["plan"]["memory"], memory)
        chosen = [[m["name"] for m in block["memories"] if m["chosen"]] for block in summary["blocks"]]
        self.assertEqual([len(names) for names in chosen], [1] * len(chosen))
        self.assertGreaterEqual(summary["plan"]["choosing"]["plan"]["recovered"], 0.5)
        table = self.assert_ok(self.fidelity("-c", self.fidelity_config(window={}, focus={}, methods=["focus"]), "--adapter", plan, "-o", self.path("report")))
        self.assertRegex(table, r"(?m)^focus ")
        self.assert_ok(self.score(self.genome(), "--adapter", plan))
        config = self.train_config(task="adapter", model_config=self.config, model_checkpoint=self.checkpoint, stages=[{"length": 100, "steps": 1}])
        train = ["-q", "-c", config, "--memory-config", os.path.join(plan, "memory.json")]
        self.assertEqual(json.loads(self.assert_ok(self.train(*train, "--dry-run")).split("\n}\n")[0] + "\n}")["focus"], memory["focus"])
        self.assert_clear(self.train(*train, "-o", plan, "--force"), USAGE, "memory.json")
        unknown = write(self.path("memory.json"), json.dumps({"foccus": {}}))
        self.assert_clear(self.train("-c", config, "--memory-config", unknown, "-o", self.path("run")), USAGE, "memory.json", "foccus")

    def test_calibrate_refuses_base_memory_and_bad_input(self):
        config = self.calibrate_config(largest_residual=0, memories=["tables", "full"])
        self.assertRegex(self.assert_ok(self.calibrate("-c", config, "-o", self.path("plan"))), r"(?m) tables .*refused: letters leave a score uncertain")
        memory = json.loads(read(self.path("plan", "memory.json")))
        self.assertNotIn("tables", [memory["memory"]["kind"]] + [part["memory"] for part in memory["focus"]["schedule"]])
        self.assert_clear(self.calibrate("-c", config, "-o", self.path("plan")), USAGE, "plan", "--force")
        self.assert_ok(self.calibrate("-c", config, "--seed", "7", "-o", self.path("plan"), "--force"))
        report = ["-o", self.path("report")]
        self.assert_clear(self.calibrate("-c", config), USAGE, "--output")
        self.assert_clear(self.calibrate("-c", self.calibrate_config(data={}, tables={}, memories=["tables"]), *report), USAGE, "data.sources")
        self.assert_clear(self.calibrate("-c", self.calibrate_config(memories=["tables", "fited"]), *report), USAGE, "fited", "did you mean 'fitted'")
        self.assert_clear(self.calibrate("-c", self.calibrate_config(), "--max-bytes", "10", *report), USAGE, "goal.max_bytes", "10 B")
        self.assert_clear(self.calibrate("-c", self.calibrate_config(), "--min-r", "2", *report), USAGE, "--min-r")
        self.assert_clear(self.calibrate("-c", self.calibrate_config(length=30), *report), USAGE, "length", "window of 32")
        # An adapter alone may be a training's result.
        os.mkdir(self.path("trained"))
        write(self.path("trained", "adapter.safetensors"), "mine")
        self.assert_clear(self.calibrate("-c", self.calibrate_config(), "-o", self.path("trained"), "--force"), USAGE, "adapter.safetensors", "no report wrote")
        self.assertEqual(read(self.path("trained", "adapter.safetensors")), b"mine")
        self.assert_no_report()

    def test_interrupted_calibration_leaves_no_report(self):
        config = self.calibrate_config(segments=100, length=1000, chunk=1, fasta=self.genome([("one", bases(300000))]))
        process = self.start("focus-eval", "calibrate", "-q", "-c", config, "-o", self.path("report"))
        self.wait_until(process, lambda: any(name.startswith("report.tmp-") for name in os.listdir(self.folder)))
        self.assert_clear(self.interrupt(process), INTERRUPTED, "interrupted", "no report")
        self.assert_no_report()

    def table_script(self, *args):
        return subprocess.run([sys.executable, os.path.join(SOURCE, "scripts", "fidelity_table.py"), *args], capture_output=True, text=True, cwd=self.folder)

    def test_one_table_of_several_runs(self):
        self.assert_ok(self.fidelity("-c", self.fidelity_config(methods=["state_only", "sliding"]), "-o", self.path("a")))
        self.assert_ok(self.fidelity("-c", self.fidelity_config(methods=["state_only", "strided"]), "-o", self.path("b")))
        rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in self.assert_ok(self.table_script("a", "Every n-th=b:strided")).splitlines()]
        self.assertEqual([row[0] for row in rows], ["method", "---", "full", "state_only", "sliding", "Every n-th"])
        self.assertEqual({len(row) for row in rows}, {6})
        self.assertEqual((rows[3][1], rows[3][5]), ("0 B", "0.0 % [0, 0]"))
        recall = [[cell.strip() for cell in row.split("|")[1:-1]] for row in self.assert_ok(self.table_script("--positions", "40-90", "a")).splitlines()]
        self.assertEqual([row[0] for row in recall], ["method", "---", "full", "state_only", "sliding"])
        self.assertEqual([row[3] for row in recall[2:4]], ["100.0 %", "0.0 %"])
        self.assert_ok(self.fidelity("-c", self.fidelity_config(methods=["state_only"]), "--seed", "7", "-o", self.path("c")))
        for args, mention in ((("a", "c"), "other segments"), (("none",), "finished fidelity run"), (("x=a",), "'focus'"), (("--positions", "90", "a"), "FIRST-LAST")):
            done = self.table_script(*args)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(mention, done.stderr)

    def report(self, *args):
        return self.run_program("focus-eval", "report", "-q", *args)

    def test_several_runs_on_one_page(self):
        needles = {"size": 4, "questions": 2}
        self.assert_ok(self.fidelity("-c", self.fidelity_config(methods=["state_only", "fitted"], needles=needles), "-o", self.path("a")))
        self.assert_ok(self.fidelity("-c", self.fidelity_config(methods=["sliding"], needles=needles), "-o", self.path("b")))
        said = self.assert_ok(self.report("a", "sliding=b", "-o", "page"))
        self.assertNotIn("different segments", said)
        rows = [dict(zip(self.table(self.path("page"), "sweep.tsv")[0], row)) for row in self.table(self.path("page"), "sweep.tsv")[1:]]
        self.assertEqual([(row["run"], row["method"]) for row in rows], [("a", "full"), ("a", "state_only"), ("a", "fitted"), ("sliding", "full"), ("sliding", "sliding")])
        self.assertEqual({row["folder"] for row in rows}, {"../a", "../b"})
        self.assertEqual(rows[0]["kl"], "0")
        self.assertIn(b'"title":"Runs"', read(self.path("page", "sweep.html")))
        self.assert_clear(self.report("a", "-o", "page"), USAGE, "page", "--force")
        self.assert_ok(self.report("a", "-o", "page", "--force"))
        self.assert_ok(self.fidelity("-c", self.fidelity_config(methods=["sliding"]), "--seed", "7", "-o", self.path("c")))
        self.assertIn("different segments", self.assert_ok(self.report("a", "c", "-o", "other")))
        self.assert_clear(self.report("a", "a", "-o", "twice"), USAGE, "two runs", "NAME=FOLDER")
        self.assert_clear(self.report("a"), USAGE, "--output", "--kvpress")
        self.assert_clear(self.report("none", "-o", "x"), DATA, "none", "summary.json")

        # The answers as kvpress writes them.
        self.assert_ok(self.report("a", "--kvpress", "press"))
        self.assertEqual(sorted(os.listdir(self.path("press"))), ["fitted", "full", "state_only"])
        with open(self.path("press", "fitted", "predictions.csv"), newline="") as file:
            predictions = list(csv.DictReader(file))
        answers = [row for row in self.table(self.path("a"), "answers.tsv")[1:] if row[0] == "fitted"]
        self.assertEqual([(row["question"], row["answer"], row["predicted_answer"]) for row in predictions], [tuple(row[4:]) for row in answers])
        self.assertEqual(len(predictions), 4)
        metrics = json.loads(read(self.path("press", "fitted", "metrics.json")))
        self.assertAlmostEqual(metrics["exact_match"]["mean"], sum(row["answer"] == row["predicted_answer"] for row in predictions) / 4)
        settings = dict(line.split(": ", 1) for line in read(self.path("press", "state_only", "config.yaml")).decode().splitlines())
        self.assertEqual((settings["press_name"], settings["compression_ratio"], settings["query_aware"]), ('"state_only"', "1.0", "false"))
        self.assertEqual(json.loads(settings["focus"])["length"], 100)
        self.assert_clear(self.report("c", "--kvpress", "x"), DATA, "answers.tsv", "needles.size")
        self.assert_clear(self.report("a", "b", "--kvpress", "x"), USAGE, "--kvpress", "one run")

    # Several ranks.

    def ranks(self, count, *args, **options):
        return self.finish(self.start_ranks(count, "focus-eval", "fidelity", "-q", *args, **options))

    def table(self, report, name):
        with open(os.path.join(report, name)) as file:
            return list(csv.reader((line for line in file if not line.startswith("##")), delimiter="\t"))

    def test_ranks_measure_what_one_process_does(self):
        with_n = bases(2000).replace("A", "N", 20)  # positions that nobody measures
        config = self.fidelity_config(segments=5, methods=["state_only", "sliding", "fitted"], fasta=self.genome([("one", with_n)]), needles={"size": 4, "questions": 2})
        self.assert_ok(self.fidelity("-c", config, "-o", self.path("one")))
        for count in (2, 3):
            report = self.path(f"of_{count}")
            done = self.ranks(count, "-c", config, "--set", "positions=true", "-o", report)
            tables = [self.assert_ok(each) for each in done]
            self.assertIn(os.path.join(report, "report.html"), tables[0])
            self.assertEqual(tables[1:], [""] * (count - 1))
            self.assertEqual(sorted(os.listdir(report)), sorted(REPORT_FILES + ["needles.tsv", "answers.tsv", "values.h5"]))
            for name in ("summary.tsv", "segments.tsv", "by_position.tsv", "by_offset.tsv", "needles.tsv", "answers.tsv"):
                self.assertEqual(self.table(report, name), self.table(self.path("one"), name), name)

    def test_more_ranks_than_segments(self):
        config = self.fidelity_config(segments=1, methods=["state_only"])
        done = self.ranks(2, "-c", config, "-o", self.path("report"))
        for each in done:
            self.assert_ok(each)
        self.assertIn("2 ranks share 1 segment(s)", done[0].stderr)

    def test_ranks_that_measure_different_things(self):
        for done in self.ranks(2, "-c", self.fidelity_config(), "-o", self.path("report"), more={1: ["--seed", "7"]}):
            self.assert_clear(done, USAGE, "1 of 2 ranks", "another settings")
        self.assert_no_report()

    def test_ranks_end_when_the_report_cannot_be_written(self):
        os.mkdir(self.path("report"))
        write(self.path("report", "notes.txt"), "mine")
        began = time.monotonic()
        done = self.ranks(2, "-c", self.fidelity_config(), "-o", self.path("report"))
        self.assert_clear(done[0], USAGE, "report", "not empty")
        self.assert_clear(done[1], RESOURCES, "rank 1 of 2", "No report was written")
        self.assertLess(time.monotonic() - began, 60)

    def test_a_dead_rank_ends_the_evaluation(self):
        config = self.fidelity_config(methods=["full", "sliding"], segments=200, length=200, chunk=1)
        processes = self.start_ranks(2, "focus-eval", "fidelity", "-q", "-c", config, "-o", self.path("report"))
        self.wait_until(processes[0], lambda: any(".tmp-" in name for name in os.listdir(self.folder)))
        processes[1].kill()
        done = self.finish(processes)[0]
        self.assert_clear(done, RESOURCES, "rank 0 of 2", "No report was written")
        self.assert_no_report()


if __name__ == "__main__":
    sys.exit(main(EvalTest))
