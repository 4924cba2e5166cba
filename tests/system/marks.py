#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Marks in a process that runs for a while: the stores of set ones are taken out; what runs later, in a new thread or in a forked child
is still covered."""
import re

from common import Test, harness

PROGRAM = r"""
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

__attribute__((noinline)) int always(int n) { return n % 7 ? n * 3 : n / 7; }
__attribute__((noinline)) int before(int n) { return n % 5 ? n * 7 : n / 5; }
__attribute__((noinline)) int later(int n) { return n % 3 ? n * 11 : n / 3; }
__attribute__((noinline)) int in_thread(int n) { return n % 9 ? n * 13 : n / 9; }
__attribute__((noinline)) int in_child(int n) { return n % 2 ? n * 17 : n / 2; }
__attribute__((noinline)) int never(int n) { return n % 4 ? n * 19 : n / 4; }

static volatile int sum;

static void for_milliseconds(long ms)
{
    while (clock() < ms * (CLOCKS_PER_SEC / 1000))
        for (int i = 0; i < 1000; i++)
            sum += always(i);
}

static void *thread(void *unused)
{
    sum += always(1) + in_thread(2);
    return unused;
}

int main(int argc, char **argv)
{
    pthread_t t;
    sum += before(argc);
    for_milliseconds(300); /* clock() is a system call */
    sum += later(argc);
    pthread_create(&t, NULL, thread, NULL);
    pthread_join(t, NULL);
    if (fork() == 0) {
        sum += always(3) + in_child(4);
        for_milliseconds(250);
        exit(0);
    }
    wait(NULL);
    if (argc > 5)
        sum += never(argc);
    printf("%s done\n", argv[0] ? "all" : "");
    return 0;
}
"""

FUNCTIONS = ("always", "before", "later", "in_thread", "in_child", "never")
COVERED = {"parent": {"always", "before", "later", "in_thread"}, "child": {"always", "in_child"}}


def functions_of(test, report, program, offsets):
    """Those whose first block is in the report's table."""
    with open(test.path(report), encoding="utf-8") as f:
        text = f.read()
    module = next(m[1] for m in re.finditer(r"^ *(\d+), .*, (\S+)$", text, re.M) if m[2] == program)
    starts = {int(m[1], 16) for m in re.finditer(rf"^module\[ *{module}\]: 0x([0-9a-f]+), ", text, re.M)}
    return {name for name in FUNCTIONS if offsets[name] in starts}


def body(test):
    source, program = test.path("program.c"), test.path("program")
    with open(source, "w", encoding="ascii") as f:
        f.write(PROGRAM)
    test.must(["cc", "-O1", "-fno-inline", "-pthread", "-o", program, source])
    symbols = test.must(["nm", program]).stdout.decode()
    offsets = {name: int(re.search(rf"^([0-9a-f]+) T {name}$", symbols, re.M)[1], 16) for name in FUNCTIONS}
    test.warm("--tool", "bbcov", program)
    for turn in "first", "again":
        out = test.path(turn)
        p = test.must([test.bdbi, "run", "--stats", "--tool", f"bbcov:out={out}.%n,format=text", program])
        settled = [int(n) for n in re.findall(r"^settled (\d+)$", p.stderr.decode(), re.M)]
        test.check(p.stdout == b"all done\n" and len(settled) == 2 and min(settled) > 20, f"{turn}: stores taken out, child and parent: {settled}")
        for number, who in enumerate(("child", "parent")):
            got = functions_of(test, f"{turn}.{number}", program, offsets)
            test.check(got == COVERED[who], f"{turn}: the {who} has run {sorted(got)}")
        test.learn()
    if not settled:
        raise harness.Failure("no statistics")


Test(__doc__).main(body)
