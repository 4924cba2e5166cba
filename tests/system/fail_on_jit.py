#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""--fail-on-jit: with an empty cache it ends with 125 and names the first missed address; once learned it passes. And --stats
tells the same story: all blocks translated in the first run, none in the last."""
import re

from common import Test, harness


def body(test):
    argv = ["--", "ls", "-d", "/usr"]
    p = test.run([test.bdbi, "run", "--no-learn", "--fail-on-jit", *argv])
    lines = p.stderr.decode().splitlines()
    test.check(p.returncode == 125 and p.stdout == b"" and len(lines) == 1 and re.search(r"0x[0-9a-f]+|\+[0-9a-f]+", lines[0]),
               f"empty cache: status {p.returncode}, {p.stdout!r}, {lines}")
    stats = test.path("stats0")
    test.must([test.bdbi, "run", "--stats=" + stats, *argv])
    first = harness.parse_stats(stats)
    test.check(harness.total(first, "jit_blocks") > 0 and harness.total(first, "cache_blocks") == 0, f"first run: {first}")
    for _ in range(3):
        test.learn()
        test.run([test.bdbi, "run", *argv])
    test.learn()
    stats = test.path("stats1")
    p = test.run([test.bdbi, "run", "--fail-on-jit", "--stats=" + stats, *argv])
    last = harness.parse_stats(stats)
    test.check(p.returncode == 0 and p.stdout == b"/usr\n" and p.stderr == b"", f"learned: {p}")
    test.check(harness.total(last, "jit_blocks") == 0 and harness.total(last, "cache_blocks") > 0, f"last run: {last}")
    p = test.run([test.bdbi, "run", "--no-cache", "--stats", *argv])
    test.check(p.returncode == 0 and p.stdout == b"/usr\n" and re.search(rb"(?m)^jit_blocks [1-9]", p.stderr), f"--stats on stderr: {p.stderr!r}")
    p = test.run([test.bdbi, "run", "--native", *argv])
    test.check((p.returncode, p.stdout, p.stderr) == (0, b"/usr\n", b""), f"--native: {p}")


if __name__ == "__main__":
    Test(__doc__).main(body)
