"""Checks the pages of the documentation; see scripts/check_docs.sh, which runs it. Only the standard library is used."""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ["focus-train", "focus-eval", "focus-infer", "focus-model"]
LAUNCHERS = ["torchrun", "srun", "mpirun"]  # run the program that follows their own options
OTHERS = ["cmake", "export"]
MOST_README_LINES, MOST_COLUMNS = 150, 110
RUN_SECONDS, SLOW_SECONDS = 300, 3600
TOP = sorted(path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith("."))
GENERATED = re.compile(r"<!-- generated: (.+?) -->\n(.*?)<!-- generated, end -->", re.S)


class Checker:
    def __init__(self, programs, slow):
        self.bin, self.slow, self.failures, self.outputs = programs, slow, 0, {}

    def fail(self, page, line, text):
        self.failures += 1
        print(f"{page.relative_to(ROOT)}:{line}: {text}", file=sys.stderr)

    def output(self, *command):
        """What a program prints; None when it refuses."""
        if command not in self.outputs:
            done = subprocess.run([self.bin / command[0], *command[1:]], capture_output=True, text=True, check=False)
            self.outputs[command] = done.stdout if done.returncode == 0 else None
        return self.outputs[command]

    # Commands

    def check_block(self, page, line, block):
        """Records what the shell would run, with stand-ins for all programs, and checks each command."""
        with tempfile.TemporaryDirectory() as folder:
            log, stubs = Path(folder) / "log", Path(folder) / "stubs"
            stubs.mkdir()
            stub = f"#!{sys.executable}\nimport json, sys\nopen({str(log)!r}, 'a').write(json.dumps(sys.argv) + '\\n')\n"
            for name in PROGRAMS + LAUNCHERS + OTHERS:
                write_executable(stubs / name, stub)
            for name in TOP:
                for path in [ROOT / name, *(ROOT / name).rglob("*")] if name not in ("build", "runs") else []:
                    if path.is_dir():
                        (Path(folder) / path.relative_to(ROOT)).mkdir()
                    elif name == "scripts" and path.suffix in (".sh", ".py"):
                        write_executable(Path(folder) / path.relative_to(ROOT), stub)
            done = subprocess.run(["/bin/bash", "-eu", "-c", block], cwd=folder, capture_output=True, text=True, check=False,
                                  env={"PATH": str(stubs), "PWD": folder})
            if done.returncode:
                self.fail(page, line, f"the shell refuses this block: {done.stderr.strip()}")
            for words in map(json.loads, log.read_text().splitlines() if log.exists() else []):
                self.check_command(page, line, [str(words[0]).removeprefix(folder + "/").removeprefix("stubs/"), *words[1:]])

    def check_command(self, page, line, words):
        program = words[0]
        if program in LAUNCHERS:
            inner = next((i for i, word in enumerate(words) if word in PROGRAMS), None)
            if inner is None:
                return self.fail(page, line, f"{program} runs no program of focus")
            return self.check_command(page, line, words[inner:])
        self.check_files(page, line, words[1:])
        if program.startswith("scripts/"):
            return self.check_script(page, line, words)
        if program in PROGRAMS:
            return self.check_program(page, line, words)
        return None

    def check_files(self, page, line, words):
        for word in words:
            if re.match(rf"({'|'.join(('configs', 'data', 'scripts', 'docs', 'tests'))})/[\w./-]+$", word) and not (ROOT / word).exists():
                self.fail(page, line, f"{word}: no such file")

    def check_script(self, page, line, words):
        script = ROOT / words[0].removeprefix("./")
        if not os.access(script, os.X_OK):
            return self.fail(page, line, f"{words[0]}: not executable")
        text = script.read_text(encoding="utf-8")
        for word in words[1:]:
            option = word.split("=")[0]
            if re.match(r"--[a-z]", option) and option != "--help" and not re.search(rf"{re.escape(option)}(?![\w-])", text):
                self.fail(page, line, f"{words[0]}: no option {option}")
        return None

    def check_program(self, page, line, words):
        name, rest = [words[0]], words[1:]
        usage = self.output(*name, "--help") or ""
        if rest and not rest[0].startswith("-"):
            name, rest = [*name, rest[0]], rest[1:]
            if not re.search(rf"^  {re.escape(name[1])} ", usage, re.M):
                return self.fail(page, line, f"{words[0]}: no subcommand {name[1]}")
            usage = self.output(*name, "--help") or ""
        known = set(re.findall(r"(?<![\w-])(-{1,2}[a-zA-Z][\w-]*)", "\n".join(re.findall(r"^  (-\S+)", usage, re.M))))
        for i, word in enumerate(rest):
            option = word.split("=")[0] if word.startswith("--") else word
            if re.match(r"--?[a-zA-Z]", option) and option not in known:
                self.fail(page, line, f"{' '.join(name)}: no option {option}")
            if word == "--set" and i + 1 < len(rest):
                self.check_setting(page, line, name, rest[i + 1])
        return None

    def check_setting(self, page, line, name, setting):
        # What programs without a configuration of their own take are settings of a memory, as training has them.
        configured = re.search(r"^  --help-config", self.output(*name, "--help") or "", re.M)
        described = self.output(*(name if configured else ["focus-train"]), "--help-config") or ""
        path, equals, value = setting.partition("=")
        paths = {text.split()[0] for text in described.splitlines() if text.strip()}
        if not equals or re.sub(r"\.\d+(?=\.|$)", ".N", path) not in paths:
            return self.fail(page, line, f"--set {setting}: no setting {path}")
        if value[:1] in "[{":
            try:
                json.loads(value)
            except ValueError as error:
                self.fail(page, line, f"--set {path}: {error}")
        return None

    def run_block(self, page, line, block, folder, seconds):
        environment = dict(os.environ, PATH=f"{self.bin}:{os.environ['PATH']}")
        print(f"{page.relative_to(ROOT)}:{line}: running", file=sys.stderr)
        try:
            done = subprocess.run(["/bin/bash", "-euo", "pipefail", "-c", block], cwd=folder, env=environment, capture_output=True,
                                  text=True, check=False, timeout=seconds)
        except subprocess.TimeoutExpired:
            return self.fail(page, line, f"not done after {seconds} s; mark it 'sh run slow'")
        if done.returncode:
            self.fail(page, line, f"exit status {done.returncode}: {(done.stdout + done.stderr)[-2000:].strip()}")
        return None

    # Text

    def check_page(self, page):
        text = page.read_text(encoding="utf-8")
        lines = text.splitlines()
        if page.name == "README.md" and page.parent == ROOT and len(lines) > MOST_README_LINES:
            self.fail(page, len(lines), f"{len(lines)} lines; no more than {MOST_README_LINES}")
        with tempfile.TemporaryDirectory() as scratch:
            show_repository(Path(scratch))
            fence, begin, block = None, 0, []
            for number, line in enumerate(lines, 1):
                if line.startswith("```"):
                    if fence is None:
                        fence, begin, block = line[3:].split(), number, []
                        continue
                    self.finish_block(page, begin, fence, "\n".join(block), scratch)
                    fence = None
                elif fence is not None:
                    block.append(line)
                else:
                    self.check_line(page, number, line)
            if fence is not None:
                self.fail(page, begin, "this block has no end")
        for command, body in GENERATED.findall(text):
            if body != self.generated(command):
                line = text[: text.index(f"<!-- generated: {command}")].count("\n") + 1
                self.fail(page, line, f"not what {command} prints; run scripts/check_docs.sh --write")

    def finish_block(self, page, line, fence, block, scratch):
        kinds = {(): None, ("sh",): "check", ("sh", "run"): "run", ("sh", "run", "slow"): "slow"}
        if not fence or fence[0] != "sh":
            return None
        kind = kinds.get(tuple(fence))
        if kind is None:
            return self.fail(page, line, f"unknown mark '{' '.join(fence)}'; known: sh, sh run, sh run slow")
        self.check_block(page, line, block)
        if kind == "run":
            self.run_block(page, line, block, scratch, RUN_SECONDS)
        elif kind == "slow" and self.slow:
            self.run_block(page, line, block, scratch, SLOW_SECONDS)
        return None

    def check_line(self, page, number, line):
        if len(line) > MOST_COLUMNS and not line.startswith(("|", "    ", "<!--", "#")) and " " in line.strip():
            self.fail(page, number, f"{len(line)} columns; no more than {MOST_COLUMNS}")
        for target in re.findall(r"\]\(([^)\s]+)\)", line):
            self.check_link(page, number, target)
        for name in re.findall(r"`([^`\s]+)`", line):
            name = name.rstrip("/")
            if re.match(rf"({'|'.join(TOP)})/[\w./-]+$", name) and not re.match("build/|runs/|.*NAME", name) and not has(name):
                self.fail(page, number, f"{name}: no such file")

    def check_link(self, page, number, target):
        if re.match(r"[a-z]+:", target):
            return
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists():
            self.fail(page, number, f"link to {target}: no such file")
        elif anchor and anchor not in anchors(file):
            self.fail(page, number, f"link to {target}: no such heading")

    def generated(self, command):
        printed = self.output(*command.split())
        if printed is None:
            return f"{command} fails\n"
        return "```text\n" + "\n".join(line.rstrip() for line in printed.splitlines()) + "\n```\n"

    def write_generated(self, page):
        text = page.read_text(encoding="utf-8")
        new = GENERATED.sub(lambda found: f"<!-- generated: {found[1]} -->\n{self.generated(found[1])}<!-- generated, end -->", text)
        if new != text:
            page.write_text(new, encoding="utf-8")
            print(f"wrote {page.relative_to(ROOT)}", file=sys.stderr)


