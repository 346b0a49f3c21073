"""The installed library serves a program outside this tree, and the installed programs run.

How to run: support.py.
"""

import os
import subprocess
import sys

from support import BIN, SOURCE, ProgramTest, bases, fasta, main, write


class InstallTest(ProgramTest):
    def call(self, *command, **options):
        done = subprocess.run(command, capture_output=True, text=True, timeout=500, **options)
        self.assertEqual(done.returncode, 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}")
        return done.stdout

    def test_the_example_against_the_installed_library(self):
        prefix, build = self.path("prefix"), self.path("build")
        self.call("cmake", "--install", os.path.dirname(BIN), "--prefix", prefix)
        example = os.path.join(SOURCE, "examples", "score_with_focus")
        self.call("cmake", "-S", example, "-B", build, f"-DCMAKE_PREFIX_PATH={prefix}", "-DCMAKE_BUILD_TYPE=Release")
        self.call("cmake", "--build", build)

        genome = write(self.path("genome.fa"), fasta([("one", bases(3000)), ("two", bases(2000, seed=2))]))
        config = os.path.join(SOURCE, "configs", "models", "focus-small.yml")
        checkpoint = os.path.join(SOURCE, "data", "model", "focus-small.pt")
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        shown = self.call(os.path.join(build, "score_with_focus"), config, checkpoint, genome, env=environment)
        table = self.call(os.path.join(prefix, "bin", "focus-infer"), "score", "--model-config", config,
                          "--checkpoint", checkpoint, "--fasta", genome, "--memory", "fitted", "-q", "-t", "1")
        rows = [row.split("\t") for row in table.splitlines() if not row.startswith("#")]
        self.assertEqual(len(rows), 2)
        expected = [f"{row[0]}\t{float(row[6]):.6g} nats per base\t{row[10]} bytes kept for {row[3]} bases" for row in rows]
        self.assertEqual(shown.splitlines(), expected)


if __name__ == "__main__":
    sys.exit(main(InstallTest))
