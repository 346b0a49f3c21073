"""Training data from the command line: packing, drawing from every kind of source, and what is said about bad input."""

import gzip
import json
import os
import signal
import sys

from support import DATA, INTERRUPTED, USAGE, ProgramTest, bases, fasta, main, read, write


class DataTest(ProgramTest):
    def pack(self, *args, **options):
        return self.run_program("focus-train", "pack", *args, **options)

    def records(self):
        return fasta([("chr1", bases(20000)), ("chr2", bases(5000, seed=2).lower() + "NNRY" + bases(500, seed=3))])

    def losses(self, name, **changes):
        run = self.path(name)
        self.assert_ok(self.train("-q", "-c", self.train_config(**changes), "-o", run))
        return [json.loads(line)["loss"] for line in read(os.path.join(run, "metrics.jsonl")).splitlines()]

    def refused(self, data, code, *mentions):
        self.assert_clear(self.train("-c", self.train_config(data=data), "-o", self.path("run")), code, *mentions)
        self.assertFalse(os.path.exists(self.path("run")))

    def nothing_left(self, folder=None):
        self.assertEqual([name for name in os.listdir(folder or self.folder) if name.endswith(".h5") or ".tmp-" in name], [])

    def test_training_from_a_store_equals_training_from_its_source(self):
        plain = write(self.path("x.fa"), self.records())
        packed = write(self.path("x.fa.gz"), gzip.compress(self.records().encode()))
        bed = write(self.path("held.bed"), "chr1\t3000\t9000\n")
        done = self.pack("--fasta", packed, "--exclude", bed, "-o", self.path("x.h5"))
        self.assert_ok(done)
        self.assertEqual(done.stdout, "")
        self.assertIn("19,504 bases in 3 stretch(es) of 2 record(s)", done.stderr)
        wanted = self.losses("plain", data={"sources": [{"fasta": plain}], "exclude": [bed]})
        self.assertEqual(self.losses("gzip", data={"sources": [{"fasta": packed}], "exclude": [bed]}), wanted)
        self.assertEqual(self.losses("hdf5", data={"sources": [{"hdf5": self.path("x.h5")}]}), wanted)
        self.assertEqual(self.losses("file", data={"sources": [{"hdf5": self.path("x.h5")}], "memory_mb": 0}), wanted)
        inputs = json.loads(read(self.path("hdf5", "provenance.json")))["starts"][0]["inputs"]
        self.assertIn(self.path("x.h5"), [entry["path"] for entry in inputs])

    def test_training_from_packed_documents(self):
        jsonl = write(self.path("x.jsonl"), "".join(json.dumps({"text": bases(100 + 31 * i, seed=i)}) + "\n" for i in range(20)))
        self.assert_ok(self.pack("--jsonl", jsonl, "-q", "-o", self.path("x.h5")))
        stages = [{"length": 64, "steps": 3}]
        self.assertEqual(self.losses("hdf5", data={"sources": [{"hdf5": self.path("x.h5")}]}, stages=stages),
                         self.losses("jsonl", data={"sources": [{"jsonl": jsonl}]}, stages=stages))

    def test_a_folder_is_a_source(self):
        os.mkdir(self.path("genome"))
        write(self.path("genome", "1.fa"), fasta([("chr1", bases(20000))]))
        write(self.path("genome", "2.fa.gz"), gzip.compress(fasta([("chr2", bases(5000, seed=2))]).encode()))
        write(self.path("genome", "README"), "not sequence")
        one = write(self.path("one.fa"), fasta([("chr1", bases(20000)), ("chr2", bases(5000, seed=2))]))
        wanted = self.losses("file", data={"sources": [{"fasta": one}]})
        self.assertEqual(self.losses("folder", data={"sources": [{"fasta": self.path("genome")}]}), wanted)
        inputs = json.loads(read(self.path("folder", "provenance.json")))["starts"][0]["inputs"]
        self.assertIn(self.path("genome", "2.fa.gz"), [entry["path"] for entry in inputs])
        self.assert_ok(self.pack("--fasta", self.path("genome"), "-q", "-o", self.path("x.h5")))
        self.assertEqual(self.losses("packed", data={"sources": [{"hdf5": self.path("x.h5")}]}), wanted)
        os.mkdir(self.path("lines"))
        for name, seed in (("a.jsonl", 1), ("b.jsonl", 2)):
            write(self.path("lines", name), "".join(json.dumps({"text": bases(100 + 31 * i, seed=seed * 10 + i)}) + "\n" for i in range(9)))
        stages = [{"length": 64, "steps": 3}]
        self.assert_ok(self.pack("--jsonl", self.path("lines"), "-q", "-o", self.path("y.h5")))
        self.assertEqual(self.losses("lines_packed", data={"sources": [{"hdf5": self.path("y.h5")}]}, stages=stages),
                         self.losses("lines_folder", data={"sources": [{"jsonl": self.path("lines")}]}, stages=stages))
        # A file of the folder cannot be held out while all of it is trained on.
        self.refused({"sources": [{"fasta": self.path("genome")}], "exclude": ["three"]}, DATA, "three")
        held = {"data": {"sources": [{"fasta": self.path("genome", "1.fa")}]}, "every": 2, "sequences": 1, "length": 64}
        self.assert_clear(self.train("-c", self.train_config(data={"sources": [{"fasta": self.path("genome")}]}, validation=held), "-o", self.path("run")), DATA, "both draw from", "1.fa")

    def test_pack_usage(self):
        out = ["-o", self.path("x.h5")]
        self.assertIn("--exclude", self.assert_ok(self.pack("--help")))
        self.assert_clear(self.pack(*out), USAGE, "--fasta", "--jsonl")
        self.assert_clear(self.pack("--fasta", self.genome()), USAGE, "--output")
        self.assert_clear(self.run_program("focus-train", "--seed", "3", "pack", "--fasta", self.genome(), *out), USAGE, "--seed", "pack")
        jsonl = write(self.path("x.jsonl"), '{"text": "ACGT"}\n')
        self.assert_clear(self.pack("--fasta", self.genome(), "--jsonl", jsonl, *out), USAGE, "genome.fa", "x.jsonl", "two stores")
        self.assert_clear(self.pack("--fasta", self.genome(), "-o", self.genome(), "-f"), USAGE, "genome.fa", "is the input")
        self.nothing_left()
        self.assert_ok(self.pack("--fasta", self.genome(), *out))
        before = read(self.path("x.h5"))
        self.assert_clear(self.pack("--fasta", self.genome(), "-r", "one", *out), USAGE, "x.h5", "--force")
        self.assertEqual(read(self.path("x.h5")), before)
        self.assert_ok(self.pack("--fasta", self.genome(), "-r", "one", *out, "--force"))
        self.assertNotEqual(read(self.path("x.h5")), before)

    def test_pack_of_bad_input(self):
        genome, out = self.genome(), ["-o", self.path("x.h5")]
        self.assert_clear(self.pack("--fasta", self.path("none.fa"), *out), DATA, "none.fa")
        self.assert_clear(self.pack("--jsonl", self.path("none.jsonl"), *out), DATA, "none.jsonl")
        os.mkdir(self.path("empty"))
        self.assert_clear(self.pack("--fasta", self.path("empty"), *out), DATA, "empty", "no FASTA file (.fa")
        self.assert_clear(self.pack("--jsonl", genome, *out), DATA, "line 1", "genome.fa", "not JSON")
        self.assert_clear(self.pack("--fasta", write(self.path("rna.fa"), ">r\nACGU\n"), *out), DATA, "position 4", "RNA")
        self.assert_clear(self.pack("--fasta", genome, "-r", "three", *out), DATA, "three", "genome.fa")
        self.assert_clear(self.pack("--fasta", genome, "--exclude", "ones", *out), DATA, "ones", "did you mean 'one'")
        self.assert_clear(self.pack("--fasta", genome, "--exclude", self.path("none.bed"), *out), DATA, "none.bed")
        for text, mention in (("", "no region"), ("one\t5\n", "line 1"), ("# x\nthree\t1\t2\n", "line 2"), ("one\t200\t301\n", "ends at 301"), ("one\t9\t9\n", "9..9")):
            bed = write(self.path("bad.bed"), text)
            self.assert_clear(self.pack("--fasta", genome, "--exclude", bed, *out), DATA, "bad.bed", mention)
            self.assert_clear(self.pack("--fasta", genome, "-r", bed, *out), DATA, "bad.bed", mention)
        self.assert_clear(self.pack("--fasta", genome, "--exclude", "one", "--exclude", "two", *out), DATA, "nothing", "cover all")
        cut = gzip.compress(self.records().encode())[:-100]
        self.assert_clear(self.pack("--fasta", write(self.path("cut.fa.gz"), cut), *out), DATA, "cut.fa.gz")
        self.assert_clear(self.pack("--fasta", genome, "-o", self.path("none", "x.h5")), DATA, "none/x.h5")
        self.assert_clear(self.pack("--fasta", genome, "-o", "/dev/null"), DATA, "/dev/null", "device")
        self.nothing_left()

    def test_training_from_bad_sources(self):
        genome, store = self.genome([("one", bases(3000)), ("two", bases(2000, seed=2))]), self.path("x.h5")
        self.refused({"sources": [{"hdf5": store}]}, DATA, "x.h5", "does not exist")
        self.refused({"sources": [{"hdf5": genome}]}, DATA, "genome.fa", "not an HDF5 file", "pack")
        self.refused({"sources": [{"fasta": genome, "hdf5": store}]}, USAGE, "sources.0", "exactly one")
        self.refused({"sources": [{}]}, USAGE, "sources.0", "exactly one")
        self.assert_ok(self.pack("--fasta", genome, "-r", "one", "-o", store))
        self.refused({"sources": [{"hdf5": store, "regions": ["two"]}]}, DATA, "region two:1-2000 was not packed", "x.h5")
        self.refused({"sources": [{"hdf5": store}], "exclude": ["three"]}, DATA, "three", "fits no source")
        self.refused({"sources": [{"hdf5": store}], "exclude": [write(self.path("three.bed"), "three\t0\t9\n")]}, DATA, "three", "no source holds")
        self.refused({"sources": [{"hdf5": store}], "exclude": [write(self.path("empty.bed"), "")]}, DATA, "empty.bed", "no region")
        self.refused({"sources": [{"hdf5": store, "regions": [write(self.path("past.bed"), "one\t0\t3001\n")]}]}, DATA, "past.bed", "3000 bases")
        whole = read(store)
        write(store, whole[: len(whole) // 2])
        self.refused({"sources": [{"hdf5": store}]}, DATA, "x.h5", "cut short")
        middle = whole.rfind(b"\x78\x5e", 0, len(whole))  # a packed chunk
        write(store, whole[: middle + 40] + bytes([whole[middle + 40] ^ 16]) + whole[middle + 41 :])
        self.refused({"sources": [{"hdf5": store}]}, DATA, "x.h5", "damaged")
        big = write(self.path("big.fa.gz"), gzip.compress(fasta([("big", bases(1100000))]).encode()))
        self.refused({"sources": [{"fasta": big}], "memory_mb": 1}, DATA, "big.fa.gz", "memory_mb", "focus-train pack", "bgzip")

    def test_hdf5_of_another_kind(self):
        store = self.path("x.h5")
        self.assert_ok(self.pack("--fasta", self.genome(), "-o", store))
        write(store, read(store).replace(b"focus token store", b"values of a table"))
        self.refused({"sources": [{"hdf5": store}]}, DATA, "x.h5", "no token store", "values of a table", "focus-train pack")

    def test_pack_on_a_full_disk(self):
        disk = self.full_folder()
        genome = self.genome([("one", bases(2000000))])
        done = self.pack("--fasta", genome, "-q", "-o", disk + "/x.h5")
        self.assert_clear(done, DATA, "x.h5", "disk full")
        self.assertEqual(os.listdir(disk), [])

    def test_interrupted_packing_leaves_nothing(self):
        genome = self.genome([("one", bases(200000) * 300)])
        process = self.start("focus-train", "pack", "--fasta", genome, "-q", "-o", self.path("x.h5"))

        def writing():
            return any(name.startswith("x.h5.tmp-") and os.path.getsize(self.path(name)) > 100000 for name in os.listdir(self.folder))

        self.wait_until(process, writing)
        self.assert_clear(self.interrupt(process, signal.SIGINT), INTERRUPTED, "interrupted while packing", "x.h5")
        self.nothing_left()


if __name__ == "__main__":
    sys.exit(main(DataTest))
