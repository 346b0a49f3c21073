#!/usr/bin/env python3
"""Changes the CUDA kernels one mistake at a time and reports which test of the emulated kernels catches each.

The mistakes stand in tests/kernels/mutations/*.txt: a line `tests FILTER` (a GoogleTest filter), then blocks set apart by empty lines:
a line that says what is wrong, `file PATH` (of a header: and `in PATH`, the file that is compiled), and `- old` and `+ new` lines; `old` must occur exactly once in the file (several lines: as
they follow each other). Sources stay as they are: a changed copy is compiled and linked in the place of the file. Needs a build with the
targets test_kernels_plain, test_kernels_address and test_kernels_memory. Exit code 1 when a mistake was not caught or is none.
"""
import argparse
import collections
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

CHECKS = ("plain", "address", "memory")
Mutation = collections.namedtuple("Mutation", "family tests title file unit old new")


def read_mutations(path):
    tests, found = "*", []
    for block in re.split(r"\n\s*\n", path.read_text()):
        lines = [line for line in block.splitlines() if line and not line.startswith("#")]
        if lines and lines[0].startswith("tests "):
            tests = lines.pop(0)[len("tests "):]
        if not lines:
            continue
        parts = {key: [line[2:] for line in lines if line.startswith(key + " ") or line == key] for key in "-+"}
        files = [line[len("file "):] for line in lines if line.startswith("file ")]
        units = [line[len("in "):] for line in lines[1:] if line.startswith("in ")] or files
        if len(files) != 1 or not parts["-"]:
            sys.exit(f"{path}: a block needs one line 'file PATH' and a line '- old':\n{block}")
        found.append(Mutation(path.stem, tests, lines[0], files[0], units[0], parts["-"], parts["+"]))
    return found


def changed(source, mutation):
    """The source with the change, or None when its old lines are not there exactly once; blanks at line ends do not matter."""
    pattern = r"\s*\n\s*".join(re.escape(line.strip()) for line in mutation.old)
    if len(re.findall(pattern, source)) != 1:
        return None
    return re.sub(pattern, lambda _: "\n".join(mutation.new), source)


class Build:
    """How one of the emulated programs is made, as the build folder's ninja would."""

    def __init__(self, folder, check):
        self.folder, self.check = folder, check
        text = subprocess.run(["ninja", "-C", folder, "-t", "commands", f"test_kernels_{check}"], check=True, capture_output=True,
                              text=True).stdout
        self.commands = text.splitlines()
        self.link = next(c for c in self.commands if f" -o bin/test_kernels_{check} " in c)
        self.archive = f"kernels/emulation/libfocus_kernels_emulated_{check}.a"

    def compile_command(self, file):
        name = pathlib.Path(file).name
        for command in self.commands:
            if f"emulated_{self.check}_objects.dir" in command and re.search(rf" -c \S*/{re.escape(name)}$", command.strip()):
                return command
        return None

    def make(self, file, copy, scratch):
        """Compiles the copy in the file's place and links; None, or what went wrong."""
        command = self.compile_command(file)
        if command is None:
            return f"{file} is not compiled for test_kernels_{self.check}"
        home = pathlib.Path(file).parent
        command = re.sub(r" -c \S+$", f" -I{shlex.quote(str(home))} -c {shlex.quote(str(copy))}", command.strip())
        command = re.sub(r" -o \S+", f" -Wno-error -o {scratch}/changed.o", command)
        command = re.sub(r" -MF \S+", f" -MF {scratch}/changed.d", command)
        link = self.link.replace(f" -o bin/test_kernels_{self.check} ", f" -o {scratch}/program ")
        link = link.replace(self.archive, f"{scratch}/changed.o {self.archive}", 1)
        for step in (command, link):
            done = subprocess.run(step, shell=True, cwd=self.folder, capture_output=True, text=True)
            if done.returncode != 0:
                return "does not compile: " + next((l for l in done.stderr.splitlines() if "error" in l), done.stderr[:200])
        return None

    def caught(self, scratch, tests, seconds):
        """By which order of threads the program fails, or None."""
        for order in ("rising", "falling"):
            environment = {**os.environ, "FOCUS_EMULATION_ORDER": order}
            try:
                done = subprocess.run([f"{scratch}/program", f"--gtest_filter={tests}", "--gtest_brief=1", "--gtest_fail_fast"],
                                      env=environment, capture_output=True, timeout=seconds)
            except subprocess.TimeoutExpired:
                return f"{order}, still running after {seconds} s"
            if done.returncode != 0:
                return order
            if b" 0 tests " in done.stdout:
                sys.exit(f"no test fits the filter '{tests}'")
        return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build/cpu-release", help="build folder (default: %(default)s)")
    parser.add_argument("--all-checks", action="store_true", help="run every build on every mistake, not only until one catches it")
    parser.add_argument("--seconds", type=int, default=300, help="for one run of the tests (default: %(default)s)")
    parser.add_argument("families", nargs="*", help="names of files in tests/kernels/mutations without .txt (default: all)")
    options = parser.parse_args()
    root = pathlib.Path(__file__).resolve().parent.parent
    folder = (root / options.build).resolve()
    files = sorted((root / "tests/kernels/mutations").glob("*.txt"))
    unknown = set(options.families) - {f.stem for f in files}
    if unknown:
        sys.exit(f"no such family: {', '.join(sorted(unknown))}")
    mutations = [m for f in files if not options.families or f.stem in options.families for m in read_mutations(f)]
    builds = [Build(folder, check) for check in CHECKS]
    bad, by = 0, collections.Counter()
    with tempfile.TemporaryDirectory() as scratch:
        for number, mutation in enumerate(mutations, 1):
            source = root / mutation.file
            text = changed(source.read_text(), mutation)
            unit = root / mutation.unit
            copy = pathlib.Path(scratch) / unit.name
            outcome = []
            if text is None:
                outcome = ["NOT A CHANGE: the old lines are not there exactly once"]
            else:
                # Copies include what lies beside them first: the file and all headers, so that each includes the changed one.
                for file in (unit, *unit.parent.glob("*.h")):
                    shutil.copy(file, scratch)
                (copy.parent / source.name).write_text(text)
                for build in builds:
                    fault = build.make(unit, copy, scratch)
                    if fault is not None:
                        outcome = [f"NOT A CHANGE: {fault}"]
                        break
                    how = build.caught(scratch, mutation.tests, options.seconds)
                    if how is not None:
                        by[build.check] += 1
                        outcome.append(f"{build.check} ({how})")
                        if not options.all_checks:
                            break
            failed = not outcome or outcome[0].startswith("NOT")
            bad += failed
            print(f"{number:3}/{len(mutations)} {mutation.family}: {mutation.title}  {'; '.join(outcome) or 'NOT CAUGHT'}", flush=True)
    print(f"{len(mutations) - bad} of {len(mutations)} caught" + "".join(f", {n} by {check}" for check, n in by.items()))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