def write_executable(path, text):
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


def show_repository(folder):
    """The folders of this repository as links, so that what a command writes stays in `folder`. Files that commands put beside their input
    (indices) are there already."""
    for path in ROOT.iterdir():
        if path.name not in (".git", "runs"):
            (folder / path.name).symlink_to(path)


def has(name):
    """Whether a file or folder of that name exists, perhaps without its ending."""
    return (ROOT / name).exists() or any((ROOT / name).parent.glob((ROOT / name).name + ".*"))


def anchors(page):
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def main():
    parser = argparse.ArgumentParser(prog="scripts/check_docs.sh", description="See the head of scripts/check_docs.sh.")
    parser.add_argument("--slow", action="store_true", help="run the blocks marked 'sh run slow' too")
    parser.add_argument("--write", action="store_true", help="write the generated lists again")
    parser.add_argument("--bin", type=Path, default=ROOT / "build/cpu-release/bin", help="folder of the programs")
    parser.add_argument("pages", nargs="*", type=Path, help="default: README.md, docs/*.md and the READMEs of data and tests/golden")
    options = parser.parse_args()
    programs = options.bin.resolve()
    missing = [name for name in PROGRAMS if not shutil.which(name, path=programs)]
    if missing:
        sys.exit(f"error: {programs} lacks {', '.join(missing)}; build them with scripts/build.sh, or name their folder with --bin")
    pages = [page.resolve() for page in options.pages] or [
        ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "data").rglob("*.md")), ROOT / "tests/golden/README.md"]
    checker = Checker(programs, options.slow)
    for page in pages:
        if options.write:
            checker.write_generated(page)
        checker.check_page(page)
    if checker.failures:
        sys.exit(f"error: {checker.failures} failures in {len(pages)} pages")
    print(f"{len(pages)} pages are in order", file=sys.stderr)


if __name__ == "__main__":
    main()
