# SPDX-License-Identifier: Apache-2.0
"""What the tests of tools as shared objects share: building one from a few lines, runs with one."""
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "system"))
from common import Test, harness  # noqa: E402,F401

HEAD = "#include <bdbi/tool.h>\n"
MAIN = 'const struct bdbi_tool bdbi_tool_main = {BDBI_TOOL_ABI, 1, "mine", "a test", 0, 0, weave, report};\n'
COUNT = "static void weave(struct bdbi_block *b) { bdbi_block_count(b, bdbi_block_instructions(b)); }\n"
REPORT = 'static void report(struct bdbi_run *r) { bdbi_run_write(r, "report\\n", 7); }\n'


class Objects(Test):
    def __init__(self, description):
        super().__init__(description)
        objects, self.include = (os.path.abspath(p) for p in self.options.rest)
        self.bbcount = os.path.join(objects, "bbcount.so")
        self.every = os.path.join(objects, "every.so")

    def new_cache(self):
        """Another, empty cache; a learner may still be at work on the old one."""
        self.learn()
        self.cache += "+"
        self.env["BDBI_CACHE"] = self.cache

    def build(self, name, source, *options, compiler="gcc", flags=("-shared", "-fPIC", "-O2")):
        """The object NAME of C source, HEAD before it; its path."""
        path = self.path(name)
        source_path = path + ".c"
        with open(source_path, "w", encoding="utf-8") as f:
            f.write(HEAD + source)
        self.must([compiler, *flags, *options, "-I" + self.include, source_path, "-o", path])
        return path

    def bdbi_run(self, tool, *argv, options=(), **keys):
        return self.run([self.bdbi, "run", *options, "--tool", tool, "--", *argv], **keys)

    def one_line(self, what, p, status, pattern, out=b""):
        """P ended with STATUS, printed OUT, and said one line that matches."""
        lines = p.stderr.decode("utf-8", "replace").splitlines()
        good = p.returncode == status and p.stdout == out and len(lines) == 1 and re.search(pattern, lines[0]) and lines[0].startswith("bdbi")
        self.check(good, f"{what}: status {p.returncode} (expected {status}), stdout {p.stdout[:80]!r}, stderr {lines[:4]}")

    def stats(self, tool, *argv, options=(), **keys):
        """(process, its statistics of the first process, its output files by name) of a run with --stats and out=."""
        path = self.path("stats")
        if os.path.exists(path):
            os.unlink(path)
        p = self.bdbi_run(tool, *argv, options=(*options, "--stats=" + path), **keys)
        found = harness.parse_stats(path)
        if not found:
            raise harness.Failure(f"no statistics: status {p.returncode} {p.stderr[:500]!r}")
        return p, found

    def read(self, name):
        with open(self.path(name), encoding="utf-8") as f:
            return f.read()
