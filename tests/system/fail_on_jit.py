#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""--fail-on-jit: with an empty cache it ends with 125 and names the first missed address; once learned it passes. And --stats
tells the same story: all blocks translated in the first run, none in the last."""
import re

from common import Test, harness


# vfork's child runs code without a file; its parent goes on, and needs what the child held.
VFORK = """
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
int main(void)
{
    int status;
    char *code = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    *code = (char)0xc3;
    pid_t pid = vfork();
    if (pid == 0) {
        if (getppid() > 1)
            ((void (*)(void))code)();
        _exit(3);
    }
    waitpid(pid, &status, 0);
    munmap(code, 4096);
    dprintf(1, "child %d\\n", WEXITSTATUS(status));
    return 0;
}
"""


def vfork(test):
    source, program = test.path("vfork.c"), test.path("vfork")
    with open(source, "w", encoding="utf-8") as f:
        f.write(VFORK)
    test.must(["gcc", "-O1", source, "-o", program])
    test.must([test.bdbi, "run", "--", program])
    test.learn()
    p = test.run([test.bdbi, "run", "--fail-on-jit", "--no-learn", "--", program], timeout=20)
    test.check(p.returncode == 0 and p.stdout == b"child 125\n" and p.stderr.count(b"\n") == 1 and b"missed anonymous code" in p.stderr, f"a vfork child alone: {p}")


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
    vfork(test)


if __name__ == "__main__":
    Test(__doc__).main(body)
