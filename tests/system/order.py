#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Order: code and counters of blocks that ran come first, after a run with a tool and after `bdbi-warm --train`; what a training run
does, and what it says when it goes wrong."""
import os
import re
import signal

from common import Test, harness

FUNCTIONS, EACH = 6000, 150  # one of so many is called

# Signals and faults come while its functions run: in the middle of ordered code.
PROGRAM = r"""
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

static volatile sig_atomic_t ticks;
static sigjmp_buf back;
static void tick(int sig) { (void)sig; ticks++; }
static void fault(int sig) { (void)sig; siglongjmp(back, 1); }

%s
static int (*const functions[])(int) = {%s};

int main(int argc, char **argv)
{
    struct itimerval often = {{0, 300}, {0, 300}};
    long sum = 0, faults = 0, rounds = argc > 1 ? atol(argv[1]) : 1;
    signal(SIGALRM, tick);
    signal(SIGSEGV, fault);
    if (rounds > 100)
        setitimer(ITIMER_REAL, &often, NULL);
    for (long i = 0; i < rounds || (rounds > 100 && ticks < 20); i++)
        for (int k = 0; k < %d; k += %d) {
            long got = functions[k]((int)(i %% 1000));
            sum += i < rounds ? got : 0;
            if (k %% 900 == 0 && i < 3 && sigsetjmp(back, 1) == 0)
                *(volatile int *)(long)k = 1;
            else
                faults += k %% 900 == 0 && i < 3;
        }
    printf("%%ld %%ld %%s\n", sum, faults, argc > 2 ? argv[2] : "");
    if (argc > 3 && !strcmp(argv[3], "fail"))
        return 3;
    if (argc > 3)
        abort();
    return 0;
}
"""

FUNCTION = """int f%d(int n)
{
    if (n < 0)
        return puts("never");
    if (n %% 3 == 0)
        n = n * %d + 1;
    if (n > 1000000)
        return abs(n) ^ %d;
    for (int i = 0; i < 3; i++)
        n += i & n ? %d : i;
    return n;
}
"""


def build(test):
    text = "".join(FUNCTION % (i, i % 97 + 3, i, i % 13) for i in range(FUNCTIONS))
    source, program = test.path("program.c"), test.path("program")
    with open(source, "w", encoding="ascii") as f:
        f.write(PROGRAM % (text, ", ".join(f"f{i}" for i in range(FUNCTIONS)), FUNCTIONS, EACH))
    test.must(["cc", "-O1", "-fno-inline", "-o", program, source], timeout=200)
    return program


def faults(test, argv):
    """Page faults of one run: the smallest of five."""
    found = []
    null = os.open(os.devnull, os.O_RDWR)
    for _ in range(5):
        pid = os.posix_spawn(argv[0], argv, test.env, file_actions=[(os.POSIX_SPAWN_DUP2, null, 1), (os.POSIX_SPAWN_DUP2, null, 2)])
        _, status, usage = os.wait4(pid, 0)
        if status:
            raise harness.Failure(f"status {status}: {argv}")
        found.append(usage.ru_minflt + usage.ru_majflt)
    os.close(null)
    return min(found)


def of_cache(test, program):
    """{tool: epoch} of the program's images."""
    lines = test.must([test.bdbi, "cache"]).stdout.decode().splitlines()
    return {m[2]: int(m[1]) for line in lines if (m := re.search(r"epoch (\d+), \d+ extents +(\S+) +(\S+)$", line)) and m[3] == program}


def with_signals(test, program, expected, *options):
    p = test.run([test.bdbi, "run", *options, "--", program, "400", "x"])
    test.check(p.returncode == 0 and p.stdout == expected, f"{options or 'no tool'}: {p.stdout!r}, status {p.returncode}")


