"""focus-model: what its subcommands say, write and refuse.

How to run: support.py.
"""

import gzip
import json
import os
import shutil
import struct
import sys
import zipfile

from support import CHECK, DATA, INTERRUPTED, MODEL, RESOURCES, SOURCE, USAGE, ProgramTest, bases, fasta, main, read, safetensors, write


def write_safetensors(path, tensors, metadata=None):
    """tensors: {name: (dtype, shape, bytes)}"""
    header, data = {"__metadata__": metadata} if metadata else {}, b""
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    return write(path, struct.pack("<Q", len(text)) + text + data)


class ModelTest(ProgramTest):
    def model(self, *args, **options):
        return self.run_program("focus-model", *args, **options)

    def facts(self, path, *args):
        return json.loads(self.assert_ok(self.model("inspect", path, "--json", "--digest", *args)))

    def list_of(self, facts):
        return [(t["name"], t["dtype"], t["shape"]) for t in facts["tensors"]]

    def assert_only(self, *names):
        self.assertEqual(sorted(os.listdir(self.folder)), sorted(names))

    def larger_config(self):
        """A shape whose checkpoint takes a second or so to write: 150 MB."""
        text = read(self.config).decode()
        for a, b in (("hidden_size: 64", "hidden_size: 1024"), ("num_filters: 64", "num_filters: 1024"), ("hcl_filter_groups: 64", "hcl_filter_groups: 1024"), ("inner_mlp_size: 172", "inner_mlp_size: 2048")):
            self.assertIn(a, text)
            text = text.replace(a, b)
        return write(self.path("larger.yml"), text)

    # inspect

    def test_inspect_text(self):
        text = self.assert_ok(self.model("inspect", self.checkpoint))
        for part in ("format       pt,", "89 tensors", "10 that are no tensors", "StripedHyena 2", "8 layers, hidden size 64, MLP 172, vocabulary 512, 4 heads of 16, rotary base 10000",
                     "hcs 0,4; hcm 1,5; hcl 2,6; attention 3,7", "hcs 4 groups of 7 taps; hcm 4 groups of 128 taps; hcl 16 modes", "parameters   438,520"):
            self.assertIn(part, text)
        # Layers of one layout share a row, unless every tensor is asked for.
        self.assertRegex(text, r"(?m)^blocks\.\{0-7\}\.mlp\.l1\.weight +BF16 +\[172, 64\] +8 +176,128$")
        self.assertRegex(text, r"(?m)^blocks\.\{0,4\}\.filter\.h +BF16 +\[4, 1, 7\] +2 +112$")
        whole = self.assert_ok(self.model("inspect", self.checkpoint, "--all"))
        self.assertRegex(whole, r"(?m)^blocks\.7\.mlp\.l1\.weight +BF16 +\[172, 64\] +1 +22,016$")
        self.assertNotIn("{", whole[whole.index("\ntensor") :])
        some = self.assert_ok(self.model("inspect", self.checkpoint, "--filter", "*.D"))
        self.assertEqual(len(some[some.index("\ntensor") :].splitlines()), 3)
        self.assert_clear(self.model("inspect", self.checkpoint, "--filter", "nothing*"), USAGE, "nothing*", "89")

    def test_inspect_json(self):
        facts = self.facts(self.checkpoint)
        self.assertEqual((facts["format"], facts["num_tensors"], facts["num_other_entries"], facts["file_bytes"]), ("pt", 89, 10, os.path.getsize(self.checkpoint)))
        self.assertEqual(len(facts["tensors"]), 89)
        self.assertEqual(sum(t["bytes"] for t in facts["tensors"]), facts["tensor_bytes"])
        self.assertEqual(facts["dtypes"]["F32"]["tensors"] + facts["dtypes"]["BF16"]["tensors"], 89)
        self.assertEqual(facts["model"]["blocks"], ["hcs", "hcm", "hcl", "attention"] * 2)
        self.assertRegex(facts["digest"], "^sha256:[0-9a-f]{64}$")
        without = json.loads(self.assert_ok(self.model("inspect", self.checkpoint, "--json", "-o", "-")))
        self.assertIsNone(without["digest"])
        self.assertEqual(without["fingerprint"], facts["fingerprint"])
        self.assert_ok(self.model("inspect", self.checkpoint, "--json", "-o", self.path("facts.json")))
        self.assertEqual(json.loads(read(self.path("facts.json"))), without)
        self.assert_clear(self.model("inspect", self.checkpoint, "-o", self.path("none", "facts.json")), DATA, "none/facts.json")

    def test_inspect_names_the_configs_that_fit(self):
        os.mkdir(self.path("configs"))
        text = read(self.config).decode()
        write(self.path("configs", "short.yml"), text)
        write(self.path("configs", "wide.yml"), text.replace("inner_mlp_size: 172", "inner_mlp_size: 176"))
        write(self.path("configs", "long.yml"), text.replace("max_seqlen: 32768", "max_seqlen: 1048576") + "use_interpolated_rotary_pos_emb: True\nrotary_emb_scaling_factor: 32\n")
        write(self.path("configs", "broken.yml"), "hidden_size: [\n")
        facts = self.facts(self.checkpoint, "--configs", self.path("configs"))
        self.assertEqual({c["file"]: c["fits"] for c in facts["configs"]}, {"short.yml": True, "long.yml": True, "wide.yml": False, "broken.yml": False})
        self.assertEqual([c["not_in_tensors"]["rotary_emb_scaling_factor"] for c in facts["configs"] if c["fits"]], ["32", "1"])
        shown = self.assert_ok(self.model("inspect", self.checkpoint, "--configs", self.path("configs")))
        self.assertRegex(shown, r"(?m)^fits         long\.yml  rotary_emb_scaling_factor 32  max_seqlen 1048576$")
        self.assertRegex(shown, r"(?m)^fits         short\.yml  rotary_emb_scaling_factor 1  max_seqlen 32768$")
        self.assertIn("the tensors do not tell these apart", shown)
        self.assertIn("broken.yml", shown)
        for name in ("short.yml", "long.yml"):
            os.remove(self.path("configs", name))
        shown = self.assert_ok(self.model("inspect", self.checkpoint, "--configs", self.path("configs")))
        self.assertIn("nearest      wide.yml: blocks.0.mlp.l1.weight: [172, 64] in the file, [176, 64] by the configuration", shown)
        self.assertIn("and 21 more differences", shown)
        self.assert_clear(self.model("inspect", self.checkpoint, "--configs", self.path("none")), DATA, "none")
        os.mkdir(self.path("empty"))
        self.assert_clear(self.model("inspect", self.checkpoint, "--configs", self.path("empty")), DATA, "empty", "*.yml")

    def test_inspect_finds_the_shipped_configs(self):
        for name in ("focus-small", "focus-deep"):
            facts = self.facts(os.path.join(SOURCE, "data", "model", name + ".pt"))
            self.assertEqual([c["file"] for c in facts["configs"] if c["fits"]], [name + ".yml"])
            self.assertEqual([c["error"] for c in facts["configs"] if "error" in c], [])

    def test_inspect_other_files(self):
        four = struct.pack("<f", 1.0)
        adapter = write_safetensors(self.path("adapter.safetensors"), {"layers.3.down": ("F32", [1], four)}, {"format": "focus-adapter-1", "memory": "{}", "backbone": "abc"})
        self.assertEqual(self.facts(adapter)["model"], {"kind": "focus_adapter"})
        self.assertIn("metadata     backbone: abc", self.assert_ok(self.model("inspect", adapter)))
        unknown = write_safetensors(self.path("unknown.safetensors"), {"a\x1b[31m": ("F32", [1], four)})
        self.assertEqual(self.facts(unknown)["model"], {"kind": "unknown"})
        self.assertNotIn("\x1b", self.assert_ok(self.model("inspect", unknown)))

    def test_inspect_parts_and_shards(self):
        whole = read(self.checkpoint)
        write(self.path("split.pt.part0"), whole[:400001])
        write(self.path("split.pt.part1"), whole[400001:])
        parts = self.facts(self.path("split.pt"))
        self.assertEqual([os.path.basename(f["path"]) for f in parts["files"]], ["split.pt.part0", "split.pt.part1"])
        self.assertEqual(parts["digest"], self.facts(self.checkpoint)["digest"])
        self.assertIn("in 2 files", self.assert_ok(self.model("inspect", self.path("split.pt"))))

    def test_inspect_bad_files(self):
        self.assert_clear(self.model("inspect", self.path("none.pt")), MODEL, "none.pt")
        os.mkdir(self.path("folder"))
        self.assert_clear(self.model("inspect", self.path("folder")), MODEL, "folder")
        whole = read(self.checkpoint)
        for size in (0, 7, 5000, len(whole) - 1):
            self.assert_clear(self.model("inspect", write(self.path("cut.pt"), whole[:size])), MODEL, "cut.pt")
        self.assert_clear(self.model("inspect", self.config), MODEL, "tiny7b.yml")
        self.assert_clear(self.model("inspect"), USAGE, "file")

    # convert

    def convert(self, *args, **options):
        return self.model("convert", "-q", *args, **options)

    def test_convert_there_and_back(self):
        given = self.facts(self.checkpoint)
        chain = [self.checkpoint, self.path("a.safetensors"), self.path("shards"), self.path("b.pt"), self.path("c.pt")]
        for source, target in zip(chain, chain[1:]):
            size = ["--max-shard-size", "200K"] if target.endswith("shards") else []
            self.assertEqual(self.assert_ok(self.convert(source, target, *size)), "")
            facts = self.facts(target)
            self.assertEqual(facts["digest"], given["digest"])
            self.assertEqual(self.list_of(facts), self.list_of(given), "order, names, dtypes and shapes stay")
            self.assertEqual(sorted((e["name"], e["bytes"]) for e in facts["other_entries"]), sorted((e["name"], e["bytes"]) for e in given["other_entries"]))
            self.assertEqual(facts["model"], given["model"])
        self.assert_only("a.safetensors", "shards", "b.pt", "c.pt")
        self.assertEqual(len(self.facts(self.path("shards"))["files"]), 5)
        # The model is the same.
        genome = write(self.path("genome.fa"), fasta([("one", bases(300))]))
        rows = {self.assert_ok(self.score(genome, checkpoint=path)).splitlines()[-1] for path in chain}
        self.assertEqual(len(rows), 1)

    def test_convert_from_parts(self):
        whole = read(self.checkpoint)
        for i in range(3):
            write(self.path(f"split.pt.part{i}"), whole[i * 333333 : (i + 1) * 333333 if i < 2 else len(whole)])
        self.assert_ok(self.convert(self.path("split.pt"), self.path("joined.pt")))
        self.assertEqual(self.facts(self.path("joined.pt"))["digest"], self.facts(self.checkpoint)["digest"])
        # A tied storage is still one: the unembedding costs nothing.
        self.assertLess(os.path.getsize(self.path("joined.pt")), os.path.getsize(self.checkpoint) + 30000)

    def test_convert_dtype(self):
        self.assert_ok(self.convert(self.checkpoint, self.path("wide.safetensors"), "--dtype", "fp32"))
        self.assert_ok(self.convert(self.path("wide.safetensors"), self.path("narrow.safetensors"), "--dtype", "bf16"))
        self.assert_ok(self.convert(self.checkpoint, self.path("same.safetensors")))
        wide, narrow, same = (safetensors(self.path(name + ".safetensors"))[0] for name in ("wide", "narrow", "same"))
        self.assertEqual(list(wide), list(same))
        kept = ("log_poles", "residues", "inv_freq")
        for name, (dtype, shape, raw) in same.items():
            if name.endswith("_extra_state"):
                self.assertEqual(wide[name], same[name])
                continue
            self.assertEqual(wide[name][:2], ("F32", shape))
            self.assertEqual(narrow[name][:2], ("F32" if name.endswith(kept) else "BF16", shape))
            if dtype == "BF16":
                halves = struct.unpack(f"<{len(raw) // 2}H", raw)
                self.assertEqual(wide[name][2], struct.pack(f"<{len(halves)}I", *(half << 16 for half in halves)))
                self.assertEqual(narrow[name][2], raw)
            elif name.endswith(kept):
                self.assertEqual(narrow[name][2], raw)
            else:
                rounded = [((bits + 0x7FFF + (bits >> 16 & 1)) >> 16) & 0xFFFF for bits in struct.unpack(f"<{len(raw) // 4}I", raw)]
                self.assertEqual(narrow[name][2], struct.pack(f"<{len(rounded)}H", *rounded))
        self.assert_clear(self.convert(self.checkpoint, self.path("x.pt"), "--dtype", "int8"), USAGE, "int8", "bf16")

    def test_convert_dry_run(self):
        self.assertIn("89 tensors", self.assert_ok(self.convert(self.checkpoint, self.path("x.pt"), "--dry-run")))
        self.assertIn("79 tensors change their dtype; shards of up to 1.0 MiB", self.assert_ok(self.convert(self.checkpoint, self.path("x"), "--dry-run", "--dtype", "fp32", "--max-shard-size", "1M")))
        self.assert_clear(self.convert(self.path("none.pt"), self.path("x.pt"), "--dry-run"), MODEL, "none.pt")
        self.assert_only()

    def test_convert_keeps_what_is_there(self):
        write(self.path("x.pt"), "mine")
        self.assert_clear(self.convert(self.checkpoint, self.path("x.pt")), USAGE, "x.pt", "--force")
        self.assertEqual(read(self.path("x.pt")), b"mine")
        os.mkdir(self.path("shards"))
        write(self.path("shards", "notes.txt"), "mine")
        for options in ([], ["--force"]):
            self.assert_clear(self.convert(self.checkpoint, self.path("shards"), *options), USAGE, "shards", "--force")
        self.assertEqual(os.listdir(self.path("shards")), ["notes.txt"])
        self.assert_clear(self.convert(self.checkpoint, self.path("shards", "notes.txt")), USAGE, "notes.txt", ".safetensors")
        os.mkdir(self.path("folder.pt"))
        self.assert_clear(self.convert(self.checkpoint, self.path("folder.pt"), "--force"), USAGE, "folder.pt", "folder")
        self.assert_clear(self.convert(self.checkpoint, "/dev/null/", "--force"), DATA, "/dev/null")
        os.symlink("/dev/null", self.path("null.pt"))
        self.assert_clear(self.convert(self.checkpoint, self.path("null.pt"), "--force"), USAGE, "null.pt", "device")
        self.assert_clear(self.convert(self.checkpoint, "-"), USAGE, "standard output")
        os.remove(self.path("shards", "notes.txt"))
        self.assert_ok(self.convert(self.checkpoint, self.path("shards")))
        self.assert_ok(self.convert(self.checkpoint, self.path("shards"), "--force", "--max-shard-size", "300K"))
        self.assertEqual(len(os.listdir(self.path("shards"))), 5)
        self.assert_ok(self.convert(self.checkpoint, self.path("x.pt"), "--force"))
        # In place, and through a link.
        os.symlink("x.pt", self.path("link.pt"))
        before = self.facts(self.path("x.pt"))["digest"]
        self.assert_ok(self.convert(self.path("x.pt"), self.path("link.pt"), "--force"))
        self.assertTrue(os.path.islink(self.path("link.pt")))
        self.assertEqual(self.facts(self.path("x.pt"))["digest"], before)
        self.assert_ok(self.convert(self.path("shards"), self.path("shards"), "--force"))
        self.assertEqual(self.facts(self.path("shards"))["digest"], before)
        self.assert_only("folder.pt", "link.pt", "null.pt", "shards", "x.pt")

    def test_convert_loses_nothing_silently(self):
        four = struct.pack("<f", 1.0)
        adapter = write_safetensors(self.path("adapter.safetensors"), {"w": ("F32", [1], four)}, {"format": "focus-adapter-1", "memory": "{}"})
        self.assert_clear(self.convert(adapter, self.path("x.pt")), MODEL, "adapter.safetensors", "metadata", "format")
        self.assert_ok(self.convert(adapter, self.path("shards")))
        self.assertEqual(self.facts(self.path("shards"))["metadata"], {"format": "focus-adapter-1", "memory": "{}"})
        self.assert_ok(self.convert(write_safetensors(self.path("pt.safetensors"), {"w": ("F32", [1], four)}, {"format": "pt"}), self.path("x.pt")))
        # A number beside the tensors has no place anywhere, None none in safetensors.
        with zipfile.ZipFile(self.checkpoint) as archive:
            names = archive.namelist()
            inner = names[0].split("/")[0]
            raw = archive.read(f"{inner}/data.pkl")
            others = {name: archive.read(name) for name in names if not name.endswith("/data.pkl")}
        for key, value, fails in (("epoch", b"K\x07", ("x", "x.pt", "x.safetensors")), ("nothing", b"N", ("x", "x.safetensors"))):
            self.assertTrue(raw.endswith(b"u."), "the pickle ends with its dict")
            changed = raw[:-2] + b"X" + struct.pack("<I", len(key)) + key.encode() + value + b"u."
            with zipfile.ZipFile(self.path("more.pt"), "w", zipfile.ZIP_STORED) as archive:
                archive.writestr(f"{inner}/data.pkl", changed)
                for name, content in others.items():
                    archive.writestr(name, content)
            for target in fails:
                shutil.rmtree(self.path("x"), ignore_errors=True)
                self.assert_clear(self.convert(self.path("more.pt"), self.path(target), "--force"), MODEL, "more.pt", key, "--drop")
            self.assert_ok(self.convert(self.path("more.pt"), self.path("x.safetensors"), "--drop", key, "--force"))
            self.assertEqual(self.facts(self.path("x.safetensors"))["digest"], self.facts(self.checkpoint)["digest"])
        self.assert_clear(self.convert(self.checkpoint, self.path("y.pt"), "--drop", "epoch"), USAGE, "epoch")
        self.assert_clear(self.convert(self.checkpoint, self.path("y.pt"), "--drop", "*"), USAGE, "nothing is left")
        self.assert_ok(self.convert(self.checkpoint, self.path("y.pt"), "--drop", "unembed.weight", "--drop", "*._extra_state"))
        facts = self.facts(self.path("y.pt"))
        self.assertEqual((facts["num_tensors"], facts["num_other_entries"]), (88, 0))

    def test_convert_bad_inputs_and_places(self):
        self.assert_clear(self.convert(self.path("none.pt"), self.path("x.pt")), MODEL, "none.pt")
        os.mkdir(self.path("empty"))
        self.assert_clear(self.convert(self.path("empty"), self.path("x.pt")), MODEL, "empty")
        self.assert_clear(self.convert(write(self.path("cut.pt"), read(self.checkpoint)[:-100]), self.path("x.pt")), MODEL, "cut.pt")
        self.assert_clear(self.convert(self.checkpoint, self.path("none", "x.pt")), DATA, "none", "does not exist")
        self.assert_clear(self.convert(self.checkpoint, self.path("x.bin")), USAGE, "x.bin", ".safetensors")
        self.assert_clear(self.convert(self.checkpoint, ""), USAGE, "name")
        self.assert_clear(self.convert(self.checkpoint, self.path("x.pt"), "--max-shard-size", "1M"), USAGE, "--max-shard-size", "folder")
        self.assert_clear(self.convert(self.checkpoint, self.path("x"), "--max-shard-size", "many"), USAGE, "--max-shard-size", "many")
        self.assert_clear(self.convert(self.checkpoint, self.path("x"), "--max-shard-size", "0"), USAGE, "--max-shard-size", "at least 1")
        self.assert_clear(self.convert(self.checkpoint), USAGE, "output")
        self.assert_only("cut.pt", "empty")

    def test_read_only_folder(self):
        os.mkdir(self.path("fixed"))
        os.chmod(self.path("fixed"), 0o555)
        options = self.as_nobody()
        self.assert_clear(self.convert(self.checkpoint, self.path("fixed", "x.pt"), **options), DATA, "fixed/x.pt", "Permission denied")
        self.assert_clear(self.model("random", "--model-config", self.config, "-o", self.path("fixed", "x"), **options), DATA, "fixed/x", "Permission denied")
        self.assertEqual(os.listdir(self.path("fixed")), [])
        os.chmod(self.path("fixed"), 0o755)

    def test_full_disk(self):
        disk = self.full_folder()
        for target in ("x.pt", "x.safetensors", "x"):
            self.assert_clear(self.convert(self.checkpoint, os.path.join(disk, target)), DATA, disk + "/" + target, "free")
        self.assert_clear(self.model("random", "-q", "--model-config", self.config, "-o", disk + "/x.pt"), DATA, disk + "/x.pt", "free")
        self.assertEqual(os.listdir(disk), [])

    def test_interrupts_leave_nothing(self):
        config = self.larger_config()
        waits = lambda start: lambda: any(name.startswith(start + ".tmp-") for name in os.listdir(self.folder))
        process = self.start("focus-model", "random", "-q", "--model-config", config, "-o", self.path("x.pt"))
        self.wait_until(process, waits("x.pt"))
        self.assert_clear(self.interrupt(process), INTERRUPTED, "interrupted", "x.pt")
        self.assert_only("larger.yml")
        self.assert_ok(self.model("random", "-q", "--model-config", config, "-o", self.path("x.pt")))
        for target, options in (("y.pt", ["--dtype", "fp32"]), ("shards", ["--dtype", "fp32", "--max-shard-size", "20M"])):
            process = self.start("focus-model", "convert", "-q", self.path("x.pt"), self.path(target), *options)
            self.wait_until(process, waits(target))
            self.assert_clear(self.interrupt(process), INTERRUPTED, "interrupted", target)
            self.assert_only("larger.yml", "x.pt")

    # plan

    def plan(self, *args):
        shape = os.path.join(SOURCE, "configs", "models", "evo2_7b_base.yml")
        return self.model("plan", "--model-config", shape, *args)

    def test_plan_by_hand(self):
        plan = json.loads(self.assert_ok(self.plan("--length", "8192,1M", "--chunk", "8192", "--json", "--gemm-tflops", "1000", "--copy-tbps", "3")))
        self.assertEqual(plan["parameters"], 6481059584)
        self.assertAlmostEqual(plan["dense_flop_per_base"], 12.956e9, delta=1e6)
        short, long = plan["plans"]
        # bf16 keys and values of five layers: 80 KiB per base.
        self.assertEqual(short["memory"]["kept_bytes"], 8192 * 80 * 1024)
        self.assertEqual(long["memory"]["kept_bytes"], 1000000 * 80 * 1024)
        # All but the modes in bf16.
        self.assertEqual(short["memory"]["weight_bytes"], 2 * 6481059584 + 2 * 9 * 2 * 16 * 4096)
        operations = {o["name"]: o for o in long["operations"]}
        self.assertAlmostEqual(operations["attention"]["flop"], 5 * 2 * 1e12 * 4096, delta=1e12)
        products = sum(o["flop"] for o in long["operations"] if o["unit"] == "gemm")
        self.assertAlmostEqual(products / 1e6, plan["dense_flop_per_base"], delta=1)
        self.assertEqual(operations["MLP"]["bound"], "gemm")
        self.assertAlmostEqual(operations["MLP"]["seconds"], operations["MLP"]["flop"] / 1e15, delta=1e-9)
        self.assertEqual(operations["MLP gate"]["bound"], "memory")
        self.assertAlmostEqual(operations["MLP gate"]["seconds"], operations["MLP gate"]["bytes"] / 3e12, delta=1e-9)
        self.assertAlmostEqual(long["seconds"], sum(o["seconds"] for o in long["operations"]), delta=1e-6)

    def test_plan_of_memories_and_jobs(self):
        focus = ["--memory", "fitted", "--window", "1024", "-k", "100", "--length", "1M", "--json"]
        full, kept = (json.loads(self.assert_ok(self.plan(*args)))["plans"][0] for args in (["--length", "1M", "--chunk", "8192", "--json"], focus))
        # 976 closed windows of 11 entries; an entry also has a mass for each of 32 heads.
        self.assertEqual(kept["memory"]["kept_bytes"], 976 * 11 * 5 * (2 * 4096 * 2 + 32 * 4))
        self.assertGreater(full["memory"]["kept_bytes"], 90 * kept["memory"]["kept_bytes"])
        attention = [next(o["flop"] for o in plan["operations"] if o["name"] == "attention") for plan in (full, kept)]
        self.assertGreater(attention[0], 50 * attention[1])
        self.assertIn("closing windows", [o["name"] for o in kept["operations"]])
        self.assertIn("DOES NOT FIT", self.assert_ok(self.plan("--length", "1M")))
        self.assertNotIn("DOES NOT FIT", self.assert_ok(self.plan(*focus[:-1])))
        # Decoding reads the weights once.
        decode = json.loads(self.assert_ok(self.plan("--job", "decode", "--json", "--card", "h200")))["plans"][0]
        self.assertLess(decode["bases_per_second"], 4.3e12 / 12.97e9)
        self.assertGreater(decode["bases_per_second"], 300)
        train = [json.loads(self.assert_ok(self.plan("--job", "train", "--json", *focus[:-3], *args)))["plans"][0] for args in ([], ["--recompute"], ["--teacher"])]
        self.assertLess(train[1]["memory"]["activation_bytes"], train[0]["memory"]["activation_bytes"] / 5)
        self.assertGreater(train[1]["seconds"], 1.3 * train[0]["seconds"])
        self.assertGreater(train[2]["seconds"], 1.3 * train[0]["seconds"])

    def test_plan_of_far_memory_on_another_machine(self):
        far = ["--memory", "far_fitted", "--length", "1M", "--chunk", "8192", "--json", "--set", "far.store=int4", "--set"]
        here, there, keys = (json.loads(self.assert_ok(self.plan(*far, *args)))["plans"][0]
                             for args in (["far.place=model"], ["far.place=host"], ["far.place=host", "--set", "far.score=sketch"]))
        # What lies in host memory takes none of the card but what is held ready there: 16 k-mers, in codes.
        self.assertEqual(here["memory"]["far_bytes"], there["memory"]["far_bytes"])
        kmer = 32 * (2 * 100 * 128 // 2 + 4 * 128 + 4 * 100)
        self.assertEqual(here["memory"]["total_bytes"] - there["memory"]["total_bytes"], here["memory"]["far_bytes"] - 5 * 16 * kmer)
        # A query of each 16 looks at 16 coordinates of every key behind the window, in 32 heads of five layers.
        choosing = [o["flop"] for o in keys["operations"] if o["name"] == "choosing k-mers"]
        self.assertEqual([o["name"] for o in there["operations"]].count("choosing k-mers"), 0)
        self.assertAlmostEqual(choosing[0], 5 * 32 * 2 * 16 * (1e12 - 1024e6) / 2 / 16, delta=5e10)
        self.assertAlmostEqual(keys["memory_flop_per_base"] - there["memory_flop_per_base"], choosing[0] / 1e6, delta=1)
        self.assertIn("elsewhere", self.assert_ok(self.plan(*(x for x in far if x != "--json"), "far.place=host")))

    def test_plan_refuses(self):
        for args, mention in ((["--recompute"], "--recompute"), (["--job", "decode", "--chunk", "4"], "--chunk"), (["--length", "0"], "--length"), (["--length", "x"], "x"),
                              (["--memory", "focus"], "--adapter"), (["--batch", "0"], "--batch")):
            self.assert_clear(self.plan(*args), USAGE, mention)

    # bench

    def bench(self, *args):
        return self.model("bench", "--model-config", self.config, "-t", "1", "--device", "cpu", "--dtype", "fp32", "--prefill", "300", "--decode", "3", "--repeats", "1", *args)

    def test_bench_measures_every_memory_on_random_weights(self):
        for memory in ([], ["--memory", "fitted", "--window", "64", "-k", "16"], ["--memory", "state_only", "--window", "64", "-k", "16"]):
            figures = json.loads(self.assert_ok(self.bench("--random-weights", "0", "--batch", "2", "--chunk", "100", "--check", "200", "--blocks", "--json", *memory)))
            # fp32: chunks and the whole differ by the order of sums.
            self.assertLess(figures["check.chunks"], 1e-4)
            for name in ("prefill_bases_per_s", "prefill_flop_per_s", "gemm_flop_per_s", "decode_bases_per_s", "stream_bytes", "bandwidth_bytes_per_s",
                         "block.hcs.mixer_flop_per_s", "block.hcm.mixer_flop_per_s", "block.hcl.mixer_flop_per_s", "block.attention.mixer_flop_per_s"):
                self.assertGreater(figures[name], 0, name)

    def test_bench_of_a_file_and_of_fp8_projections(self):
        for where in ([], ["--copy-weights"]):
            self.assertIn("decode_processor_s_per_base\t", self.assert_ok(self.bench("--checkpoint", self.checkpoint, *where)))
        text = read(self.config).decode().replace("use_fp8_input_projections: False", "use_fp8_input_projections: True")
        done = self.model("bench", "--model-config", write(self.path("fp8.yml"), text), "--random-weights", "3", "--prefill", "20", "--device", "cpu", "-t", "1")
        self.assertIn("bf16, input projections in FP8", self.assert_ok(done))
        self.assert_only("fp8.yml")

    def test_bench_refuses(self):
        self.assert_clear(self.bench(), USAGE, "--checkpoint or --random-weights")
        self.assert_clear(self.bench("--random-weights", "0", "--checkpoint", self.checkpoint), USAGE, "--checkpoint")
        self.assert_clear(self.bench("--random-weights", "0", "--copy-weights"), USAGE, "--copy-weights")
        self.assert_clear(self.bench("--random-weights", "0", "--batch", "0"), USAGE, "--batch")

    # random

    def random(self, output, *args, **options):
        return self.model("random", "-q", "--model-config", self.config, "-o", output, *args, **options)

    def test_random_model_runs(self):
        genome = write(self.path("genome.fa"), fasta([("one", bases(300))]))
        digests = []
        for output in ("x.pt", "x.safetensors", "shards"):
            self.assertEqual(self.assert_ok(self.random(self.path(output))), "")
            digests.append(self.facts(self.path(output))["digest"])
            row = self.assert_ok(self.score(genome, checkpoint=self.path(output))).splitlines()[-1].split("\t")
            self.assertLess(float(row[6]), 0)
            self.assertGreater(float(row[6]), -20)
        self.assertEqual(len(set(digests)), 1)
        self.assert_ok(self.random(self.path("y.pt"), "--seed", "1"))
        self.assertNotEqual(self.facts(self.path("y.pt"))["digest"], digests[0])
        self.assert_ok(self.random(self.path("z.pt"), "--dtype", "fp32"))
        self.assertEqual(list(self.facts(self.path("z.pt"))["dtypes"]), ["F32"])
        self.assertEqual(self.facts(self.path("x.pt"))["model"]["blocks"], ["hcs", "hcm", "hcl", "attention"] * 2)

    def test_random_with_fp8_projections(self):
        text = read(self.config).decode()
        self.assertIn("use_fp8_input_projections: False", text)
        config = write(self.path("fp8.yml"), text.replace("use_fp8_input_projections: False", "use_fp8_input_projections: True"))
        self.assert_ok(self.model("random", "-q", "--model-config", config, "-o", self.path("x.pt")))
        entries = self.facts(self.path("x.pt"))["other_entries"]
        self.assertEqual([e["name"] for e in entries], [f"blocks.{i}.projections._extra_state" for i in (0, 1, 2, 4, 5, 6)])
        with zipfile.ZipFile(self.path("x.pt")) as archive:
            pickled = archive.read("x/data.pkl")
        self.assertIn(b"BytesIO", pickled)
        self.assert_only("fp8.yml", "x.pt")
        # The scales are read and used: rounding moves the result, a little.
        done = {fp8: self.assert_ok(self.selftest(self.csv(), "--fp8", fp8, config=config, checkpoint=self.path("x.pt"))) for fp8 in ("emulate", "off")}
        self.assertIn("FP8 (e4m3, emulated)", done["emulate"])
        self.assertIn("FP8 input projections OFF", done["off"])
        loss = {fp8: float(self.rows(text)[-1][2]) for fp8, text in done.items()}
        self.assertNotEqual(loss["emulate"], loss["off"])
        self.assertAlmostEqual(loss["emulate"], loss["off"], delta=1.0)

    def test_random_refuses(self):
        self.assert_clear(self.random(self.path("none", "x.pt")), DATA, "none", "does not exist")
        self.assert_clear(self.model("random", "--model-config", self.path("none.yml"), "-o", self.path("x.pt")), USAGE, "none.yml")
        self.assert_clear(self.model("random", "--model-config", write(self.path("bad.yml"), "hidden_size: 3\n"), "-o", self.path("x.pt")), USAGE, "bad.yml")
        self.assert_clear(self.random(self.path("x.pt"), "--seed", "-1"), USAGE, "--seed")
        self.assert_clear(self.random(self.path("x.pt"), "--dtype", "fp16"), USAGE, "fp16")
        write(self.path("x.pt"), "mine")
        self.assert_clear(self.random(self.path("x.pt")), USAGE, "x.pt", "--force")
        self.assertEqual(read(self.path("x.pt")), b"mine")
        self.assert_ok(self.random(self.path("x.pt"), "--force"))
        self.assertGreater(os.path.getsize(self.path("x.pt")), 100000)

    # doctor

    def test_doctor(self):
        report = json.loads(self.assert_ok(self.model("doctor", "--json", "-t", "1")))
        self.assertTrue(report["usable"])
        self.assertEqual(report["missing"], [])
        self.assertRegex(report["focus"]["version"], r"^\d+\.\d+\.\d+$")
        self.assertRegex(report["libtorch"]["version_running"], r"^2\.\d+\.\d+$")
        self.assertEqual(report["libtorch"]["version_running"], report["libtorch"]["version_at_build"])
        self.assertTrue(os.path.exists(report["libtorch"]["library"]))
        self.assertIn(report["processor"]["kernels_use"], ("amx", "avx512", "avx2", "baseline"))
        self.assertGreater(report["memory"]["total_bytes"], report["memory"]["available_bytes"])
        self.assertGreaterEqual(len(report["checks"]), 5)
        for check in report["checks"]:
            self.assertTrue(check["passed"], check)
            self.assertLess(check["error"], check["limit"])
            self.assertGreater(check["error"], 0, "a result without any rounding was compared with itself")
        self.assertEqual(report["threads"]["torch_threads"], 1)
        text = self.assert_ok(self.model("doctor"))
        for part in ("focus\n", "libtorch\n", "processor\n", "memory\n", "cuda\n", "  ok      matrix product, bf16 on cpu"):
            self.assertIn(part, text)
        if not report["cuda"]["devices"]:
            self.assertIn("driver", report["cuda"]["note"])

    def test_doctor_picks_the_asked_instruction_set(self):
        report = json.loads(self.assert_ok(self.model("doctor", "--json", env={**os.environ, "FOCUS_CPU_ISA": "baseline"})))
        self.assertEqual((report["processor"]["kernels_use"], report["threads"]["FOCUS_CPU_ISA"]), ("baseline", "baseline"))
        self.assert_clear(self.model("doctor", env={**os.environ, "FOCUS_CPU_ISA": "avx-2"}), USAGE, "avx-2", "avx512, avx2 or baseline")

    def test_doctor_requirements(self):
        report = json.loads(self.assert_ok(self.model("doctor", "--json")))
        flags = report["processor"]["instruction_sets"].split()
        there = {"cuda": report["cuda"]["usable_devices"] > 0, "avx2": "avx2" in flags, "avx512": "avx512f" in flags, "amx": "amx_bf16" in flags,
                 "mkl": report["libtorch"]["mkl"] is not None}
        for name, found in there.items():
            done = self.model("doctor", "--require", name, "--json")
            if found:
                self.assert_ok(done)
                continue
            self.assertEqual(json.loads(done.stdout)["missing"], [name])
            self.assert_clear(done, RESOURCES, "missing", name)
        self.assert_clear(self.model("doctor", "--require", "tpu"), USAGE, "tpu", "cuda")

    # selftest

    SEQUENCES = [bases(200, seed=1), bases(90, seed=2).lower() + "N" + bases(40, seed=3)]

    def selftest(self, sequences, *args, config=None, checkpoint=None, **options):
        return self.model("selftest", "--model-config", config or self.config, "--checkpoint", checkpoint or self.checkpoint, "--sequences", sequences, "-q", "-t", "1",
                          "--dtype", "fp32", "--device", "cpu", *args, **options)

    def csv(self, text=None):
        return write(self.path("prompts.csv"), text or "\ufeffSequence,\"Target, second\"\n" + f"{self.SEQUENCES[0]},x\n\"{self.SEQUENCES[1]}\",y\n")

    def rows(self, text):
        lines = text.splitlines()
        self.assertEqual([line for line in lines if line.startswith("#s")], ["#sequence\tlength\tloss_nats\tloss_nats_bf16\taccuracy_percent"])
        for key in ("focus_version", "command", "model", "computed"):
            self.assertEqual(len([line for line in lines if line.startswith(f"##{key}=")]), 1, text)
        return [line.split("\t") for line in lines if not line.startswith("#")]

    def test_selftest_is_the_mean_of_the_sequences(self):
        rows = self.rows(self.assert_ok(self.selftest(self.csv())))
        self.assertEqual([row[:2] for row in rows], [["line 2", "200"], ["line 3", "131"], ["mean", "331"]])
        for column in (2, 3, 4):
            self.assertAlmostEqual(float(rows[2][column]), (float(rows[0][column]) + float(rows[1][column])) / 2, delta=1e-4)
        # The same as scoring, which reads bytes as they are when asked to.
        genome = write(self.path("genome.fa"), fasta([("a", self.SEQUENCES[0]), ("b", self.SEQUENCES[1])]))
        scored = self.assert_ok(self.score(genome, "--case", "keep", "--ambiguous", "keep", "--logits", self.path("logits.safetensors"))).splitlines()
        for row, line, name, sequence in zip(rows, scored[-2:], "ab", self.SEQUENCES):
            self.assertAlmostEqual(float(row[2]), -float(line.split("\t")[6]), delta=1e-6)
            self.assertAlmostEqual(float(row[3]), float(row[2]), delta=0.004 * float(row[2]))
            (bits,) = struct.unpack("<I", struct.pack("<f", float(row[3])))
            self.assertEqual(bits & 0xFFFF, 0, "a loss rounded to bf16")
            dtype, (length, vocabulary), raw = safetensors(self.path("logits.safetensors"))[0][name]
            logits = [struct.unpack_from(f"<{vocabulary}f", raw, 4 * vocabulary * t) for t in range(length)]
            hits = sum(max(range(vocabulary), key=logits[t].__getitem__) == ord(sequence[t + 1]) for t in range(length - 1))
            self.assertAlmostEqual(float(row[4]), 100 * hits / (length - 1), delta=1e-3)

    def test_selftest_reads_every_format(self):
        wanted = [row[1:] for row in self.rows(self.assert_ok(self.selftest(self.csv())))]
        text = fasta([("a", self.SEQUENCES[0]), ("b", self.SEQUENCES[1])])
        with gzip.open(self.path("genome.fa.gz"), "wt") as file:
            file.write(text)
        lines = "\n".join(self.SEQUENCES) + "\n"
        for sequences, options, stdin in ((write(self.path("x.fa"), text), [], None), (self.path("genome.fa.gz"), [], None), (write(self.path("x.txt"), lines), [], None),
                                          ("-", [], lines), ("-", ["--format", "fasta"], text), ("-", ["--format", "csv"], read(self.csv()).decode()),
                                          (self.csv(), ["--chunk", "7"], None), (self.csv(), ["--chunk", "0"], None)):
            rows = self.rows(self.assert_ok(self.selftest(sequences, *options, input=stdin)))
            for row, other in zip([row[1:] for row in rows], wanted):
                self.assertEqual(row[0], other[0])
                self.assertAlmostEqual(float(row[1]), float(other[1]), delta=1e-5)

    def test_selftest_of_a_hugging_face_folder(self):
        folder = os.path.join(self.golden, "llama", "bytes")
        genome = write(self.path("genome.fa"), fasta([("a", self.SEQUENCES[0])]))
        done = self.model("selftest", "--checkpoint", folder, "--sequences", genome, "--dtype", "fp32", "--device", "cpu", "-q", "-t", "1")
        scored = self.assert_ok(self.run_program("focus-infer", "score", "--checkpoint", folder, "--fasta", genome, "-q", "-t", "1"))
        self.assertAlmostEqual(float(self.rows(self.assert_ok(done))[0][2]), -float(scored.splitlines()[-1].split("\t")[6]), delta=1e-6)
        # A letter that the vocabulary has no token for.
        folder = os.path.join(self.golden, "llama", "letters")
        lower = write(self.path("lower.txt"), "ACGTacgt\n")
        self.assert_clear(self.model("selftest", "--checkpoint", folder, "--sequences", lower, "-q"), DATA, "no token for 'a'", "line 1")

    def test_selftest_judges_the_loss(self):
        mean = self.rows(self.assert_ok(self.selftest(self.csv())))[-1]
        done = self.selftest(self.csv(), "--loss", mean[2])
        self.assertIn("##result=passed", self.assert_ok(done))
        done = self.selftest(self.csv(), "--loss", str(float(mean[2]) + 0.0011))
        self.assertEqual(len(self.rows(done.stdout)), 3)
        self.assertIn("##result=failed", done.stdout)
        self.assert_clear(done, CHECK, "selftest failed", mean[2], "0.001")
        self.assert_ok(self.selftest(self.csv(), "--loss", str(float(mean[2]) + 0.0011), "--tolerance", "0.002"))
        done = self.selftest(self.csv(), "--loss", "1", "-o", self.path("table.tsv"))
        self.assert_clear(done, CHECK, "selftest failed")
        self.assertIn("##result=failed", read(self.path("table.tsv")).decode())

    def test_selftest_expectations(self):
        mean = self.rows(self.assert_ok(self.selftest(self.csv())))[-1]
        os.mkdir(self.path("models"))
        config = shutil.copy(self.config, self.path("models", "tiny.yml"))
        expectations = write(self.path("models", "selftest.json"), json.dumps({"right": {"loss": float(mean[2]), "accuracy": 0.5, "tolerance": 1e-3}, "wrong": {"loss": 1, "tolerance": 1e-3}}))
        done = self.selftest(self.csv(), "--expect", "right", config=config)
        self.assertRegex(self.assert_ok(done), r"##result=passed, right: .*published 50.000 % \(not judged\)")
        self.assert_clear(self.selftest(self.csv(), "--expect", "wrong", config=config), CHECK, "wrong", "expected 1.0")
        self.assert_ok(self.selftest(self.csv(), "--expect", "wrong", "--tolerance", "100", "--expectations", expectations))
        self.assert_clear(self.selftest(self.csv(), "--expect", "other", config=config), USAGE, "other", "right, wrong")
        self.assert_clear(self.selftest(self.csv(), "--expect", "right"), USAGE, "selftest.json", "--expectations")
        self.assert_clear(self.selftest(self.csv(), "--expect", "right", "--loss", "1", config=config), USAGE, "--loss", "--expect")
        self.assert_clear(self.selftest(self.csv(), "--tolerance", "1"), USAGE, "--tolerance")
        self.assert_clear(self.selftest(self.csv(), "--expectations", expectations), USAGE, "--expectations")
        for text, mention in (("[1]", "object"), ('{"a": 1}', "object"), ('{"a": {"loss": 1}}', "tolerance"), ('{"a": {"loss": "1", "tolerance": 1}}', "a.loss"), ('{"a": {"loss": 1, "tolerance": 1, "acc": 1}}', "a.acc")):
            self.assert_clear(self.selftest(self.csv(), "--expect", "a", "--expectations", write(self.path("bad.json"), text)), USAGE, "bad.json", mention)

    def test_shipped_expectations_are_readable(self):
        path = os.path.join(SOURCE, "configs", "models", "selftest.json")
        names = [line.split('"')[1] for line in read(path).decode().splitlines() if line.startswith('  "')]
        self.assertIn("evo2_7b", names)
        for name in names:
            self.assertTrue(os.path.exists(os.path.join(SOURCE, "configs", "models", name + ".yml")), name)
            self.assert_clear(self.selftest(self.csv(), "--expect", name, "--expectations", path), CHECK, name, "published")

    def test_selftest_bad_input(self):
        self.assert_clear(self.selftest(self.path("none.csv")), DATA, "none.csv")
        self.assert_clear(self.selftest(self.csv("\n")), DATA, "prompts.csv", "no sequence")
        self.assert_clear(self.selftest(self.csv("Sequence\n")), DATA, "prompts.csv", "after its header")
        self.assert_clear(self.selftest(self.csv("Sequence\nA\n")), DATA, "line 2", "2 or more")
        self.assert_clear(self.selftest(write(self.path("x.txt"), "ACGT,5\n")), DATA, "line 1", "CSV")
        self.assert_clear(self.selftest(self.folder), DATA, "folder")
        self.assert_clear(self.selftest(self.csv(), config=self.path("none.yml")), USAGE, "none.yml")
        self.assert_clear(self.selftest(self.csv(), checkpoint=self.path("none.pt")), MODEL, "none.pt")
        self.assert_clear(self.selftest(self.csv(), config=os.path.join(SOURCE, "configs", "models", "focus-small.yml")), MODEL, "tiny7b.pt", "focus-small")
        self.assert_clear(self.selftest(self.csv(), "-o", self.path("none", "x.tsv")), DATA, "none/x.tsv")
        self.assert_clear(self.model("selftest", "--model-config", self.config, "--checkpoint", self.checkpoint, "--sequences", self.csv(), "--dtype", "fp8"), USAGE, "fp8", "bf16")


if __name__ == "__main__":
    sys.exit(main(ModelTest))
