"""What focus-infer makes of tandem repeats with the embedded model: no fitted memory is worse than keeping nothing. How to run: support.py."""

import os
import random
import sys

from support import SOURCE, ProgramTest, fasta, main, write

FITTED = ["fitted", "adaptive", "heavy_fitted", "multires", "window_mass"]
TOLERANCE = 0.01  # nats per base: rounding is far below, the harm that was done far above (0.1 to 0.4)


def repeat(unit, length, errors=0.0, seed=1):
    rng = random.Random(f"{seed}/{unit}/{errors}")
    letters = unit if isinstance(unit, str) else "".join(rng.choice("ACGT") for _ in range(unit))
    copies = (letters * (length // len(letters) + 1))[:length]
    return "".join(rng.choice("ACGT") if rng.random() < errors else base for base in copies)


class RepeatsTest(ProgramTest):
    def means(self, fasta_file, memory, *args):
        out = self.assert_ok(self.score(
            fasta_file, "--memory", memory, *args,
            config=os.path.join(SOURCE, "configs", "models", "focus-small.yml"),
            checkpoint=os.path.join(SOURCE, "data", "model", "focus-small.pt")))
        header, *rows = [line.lstrip("#").split("\t") for line in out.splitlines() if not line.startswith("##")]
        return {row[0]: float(row[header.index("mean_log_likelihood_nats")]) for row in rows}

    def assert_not_worse_than_nothing(self, fasta_file, *args):
        nothing = self.means(fasta_file, "state_only", *args)
        for memory in FITTED:
            for name, mean in self.means(fasta_file, memory, *args).items():
                self.assertGreaterEqual(mean, nothing[name] - TOLERANCE, f"{memory} on {name}")
        return nothing

    def test_made_repeats(self):
        records = [("polyA", "A" * 2100), ("CAG", repeat("CAG", 2100)), ("unit5_errors10", repeat(5, 2100, 0.1)),
                   ("unit31_errors2", repeat(31, 2100, 0.02)), ("unit68", repeat(68, 2100)),
                   ("unit171", repeat(171, 3000)), ("unit171_errors10", repeat(171, 2100, 0.1)),
                   ("unit340", repeat(340, 2100)), ("unit1000", repeat(1000, 2100))]
        nothing = self.assert_not_worse_than_nothing(write(self.path("repeats.fa"), fasta(records)))
        # The records are repeats to the model, or the comparison would show nothing.
        self.assertGreater(nothing["CAG"], -0.2)
        self.assertGreater(nothing["unit171"], -0.6)

    def test_real_minisatellite(self):
        self.assert_not_worse_than_nothing(os.path.join(SOURCE, "data", "human_chr22_20-21M.fa.gz"), "-r", "22:20000001-21000000:708609-711680")


if __name__ == "__main__":
    sys.exit(main(RepeatsTest))
