"""What people's FASTA, BED and CSV files hold: the same sequence or the same error from every packing, nothing dropped in silence.

How to run: support.py.
"""

import gzip
import os
import re
import struct
import sys
import zlib

from support import DATA, USAGE, ProgramTest, bases, fasta, main, read, write


END_MARKER = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")


def bgzf(content, block=97, end=True):
    """BGZF in small blocks."""
    out = b""
    for at in range(0, len(content), block):
        part = content[at : at + block]
        packer = zlib.compressobj(wbits=-15)
        packed = packer.compress(part) + packer.flush()
        head = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x06\0BC\x02\0" + struct.pack("<H", len(packed) + 25)
        out += head + packed + struct.pack("<II", zlib.crc32(part), len(part))
    return out + (END_MARKER if end else b"")


class FilesTest(ProgramTest):
    A, B = bases(300), bases(130, seed=2)

    def rows(self, done):
        return [line.split("\t")[:9] for line in self.assert_ok(done).splitlines() if not line.startswith("#")]

    def packings(self, content):
        """Arguments of score, for each way of handing the bytes over: run with them and with these options."""
        content = content if isinstance(content, bytes) else content.encode()
        for name in ("x.fa", "x.fa.gz", "x.fa.bgz"):
            for ending in (".fai", ".gzi"):
                if os.path.exists(self.path(name + ending)):
                    os.remove(self.path(name + ending))
        yield self.score(write(self.path("x.fa"), content)), "plain"
        yield self.score(self.path("x.fa")), "plain, again"
        yield self.score(write(self.path("x.fa.gz"), gzip.compress(content))), "gzip"
        yield self.score(write(self.path("x.fa.bgz"), bgzf(content))), "BGZF"
        yield self.score(self.path("x.fa.bgz")), "BGZF, again"
        yield self.score("-", input=content, text=False), "standard input"

    def same_rows(self, content, wanted):
        for done, packing in self.packings(content):
            if isinstance(done.stdout, bytes):
                done.stdout, done.stderr = done.stdout.decode(), done.stderr.decode()
            self.assertEqual(self.rows(done), wanted, packing)

    def same_error(self, content, *mentions):
        said = set()
        for done, packing in self.packings(content):
            if isinstance(done.stdout, bytes):
                done.stdout, done.stderr = done.stdout.decode(), done.stderr.decode()
            self.assert_clear(done, DATA, *mentions)
            said.add(re.sub(r"\[[\d:]+\]|'[^']*x\.fa[^']*'|standard input", "", done.stderr))
        self.assertEqual(len(said), 1, said)

    def test_blanks_and_unequal_lines_are_the_sequence_they_hold(self):
        wanted = self.rows(self.score(self.genome([("a", self.A), ("b", self.B)])))

        def text(line):
            return "".join(f">{name} x\n" + "".join(line(i, part) for i, part in enumerate(re.findall(".{1,60}", sequence)))
                           for name, sequence in (("a", self.A), ("b", self.B)))

        tens = text(lambda i, part: " ".join(re.findall(".{1,10}", part)) + "\n")
        self.same_rows(tens, wanted)
        self.same_rows(text(lambda i, part: part[:7] + "\t" + part[7:] + " \r\n"), wanted)
        self.same_rows("\ufeff" + text(lambda i, part: part[: 31 + i] + "\n" + part[31 + i :] + "\n\n"), wanted)
        # By region, from the file: the place is counted in bases.
        packed = [write(self.path(name), content) for name, content in
                  (("r.fa", tens), ("r.fa.gz", gzip.compress(tens.encode())), ("r.fa.bgz", bgzf(tens.encode())))]
        for region in ("a:115-260", "b:2-130"):
            wanted = self.rows(self.score(self.genome([("a", self.A), ("b", self.B)]), "-r", region))
            for path in packed:
                done = self.score(path, "-r", region)
                self.assertEqual(self.rows(done), wanted, path)

    def test_bytes_that_are_no_letters_are_the_same_error(self):
        for byte, shown in ((b"\0", "byte 0"), (b"\xc2\xa0", "byte 194"), (b"q", "'q'")):  # more: tests/data/fasta_test.cpp
            content = fasta([("a", self.A)]).encode()
            self.same_error(content[:70] + byte + content[71:], "line 3", "column 7", "position 67", "'a'", shown)
        self.same_error(fasta([("a", self.A)]).replace("\n", "\r"), "line 1", "old Mac", "tr ")
        self.same_error("> a\nACGT\n", "line 1", "no name")
        listing = ">g\n" + "".join(f"{60 * i + 1:9} " + " ".join(re.findall(".{10}", self.A[60 * i : 60 * i + 60])) + "\n" for i in range(5))
        self.same_error(listing, "line 2", "column 9", "'1'", "GenBank")

    def test_protein(self):
        protein = write(self.path("protein.fa"), ">p1 x\nMKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQAPILSRVGDGTQDNLSG\n")
        mentions = ("protein.fa", "line 2", "'p1'", "'I'", "protein?")
        self.assert_clear(self.score(protein), DATA, *mentions)
        self.assert_clear(self.train("pack", "--fasta", protein, "-o", self.path("x.h5")), DATA, *mentions)
        self.assert_clear(self.fidelity("-c", self.fidelity_config(fasta=protein), "-o", self.path("report")), DATA, *mentions)
        self.assert_clear(self.train("-c", self.train_config(data={"sources": [{"fasta": protein}]}), "-o", self.path("run")), DATA, *mentions)
        jsonl = write(self.path("x.jsonl"), '{"text": "MKTAYLAKQR"}\n')
        self.assert_clear(self.train("pack", "--jsonl", jsonl, "-o", self.path("x.h5")), DATA, "'L'", "position 6")
        # One that happens to hold letters of the code only.
        likely = write(self.path("likely.fa"), fasta([("ok", self.A), ("p2", "MKTAYVAKRGWSTRHNDCAV" * 4)]))
        for done in (self.score(likely), self.score("-", input=read(likely).decode()),
                     self.train("pack", "-q", "--fasta", likely, "-o", self.path("x.h5")),
                     self.fidelity("-c", self.fidelity_config(fasta=likely, length=70, max_n_fraction=1), "-o", self.path("report"))):
            self.assert_ok(done)
            self.assertRegex(done.stderr, r"% of the letters of 'p2' are ambiguity codes")
        self.assertEqual(self.score(self.genome()).stderr, "")

    def test_index_that_does_not_fit(self):
        genome = write(self.path("x.fa"), fasta([("a", self.A), ("b", bases(300, seed=3))]))
        wanted = self.rows(self.score(genome))
        right = read(genome + ".fai").decode()
        one, two = right.splitlines(True)
        for wrong in (two + one, one, one.replace("a", "b") + two.replace("b", "a"), right + two.replace("b", "phantom"), "nothing"):
            write(genome + ".fai", wrong)
            done = self.score(genome)
            self.assertEqual(self.rows(done), wanted)
            self.assertIn("built again", done.stderr)
            self.assertEqual(read(genome + ".fai").decode(), right)
            self.assertNotIn("built again", self.score(genome).stderr)
        packed = write(self.path("x.fa.gz"), bgzf(read(genome)))
        self.assertEqual(self.rows(self.score(packed)), wanted)
        right = read(packed + ".gzi")
        wanted = self.rows(self.score(genome, "-r", "b:100-250"))
        for wrong in (bytes(8), b"\xff" * 8, right[:-5]):
            write(packed + ".gzi", wrong)
            self.assertEqual(self.rows(self.score(packed, "-r", "b:100-250")), wanted)
            self.assertEqual(read(packed + ".gzi"), right)

    def test_bgzf_that_was_cut_short(self):
        content = fasta([("a", self.A), ("b", self.B)]).encode()
        whole = self.rows(self.score(write(self.path("x.fa"), content)))
        no_marker, cut = bgzf(content, end=False), bgzf(content[: 97 * 2], end=False)
        for packed in (no_marker, cut):
            path = write(self.path("x.fa.gz"), packed)
            train = self.train_config(data={"sources": [{"fasta": path}]}, stages=[{"length": 64, "steps": 1}])
            eval_config = self.fidelity_config(fasta=path, length=50, segments=1)
            for done in (self.score(path), self.score(path, "-r", "a:1-50"), self.score("-", input=packed, text=False),
                         self.train("pack", "--fasta", path, "-o", self.path("x.h5"), "-f"), self.train("-c", train, "-o", self.path("run")),
                         self.fidelity("-c", eval_config, "-o", self.path("report"), "-f")):
                if isinstance(done.stderr, bytes):
                    done.stdout, done.stderr = done.stdout.decode(), done.stderr.decode()
                self.assert_clear(done, DATA, "end-of-file marker", "cut short", "--allow-truncated")
            for options in ({}, {"text": False, "input": packed}):
                done = self.score("-" if options else path, "--allow-truncated", **options)
                if options:
                    done.stdout, done.stderr = done.stdout.decode(), done.stderr.decode()
                self.assertEqual(len(re.findall("cut short", done.stderr)), 1)
                rows = self.rows(done)
                self.assertEqual(rows, whole) if packed is no_marker else self.assertEqual([row[3] for row in rows], ["188"])
            self.assert_ok(self.train("pack", "--allow-truncated", "--fasta", path, "-o", self.path("x.h5"), "-f"))
            self.assert_ok(self.train("-c", train, "--set", "data.allow_truncated=true", "-o", self.path("run"), "--dry-run"))
            self.assert_ok(self.fidelity("-c", eval_config, "--set", "allow_truncated=true", "-o", self.path("report"), "-f"))
        middle = bgzf(content)[:-60]
        self.assert_clear(self.score(write(self.path("x.fa.gz"), middle)), DATA, "cut short")
        self.assert_clear(self.score(write(self.path("x.fa.gz"), gzip.compress(content)[:-20])), DATA, "x.fa.gz", "cut short")

    def test_pipe_as_a_file(self):
        genome = self.genome()
        reading, writing = os.pipe()
        os.write(writing, read(genome))
        os.close(writing)
        done = self.score(f"/dev/fd/{reading}", pass_fds=[reading])
        os.close(reading)
        self.assert_clear(done, DATA, "/dev/fd/", "pipe", "--fasta -")

    def bed(self, text, name="x.bed"):
        return write(self.path(name), text)

    def test_bed_positions(self):
        genome = self.genome([("one", bases(2000))])
        train = self.train_config(data={"sources": [{"fasta": genome}]})
        for value in ("1e+03", "1,000", "900bp", "1000.75", "-5", "+7", ""):
            bed = self.bed(f"#x\none\t0\t{value}\n")
            mentions = ("x.bed", "line 2", "column 3")
            self.assert_clear(self.score(genome, "-R", bed), DATA, *mentions)
            self.assert_clear(self.train("pack", "--fasta", genome, "--exclude", bed, "-o", self.path("x.h5")), DATA, *mentions)
            self.assert_clear(self.train("-c", train, "--set", f'data.exclude=["{bed}"]', "-o", self.path("run"), "--dry-run"), DATA, *mentions)
            self.assert_clear(self.fidelity("-c", self.fidelity_config(regions=[bed]), "-o", self.path("report")), DATA, *mentions)

    def test_records_called_like_browser_lines(self):
        genome = self.genome([("track1", bases(200)), ("browser_2", bases(150)), ("track", bases(120))])
        text = "browser position track1:1-9\ntrack name=x\ntrack1\t0\t100\nbrowser_2 10 60\ntrack\t0\t70\n"
        self.assertEqual([row[:3] for row in self.rows(self.score(genome, "-R", self.bed(text)))],
                         [["track1", "1", "100"], ["browser_2", "11", "60"], ["track", "1", "70"]])

    def test_strand_and_names_of_bed(self):
        opposite = str.maketrans("ACGT", "TGCA")
        genome = self.genome([("a", self.A)])
        turned = write(self.path("turned.fa"), fasta([("a", self.A.translate(opposite)[::-1])]))
        bed = self.bed("a\t0\t300\tgene 1\t0\t-\na\t0\t300\tgene2\t0\t+\na\t10\t50\n")

        def table(*args):
            done = self.score(genome, "-R", bed, *args)
            lines = self.assert_ok(done).splitlines()
            header = [line for line in lines if line.startswith("#name")][0]
            return done.stderr, header.split("\t")[12:], [line.split("\t") for line in lines if not line.startswith("#")]

        said, columns, forward = table()
        self.assertIn("1 of 3 regions", said)
        self.assertIn("--strand bed", said)
        self.assertEqual(columns, ["bed_name"])
        self.assertEqual([row[12:] for row in forward], [["gene 1"], ["gene2"], ["."]])
        said, columns, rows = table("--strand", "forward")
        self.assertEqual((said, rows), ("", forward))
        said, columns, rows = table("--strand", "bed", "--logits", self.path("x.safetensors"))
        self.assertEqual((said, columns), ("", ["bed_name", "strand"]))
        self.assertEqual([row[13] for row in rows], ["-", "+", "+"])
        self.assertEqual(rows[0][3:9], self.rows(self.score(turned))[0][3:9])
        self.assertEqual([row[:13] for row in rows[1:]], forward[1:])
        self.assert_clear(self.score(genome, "--strand", "bed"), USAGE, "--strand", "--bed")
        self.assert_clear(self.score(genome, "-R", self.bed("a\t0\t9\tx\t0\tminus\n"), "--strand", "bed"), DATA, "a:1-9", "strand")

    def test_csv_with_another_separator(self):
        for separator in (";", "\t", "|"):
            csv = write(self.path("x.csv"), f"sequence{separator}loss\nACGTACGTAACC{separator}1\n")
            done = self.run_program("focus-model", "selftest", "--model-config", self.config, "--checkpoint", self.checkpoint, "--sequences", csv)
            self.assert_clear(done, DATA, "x.csv", "line 2", "commas")

    def test_output_named_like_a_packed_file(self):
        genome = self.genome()
        for name in ("x.tsv.gz", "x.bgz", "x.tsv.zst"):
            self.assert_clear(self.score(genome, "-o", self.path(name)), USAGE, name, "promises a packed file")
        self.assert_clear(self.score(genome, "--logits", self.path("x.safetensors.gz")), USAGE, "x.safetensors.gz")
        self.assert_clear(self.train("pack", "--fasta", genome, "-o", self.path("x.h5.gz")), USAGE, "x.h5.gz")
        self.assertEqual([name for name in os.listdir(self.folder) if name.startswith("x.")], [])

    def test_records_too_short_to_be_drawn_are_counted(self):
        genome = self.genome([("long", bases(900))] + [(f"short{i}", bases(50, seed=i)) for i in range(3)])
        config = self.train_config(data={"sources": [{"fasta": genome}]}, stages=[{"length": 128, "steps": 2}])
        done = self.train("-c", config, "-o", self.path("run"))
        self.assert_ok(done)
        self.assertEqual(len(re.findall(r"3 of 4 records or regions, 150 bases, are shorter than 128 bases", done.stderr)), 1, done.stderr)


if __name__ == "__main__":
    sys.exit(main(FilesTest))
