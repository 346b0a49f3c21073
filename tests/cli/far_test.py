"""Far memory in a file: what is left of it when a disk is full, a folder is missing, or a process is killed.

How to run: support.py.
"""

import os
import signal

from support import USAGE, DATA, MODEL, bases, read, ProgramTest, main

REPEATED = bases(150, seed=5)
RECORDS = [("one", REPEATED + bases(200, seed=6) + REPEATED)]
SMALL_AND_LARGE = [("small", bases(100, seed=7)), ("large", bases(20000, seed=8))]  # for a disk of 64 KiB


class FarTest(ProgramTest):
    def setUp(self):
        super().setUp()
        self.room = self.path("room")
        os.mkdir(self.room)

    def far(self, folder=None, *args):
        """Options of score: windows of 64 bases, in a file if a folder is given."""
        place = ["--set", "far.place=file", "--set", f"far.folder={folder}"] if folder else []
        return ["--memory", "far_state_only", "--window", "64", "-k", "16", *place, *args]

    def likelihoods(self, path):
        return [line.split("\t")[:7] for line in read(path).decode().splitlines() if not line.startswith("#")]

    def scored(self, *args, records=None):
        """The rows of a run that succeeds."""
        self.assert_ok(self.score(self.genome(records or RECORDS), *args, "-o", self.path("scored.tsv")))
        rows = self.likelihoods(self.path("scored.tsv"))
        os.remove(self.path("scored.tsv"))
        return rows

    def test_a_file_changes_nothing(self):
        expected = self.scored(*self.far())
        self.assertNotEqual(expected, self.scored("--memory", "state_only", "--window", "64", "-k", "16"))
        self.assertEqual(self.scored(*self.far(self.room)), expected)
        self.assertEqual(os.listdir(self.room), [])

    def test_full_disk(self):
        disk, table = self.full_folder(), self.path("table.tsv")
        genome = self.genome(SMALL_AND_LARGE)
        for _ in range(2):
            done = self.score(genome, *self.far(disk), "-o", table, "--resume")
            self.assert_clear(done, DATA, "far.folder", disk, "No space left", "far.keep")
            self.assertEqual(os.listdir(disk), [])
            self.assertEqual([row[0] for row in self.likelihoods(table + ".part")], ["small"])
            free = os.statvfs(disk)
            self.assertEqual(free.f_bfree, free.f_blocks)
        self.assert_ok(self.score(genome, *self.far(self.room), "-o", table, "--resume"))
        self.assertEqual(self.likelihoods(table), self.scored(*self.far(), records=SMALL_AND_LARGE))

    def test_a_killed_process_leaves_nothing(self):
        genome, table = self.genome([("long", bases(20000))]), self.path("table.tsv")
        command = ["score", "--model-config", self.config, "--checkpoint", self.checkpoint, "--fasta", genome, "-q", "-t", "1"]
        process = self.start("focus-infer", *command, *self.far(self.room, "--chunk", "16", "-o", table))

        def stored():
            folder = f"/proc/{process.pid}/fd"
            for name in os.listdir(folder):
                try:
                    if os.readlink(f"{folder}/{name}").startswith(self.room) and os.stat(f"{folder}/{name}").st_size > 100000:
                        return True
                except OSError:
                    pass
            return False

        self.wait_until(process, stored)
        self.assertEqual(os.listdir(self.room), [])
        process.kill()
        self.assertEqual(self.finish([process])[0].returncode, -signal.SIGKILL)
        self.assertEqual(os.listdir(self.room), [])
        self.assertEqual(self.scored(*self.far(self.room)), self.scored(*self.far()))

    def test_folders_that_cannot_be_used(self):
        closed = self.path("closed")
        os.mkdir(closed)
        genome = self.genome()
        os.chmod(closed, 0o555)
        options = self.as_nobody()
        os.chmod(self.folder, 0o755)
        for folder, why in ((self.path("nowhere"), "No such file"), (genome, "Not a directory"), (closed, "denied")):
            self.assert_clear(self.score(genome, *self.far(folder), **options), DATA, f"far.folder '{folder}'", why)
        self.assertEqual(os.listdir(closed), [])

    def test_two_processes_in_one_folder(self):
        command = ["score", "--model-config", self.config, "--checkpoint", self.checkpoint, "-q", "-t", "1", *self.far(self.room)]
        os.rename(self.genome(RECORDS), self.path("first.fa"))
        genomes = [self.path("first.fa"), self.genome([("other", bases(500, seed=9) * 2)])]
        alone = []
        for genome in genomes:
            self.assert_ok(self.score(genome, *self.far(), "-o", self.path("alone.tsv")))
            alone.append(self.likelihoods(self.path("alone.tsv")))
        started = [self.start("focus-infer", *command, "--fasta", genome, "-o", self.path(f"{i}.tsv")) for i, genome in enumerate(genomes)]
        for done in self.finish(started):
            self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual([self.likelihoods(self.path(f"{i}.tsv")) for i in range(2)], alone)

    def test_saved_streams_have_a_copy(self):
        genome, state = self.genome(RECORDS), self.path("state.safetensors")
        length = len(RECORDS[0][1])
        self.assert_ok(self.score(genome, *self.far(self.room, "-r", "one:1-300", "--save-state", state)))
        rest = ["-r", f"one:301-{length}", "--load-state", state]
        self.assertEqual(self.scored(*self.far(None, *rest)), self.scored(*self.far(self.room, *rest)))
        self.assertEqual(os.listdir(self.room), [])
        self.assert_clear(self.score(genome, *self.far(None, *rest, "--set", "far.refresh=4")), MODEL, "far.refresh")

    def test_settings_without_effect(self):
        genome = self.genome()
        self.assert_clear(self.score(genome, "--memory", "fitted", "--set", "far.place=file"), USAGE, "--set far.place=file", "far_")
        self.assert_clear(self.score(genome, *self.far(None, "--set", "far.folder=/tmp")), USAGE, "far.folder", "far.place")
        self.assert_clear(self.score(genome, *self.far(None, "--set", "far.kmer=4")), USAGE, "far.kmer", "far.kmers")
        self.assert_clear(self.score(genome, *self.far(None, "--set", "window.size=8")), USAGE, "window")


if __name__ == "__main__":
    main(FarTest)
