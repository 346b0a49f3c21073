"""What a build says of itself: the commit that it was made from.

How to run: support.py.
"""

import os
import re
import subprocess
import sys

from support import BIN, PROGRAMS, SOURCE, ProgramTest, main, read, write


class BuildTest(ProgramTest):
    def git(self, *args, folder=SOURCE):
        command = ["git", "-C", folder, "-c", "user.name=test", "-c", "user.email=test@localhost",
                   "-c", "commit.gpgsign=false", "-c", "tag.gpgsign=false", *args]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def test_version_names_the_commit(self):
        if not os.path.exists(os.path.join(SOURCE, ".git")):
            self.skipTest("the sources are no git checkout")
        head = self.git("rev-parse", "HEAD")
        moved = os.path.getmtime(os.path.join(SOURCE, self.git("rev-parse", "--git-path", "logs/HEAD")))
        for program in PROGRAMS:
            if os.path.getmtime(os.path.join(BIN, program)) < moved:
                self.skipTest("HEAD has moved since the programs were built: build again")
            text = self.assert_ok(self.run_program(program, "--version"))
            named = re.fullmatch(r"focus \d+\.\d+\.\d+ \(([0-9a-f]{12})(\+dirty)?\)\n", text)
            self.assertTrue(named, text)
            self.assertTrue(head.startswith(named[1]), f"{text} was built from {head}")

    def test_git_hash_follows_the_sources(self):
        tree, header = self.path("tree"), self.path("git_hash.h")
        script = os.path.join(SOURCE, "cmake", "FocusVersion.cmake")

        def hash_of_tree():
            subprocess.run(["cmake", f"-DSOURCE={tree}", f"-DOUTPUT={header}", "-P", script], check=True)
            return re.fullmatch(rb'#define FOCUS_GIT_HASH "(.+)"\n', read(header))[1].decode()

        os.mkdir(tree)
        self.assertEqual(hash_of_tree(), "unknown")
        self.git("init", "-q", folder=tree)
        source = write(os.path.join(tree, "source.cpp"), "int a;\n")
        self.git("add", "source.cpp", folder=tree)
        self.git("commit", "-q", "-m", "First", folder=tree)
        first = self.git("rev-parse", "HEAD", folder=tree)[:12]
        self.assertEqual(hash_of_tree(), first)
        os.utime(header, (1, 1))
        self.git("tag", "-m", "A tag", "v1", folder=tree)
        self.assertEqual(hash_of_tree(), first)
        self.assertEqual(os.path.getmtime(header), 1, "an unchanged hash was written again: everything would be linked again")
        write(source, "int b;\n")
        self.assertEqual(hash_of_tree(), first + "+dirty")
        self.git("commit", "-q", "-a", "-m", "Second", folder=tree)
        self.assertEqual(hash_of_tree(), self.git("rev-parse", "HEAD", folder=tree)[:12])


if __name__ == "__main__":
    sys.exit(main(BuildTest))