def with_tools(test, program, expected):
    for tool in "bbcount", "bbcov":
        run = [test.bdbi, "run", "--tool", f"{tool}:out={test.path(tool)}", "--", program, "1"]
        test.warm("--tool", tool, program)
        first = faults(test, run)
        reports = []
        for _ in range(3):
            test.learn()
            test.must(run)
        later = faults(test, run)
        epochs = of_cache(test, program)
        test.check(epochs[tool] == (tool == "bbcount") and later < (first - 100 if tool == "bbcount" else 250), f"{tool}: {first} page faults before, {later} when the "
                   f"order is known; of the second tool it is from the first: epochs {epochs}")
        with_signals(test, program, expected, "--tool", f"{tool}:out=/dev/null")
        for how in [], ["--no-cache"]:
            out = test.path("report")
            if os.path.exists(out):
                os.unlink(out)
            fixed = [test.bdbi, "run", *how, "--tool", "bbcount:out=" + out, "--", program, "20"]
            test.must(fixed)
            with open(out, encoding="utf-8") as f:
                reports.append(re.search(rf"^module {re.escape(program)} blocks \d+ (instructions \d+)$", f.read(), re.M)[1])
        test.check(len(set(reports)) == 1, f"counts with the order and without a cache: {reports}")


def training(test, program, expected):
    run = [test.bdbi, "run", "--", program, "1"]
    test.warm(program)
    for _ in range(2):
        test.must(run)
        test.learn()
    untrained = faults(test, run)
    p = test.must([test.warmer, "--train", program, "400", "x"], timeout=200)
    test.check(p.stdout.startswith(expected), f"a training run is a run: {p.stdout[:60]!r}")
    test.check(of_cache(test, program) == {"none": 1}, f"no code of a training tool is kept: {of_cache(test, program)}")
    for _ in range(3):
        test.must(run)
        test.learn()
    trained = faults(test, run)
    test.check(trained < untrained - 30, f"{untrained} page faults untrained, {trained} trained")
    with_signals(test, program, expected)
    stats = test.must([test.bdbi, "run", "--stats", "--", program, "1"]).stderr.decode()
    test.check("jit_blocks 0\n" in stats, "and no miss")
    test.warm("--tool", "bbcov", program)
    first = faults(test, [test.bdbi, "run", "--tool", "bbcov:out=/dev/null", "--", program, "1"])
    test.check(first < untrained + 60, f"what is known to run comes first for a tool that is warmed later: {first}")


def vdso(test):
    """The vdso stays where the kernel puts it, out of the counters' reach: its own are elsewhere. A thousand calls."""
    script = "import time\nfor i in range(1000): time.monotonic()"
    run = [test.bdbi, "run", "--stats", "--tool", "bbcount", "--", "/usr/bin/python3", "-S", "-c", script]
    test.warm("--tool", "bbcount", "/usr/bin/python3")
    test.must(run)
    test.learn()
    text = test.must(run).stderr.decode()
    blocks = int(re.search(r"^module \[vdso\] blocks (\d+) ", text, re.M)[1])
    none = int(re.search(r"^module \[vdso\] blocks (\d+) ", test.must([*run[:2], "--no-cache", *run[2:]]).stderr.decode(), re.M)[1])
    test.check("module [vdso] cache " in text and 4000 < blocks < 20000 and abs(blocks - none) < 100, f"the vdso's blocks: {blocks}, {none}")


def wrong(test, program):
    test.cache = test.env["BDBI_CACHE"] = test.path("other")
    p = test.run([test.warmer, "--train", program, "1", "x", "fail"])
    test.check(p.returncode == 0 and b"ended with status 3\n" in p.stderr and b" blocks have run: their code comes first\n" in p.stdout, f"a program that fails: {p.stderr!r}")
    p = test.run([test.warmer, "--train", program, "1", "x", "abort"])
    test.check(p.returncode == 0 and b"was ended by signal %d\n" % signal.SIGABRT in p.stderr, f"one that is killed: {p.stderr!r}")
    p = test.run([test.warmer, "--train", test.path("missing")])
    test.check(p.returncode == 127 and p.stderr.count(b"\n") == 1, f"one that is not there: {p.returncode} {p.stderr!r}")
    p = test.run([test.warmer, "--train", "--tool", "bbcount", program, "1"])
    test.check(p.returncode == 0 and b"instructions" not in p.stdout + p.stderr, f"a tool's report is not made: {p.stdout!r} {p.stderr!r}")


def body(test):
    program = build(test)
    expected = test.must([program, "400", "x"]).stdout
    with_tools(test, program, expected)
    test.cache = test.env["BDBI_CACHE"] = test.path("trained")
    training(test, program, expected)
    wrong(test, program)
    vdso(test)


Test(__doc__).main(body)
