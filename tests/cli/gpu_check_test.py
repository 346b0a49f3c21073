"""scripts/gpu_check.sh and the report that it writes, with stand-ins for the card, PyTorch and the packed programs.

How to run: support.py.
"""

import json
import os
import stat
import subprocess
import sys
import tarfile
import time

from support import SOURCE, ProgramTest, main, read, write

FIGURES = {"gemm_flop_per_s": 7e14, "bandwidth_bytes_per_s": 3e12, "prefill_bases_per_s": 41000.0, "check.chunks": 0.004, "check.devices": 0.006}


class GpuCheckTest(ProgramTest):
    def setUp(self):
        super().setUp()
        # A tree of its own, so that no pack of the real one is touched.
        for folder in ("tree/scripts", "tree/.gpu", "tree/tests/cli", "pack/bin", "pack/lib", "tools", "site/torch/lib"):
            os.makedirs(self.path(folder))
        for name in ("gpu_check.sh", "gpu_check.py", "common.sh"):
            write(self.path("tree/scripts", name), read(os.path.join(SOURCE, "scripts", name)))
        write(self.path("tree/tests/cli/card_test.py"), "")
        write(self.path("site/torch/__init__.py"), "")
        write(self.path("pack/commit"), "0123456789abcdef\n")
        for name in ("test_kernels_cuda", "test_ops", "test_device", "focus-train"):
            self.program("pack/bin", name, "echo ran $0")
        self.program("pack/bin", "focus-model", f"case $1 in bench) sleep 0.4; echo '[12:00:00] info a message'; echo '{json.dumps(FIGURES)}';; "
                                                "plan) echo '{\"plans\": [{\"bases_per_second\": 50000.0}]}';; *) echo $1;; esac")

    def program(self, folder, name, body):
        path = write(self.path(folder, name), f"#!/bin/sh\n{body}\n")
        os.chmod(path, 0o755)

    def card(self):
        self.program("tools", "nvidia-smi", "case \"$*\" in *-lms*) while echo 1234; do sleep 0.1; done;; *) echo 'A card, 580.1, 81559 MiB';; esac")

    def check(self, *args):
        with tarfile.open(self.path("tree/.gpu/focus.tar.xz"), "w:xz", preset=0) as archive:
            archive.add(self.path("pack"), arcname=".")
        path = self.path("tools") + ":" + os.path.dirname(sys.executable) + ":/usr/bin:/bin"
        done = subprocess.run(["bash", self.path("tree/scripts/gpu_check.sh"), "--run", "--out", self.path("out"), *args], capture_output=True, text=True,
                              env={"PATH": path, "PYTHONPATH": self.path("site"), "HOME": self.folder}, timeout=120)
        report = json.loads(read(self.path("out/report.json"))) if os.path.exists(self.path("out/report.json")) else None
        return done, report

    def results(self, report):
        return {step["title"]: step["result"] for step in report["steps"]}

    def test_without_a_card_it_says_so(self):
        done, report = self.check()
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn("no card", done.stdout)
        self.assertEqual(report["facts"]["card"], "a machine without a card")
        self.assertEqual(self.results(report), {name: "passed" for name in ("doctor", "test_kernels_cuda", "test_ops", "test_device")})
        self.assertIn("# focus on a machine without a card", read(self.path("out/report.md")).decode())

    def test_report_of_a_card(self):
        self.card()
        done, report = self.check()
        self.assertEqual(done.returncode, 1, done.stdout)  # the stand-in for focus-train writes no log
        self.assertEqual(report["facts"]["card"], "A card, 580.1, 81559 MiB")
        self.assertEqual(report["facts"]["commit"], "0123456789abcdef")
        self.assertEqual((report["facts"]["gemm_tflops"], report["facts"]["copy_tbps"]), (700.0, 3.0))
        first = next(step for step in report["steps"] if step["title"].startswith("prefill and decode at 8k"))
        self.assertEqual(first["figures"]["prefill_bases_per_s"], 41000.0)
        self.assertEqual(first["figures"]["prefill_at_best_bases_per_s"], 50000.0)
        self.assertEqual(first["peak_MiB"], 1234)
        # Tests come before figures.
        titles = [step["title"] for step in report["steps"]]
        self.assertLess(titles.index("recordings, executions, training"), titles.index(first["title"]))
        failed = [title for title, result in self.results(report).items() if result == "FAILED"]
        self.assertTrue(failed and all(title.startswith("adapter training") for title in failed), failed)

    def test_failures_are_told(self):
        self.card()
        self.program("pack/bin", "test_ops", "echo one is wrong; exit 1")
        self.program("pack/bin", "focus-model", f"[ $1 != bench ] || echo '{json.dumps({**FIGURES, 'check.devices': 0.5})}'")
        done, report = self.check()
        self.assertEqual(done.returncode, 1)
        self.assertEqual(self.results(report)["ops"], "FAILED")
        self.assertIn("one is wrong", read(self.path("out/report.md")).decode())
        first = next(step for step in report["steps"] if step["title"].startswith("prefill and decode at 8k"))
        self.assertEqual(first["result"], "FAILED")
        self.assertIn("check.devices", first["wrong"])

    def test_it_ends_in_time(self):
        self.card()
        self.program("pack/bin", "test_device", "sleep 300")
        begin = time.monotonic()
        done, report = self.check("--minutes", "0.4")
        self.assertLess(time.monotonic() - begin, 25)
        results = self.results(report)
        self.assertEqual(results["kernels against fp64"], "passed")
        self.assertIn(results["recordings, executions, training"], ("out of time", "no time left"))
        self.assertIn("no time left", results.values())
        self.assertTrue(os.stat(self.path("out/report.md")).st_mode & stat.S_IRUSR)

    def test_without_a_pack(self):
        done = subprocess.run(["bash", self.path("tree/scripts/gpu_check.sh"), "--run"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 1)
        self.assertIn("--pack", done.stderr)


if __name__ == "__main__":
    sys.exit(main(GpuCheckTest))
