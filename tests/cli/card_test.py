"""The programs on a card, as a user runs them: what they score, train and measure there is what they do on the CPU.

How to run: support.py, with --bin the folder of programs linked with the emulated card or, in builds with CUDA, of the programs
themselves. FOCUS_TEST_CARD names the card for --device: hpu:0 is the emulated one.
"""

import json
import os
import sys

from support import SOURCE, bases, read, ProgramTest, main

CARD = os.environ.get("FOCUS_TEST_CARD", "cuda:0")
MODEL = ["--model-config", os.path.join(SOURCE, "configs/models/focus-small.yml"), "--checkpoint",
         os.path.join(SOURCE, "data/model/focus-small.pt")]


class CardTest(ProgramTest):
    def setUp(self):
        super().setUp()
        doctor = self.run_program("focus-infer", "score", *MODEL, "--fasta", self.genome([("one", "ACGT")]), "--device", CARD)
        if "no CUDA device" in doctor.stderr:
            self.skipTest(doctor.stderr.strip())

    def scores(self, genome, device, *args):
        done = self.run_program("focus-infer", "score", *MODEL, "--fasta", genome, "--device", device, "-q", *args)
        self.assert_ok(done)
        rows = [line.split("\t") for line in done.stdout.splitlines() if not line.startswith("#")]
        return [float(row[5]) for row in rows]

    def assert_alike(self, got, expected, relative):
        self.assertEqual(len(got), len(expected))
        self.assertGreater(len(got), 0)
        for a, b in zip(got, expected):
            self.assertLessEqual(abs(a - b), relative * abs(b), (got, expected))

    def test_scores_of_records_of_many_lengths(self):
        genome = self.genome([(f"r{n}", bases(n, seed=n)) for n in (2, 9, 64, 131, 300)])
        for memory in ([], ["--memory", "fitted", "--window", 64, "-k", 16]):
            self.assert_alike(self.scores(genome, CARD, *memory), self.scores(genome, "cpu", *memory), 1e-5)

    def test_scores_in_bf16(self):
        genome = self.genome([("one", bases(400))])
        # Each of the 400 terms moves by a few roundings of its logits to 8 bits, either way.
        self.assert_alike(self.scores(genome, CARD, "--dtype", "bf16"), self.scores(genome, "cpu", "--dtype", "bf16"), 2e-3)

    def test_chunks_and_a_saved_state_go_on_where_they_ended(self):
        genome = self.genome([("one", bases(500))])
        memory = ["--memory", "fitted", "--window", 100, "-k", 20]
        whole = self.scores(genome, CARD, *memory)[0]
        self.assert_alike(self.scores(genome, CARD, "--chunk", 7, *memory), [whole], 1e-5)
        state = self.path("state.safetensors")
        first = self.scores(genome, CARD, "-r", "one:1-333", "--save-state", state, *memory)[0]
        for device in (CARD, "cpu"):
            rest = self.scores(genome, device, "-r", "one:334-500", "--load-state", state, *memory)[0]
            self.assert_alike([first + rest], [whole], 1e-5)

    def test_training_writes_an_adapter_that_the_cpu_reads(self):
        losses = {}
        for device in ("cpu", CARD):
            output = self.path(device.replace(":", "_"))
            done = self.run_program("focus-train", "--config", os.path.join(SOURCE, "configs/quickstart_train.json"), "--device", device,
                                    "--set", 'stages=[{"length":600,"steps":2}]', "--set", "window.size=128",
                                    "--set", "focus.k=16", "--output", output, cwd=SOURCE)
            self.assert_ok(done)
            lines = [json.loads(line) for line in read(os.path.join(output, "metrics.jsonl")).splitlines()]
            losses[device] = [line["loss"] for line in lines if "loss" in line]
        self.assert_alike(losses[CARD], losses["cpu"], 1e-2)
        genome = self.genome([("one", bases(300))])
        adapter = ["--adapter", self.path(CARD.replace(":", "_"))]
        self.assert_alike(self.scores(genome, CARD, *adapter), self.scores(genome, "cpu", *adapter), 1e-5)

    def test_bench_compares_with_the_cpu(self):
        for memory in ([], ["--memory", "fitted", "--window", "64", "-k", "16"]):
            done = self.run_program("focus-model", "bench", *MODEL[:2], "--random-weights", "0", "--device", CARD, "--dtype", "fp32", "--prefill", "150", "--chunk", "64",
                                    "--decode", "5", "--repeats", "1", "--batch", "2", "--check", "150", "--blocks", "--json", *memory)
            figures = json.loads(self.assert_ok(done))
            # fp32 sums in another order.
            self.assertLess(figures["check.chunks"], 1e-4)
            self.assertLess(figures["check.devices"], 1e-4)
            for name in ("prefill_bases_per_s", "decode_bases_per_s", "peak_device", "block.hcl.mixer_flop_per_s"):
                self.assertGreater(figures[name], 0, name)

    def test_fidelity_of_methods(self):
        figures = {}
        for device in ("cpu", CARD):
            output = self.path("eval_" + device.replace(":", "_"))
            done = self.run_program("focus-eval", "fidelity", "--config", os.path.join(SOURCE, "configs/quickstart_eval.json"),
                                    "--device", device, "--set", "segments=1", "--set", "length=800", "--set", "window.size=128",
                                    "--set", "focus.k=16", "--set", 'methods=["state_only","fitted","sliding","quantised_int4"]',
                                    "--output", output, cwd=SOURCE)
            self.assert_ok(done)
            rows = [line.split("\t") for line in read(os.path.join(output, "summary.tsv")).decode().splitlines() if line[:2] != "##"]
            method, scope, measure, mean = (rows[0].index(name) for name in ("method", "scope", "measure", "mean"))
            figures[device] = {row[method]: float(row[mean]) for row in rows[1:] if row[scope] == "all" and row[measure] == "kl"}
        self.assertEqual(set(figures[CARD]), {"full", "state_only", "fitted", "sliding", "quantised_int4"})
        self.assertEqual(figures[CARD].keys(), figures["cpu"].keys())
        figures = {device: list(figures[device].values()) for device in figures}
        self.assert_alike(figures[CARD], figures["cpu"], 1e-2)


if __name__ == "__main__":
    sys.exit(main(CardTest))
