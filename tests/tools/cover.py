#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""bbcov from warming to the report: the formats, threads, children by fork and exec, ends by a signal, libraries that come and go; marks in a tool of
one's own."""
import os
import time

from objects import MAIN, Objects, harness

# Eight threads, each of which alone calls a function of its own; a child that alone calls another, and ends as it is told.
PROGRAM = """
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#define F(n) __attribute__((noinline)) int f##n(int x) { return x * 7 + n; }
F(0) F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8) F(9)
static int (*volatile table[10])(int) = {f0, f1, f2, f3, f4, f5, f6, f7, f8, f9};
static void *run(void *n) { return (void *)(long)table[(long)n]((int)(long)n); }
int main(int argc, char **argv)
{
    pthread_t threads[8];
    const char *way = argc > 1 ? argv[1] : "";
    for (long i = 0; i < 8; i++)
        pthread_create(&threads[i], NULL, run, (void *)i);
    for (int i = 0; i < 8; i++)
        pthread_join(threads[i], NULL);
    if (fork() == 0) {
        table[8](1);
        if (!strcmp(way, "abort"))
            abort();
        if (!strcmp(way, "fault"))
            *(volatile int *)0 = 1;
        if (!strcmp(way, "kill"))
            kill(getpid(), SIGTERM);
        if (!strcmp(way, "exec"))
            execl(argv[0], argv[0], "last", (char *)NULL);
        _exit(0);
    }
    wait(NULL);
    if (!strcmp(way, "last"))
        table[9](1);
    return 0;
}
"""
# Marks every block twice, the second time with the number of its instructions, and counts it too.
MARKS = """
static void weave(struct bdbi_block *b)
{
    bdbi_block_mark(b, 0);
    bdbi_block_count(b, 1);
    bdbi_block_mark(b, bdbi_block_instructions(b));
}
static void add(const struct bdbi_mark *m, void *user)
{
    uint64_t *sums = (uint64_t *)user;
    sums[m->info == 0]++;
    sums[2] += m->info;
    sums[3] += m->module_index != 0;
}
static void count(const struct bdbi_counter *c, void *user) { ((uint64_t *)user)[4] += c->count > 0; }
static void report(struct bdbi_run *r)
{
    uint64_t sums[5] = {0}, before = bdbi_run_marks(r, 0, 0);
    bdbi_run_marks(r, add, sums);
    bdbi_run_counters(r, count, sums);
    bool good = sums[0] && sums[0] == sums[1] && sums[0] == sums[4] && sums[2] >= sums[0] && before == 2 * sums[0] && bdbi_run_modules(r, 0, 0) && !sums[3];
    bdbi_run_write(r, good ? "good\\n" : "bad\\n", good ? 5 : 4);
}
"""


# Loads libraries that all come to the same place, one after the other, and calls into each; a child only ends.
RELOADS = """
#include <dlfcn.h>
#include <unistd.h>
#include <sys/wait.h>
int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        void *library = dlopen(argv[i], RTLD_NOW);
        int (*f)(int) = (int (*)(int))dlsym(library, "f");
        f(1);
        dlclose(library);
    }
    if (fork() == 0)
        _exit(0);
    return wait(NULL) < 0;
}
"""


def reloaded(test):
    """What was counted and marked in a library stays its own when another one takes its place."""
    program, libraries = test.path("reloads"), [test.path(name) for name in ("one.so", "two.so", "three.so")]
    for n, library in enumerate(libraries):
        body = "for (int i = 0; i < COUNT; i++) { __asm__ volatile(\"\"); x += i; }" if n else "x *= 7;"
        with open(library + ".c", "w", encoding="utf-8") as f:
            f.write("int f(int x) { " + body.replace("COUNT", str(10**(n + 2))) + " return x; }\n")
        test.must(["gcc", "-O1", "-shared", "-fPIC", library + ".c", "-o", library])
    with open(program + ".c", "w", encoding="utf-8") as f:
        f.write(RELOADS)
    test.must(["gcc", "-O1", program + ".c", "-o", program])
    order = [libraries[i] for i in (0, 1, 0, 2, 1, 1)]
    served(test, "bbcount", program, *order)
    served(test, "bbcov", program, *order)
    results = []
    for mode in "--no-cache", "--no-learn":
        counts, covered = [], []
        for tool in "bbcount", "bbcov":
            folder = test.path(f"reloads{mode}-{tool}")
            os.mkdir(folder)
            test.bdbi_run(f"{tool}:out={folder}/%p", program, *order, options=[mode])
            for name in os.listdir(folder):
                if tool == "bbcount":
                    [report] = harness.parse_bbcount(os.path.join(folder, name))
                    counts.append([sum(m[2] for m in report["modules"] if m[0] == library) for library in libraries])
                else:
                    [report] = harness.parse_drcov(os.path.join(folder, name))
                    covered.append([{start for number, start, _ in report["blocks"] if report["modules"][number][0] == library} for library in libraries])
        results.append(sorted(counts))
        test.check(all(map(all, max(covered))) and not any(map(any, min(covered))), f"{mode}: marks of libraries that have gone: {[list(map(len, c)) for c in covered]}")
    one, two, three = results[0][1]
    test.check(results[0][0] == [0, 0, 0] and 0 < one < 200 and 6000 < two < 6300 and 20000 < three < 20200, f"two instructions a round: {results[0]}")
    test.check(results[0] == results[1], f"from the cache and without one: {results}")


def served(test, tool, program, *arguments):
    """Warms and learns until nothing is translated: what was built a moment ago is not served."""
    for _ in range(50):
        test.warm("--tool", tool, *(word for a in arguments if a.endswith(".so") for word in ("--also", a)), program)
        found = test.stats(tool + ":out=/dev/null", program, *arguments)[1][0]
        test.learn()
        if found["jit_blocks"] == 0:
            break
        time.sleep(0.1)
    test.check(found["jit_blocks"] == 0 and found["cache_blocks"] > 0, f"{tool}: served from the cache: {found}")


def functions(test, program):
    """{name: offset} of f0 .. f9."""
    lines = test.must(["nm", program]).stdout.decode().splitlines()
    return {f[2]: int(f[0], 16) for f in (line.split() for line in lines) if len(f) == 3 and len(f[2]) == 2 and f[2][0] == "f"}


def called(report, program, offsets):
    """The digits of the functions that were."""
    numbers = {i for i, m in enumerate(report["modules"]) if m[0] == program}
    starts = {start for number, start, _ in report["blocks"] if number in numbers}
    return "".join(sorted(name[1] for name, offset in offsets.items() if offset in starts))


def ends(test, program, offsets):
    child = {"": "8", "abort": "8", "fault": "8", "kill": "8", "exec": "8 012345679"}
    for way, expected in child.items():
        for mode, options in (("no cache", ["--no-cache"]), ("cache", ["--no-learn"])):
            folder = test.path(f"out-{way}-{mode}")
            os.mkdir(folder)
            test.bdbi_run(f"bbcov:out={folder}/%p.%n", program, way, options=options)
            seen = [(name.split("."), called(report, program, offsets)) for name in os.listdir(folder) for report in harness.parse_drcov(os.path.join(folder, name))]
            first = [digits for (_, number), digits in seen if number == "0"]
            later = [digits for (_, number), digits in seen if number == "1"]
            grandchild = ["8"] if way == "exec" else []  # of the program that the child executes
            test.check(sorted(first) == sorted(["01234567", "8", *grandchild]) and later == expected.split()[1:] and len(seen) == len(first) + len(later),
                       f"child's end '{way}', {mode}: {seen}")


def formats(test, program, offsets):
    both = []
    for form in "binary", "text":
        path = test.path("report." + form)
        test.bdbi_run(f"bbcov:out={path},format={form}", test.program("count_exec"), options=["--no-learn"])
        [report] = harness.parse_drcov(path)
        both.append(sorted((report["modules"][number][0], start, size) for number, start, size in report["blocks"]))
        with open(path, "rb") as f:
            test.check((b"module id, start, size:\n" in f.read()) == (form == "text"), f"format={form}")
    test.check(both[0] == both[1] and len(both[0]) > 40, f"the same blocks in both: {[len(b) for b in both]}")
    p = test.bdbi_run("bbcov", program, options=["--no-learn"])
    with open(test.path("stderr"), "wb") as f:
        f.write(p.stderr)
    [report] = harness.parse_drcov(test.path("stderr"))
    test.check(b"module id, start, size:\n" in p.stderr and called(report, program, offsets) == "01234567", "text on stderr, of the first process")


def appended(test, program):
    """Without %n one report behind the other."""
    path = test.path("appended")
    for _ in range(2):
        test.bdbi_run(f"bbcov:out={path}", program, options=["--no-learn"])
    test.check(len(harness.parse_drcov(path)) == 4, "two runs of two processes in one file")


def body(test):
    source, program = test.path("program.c"), test.path("program")
    with open(source, "w", encoding="utf-8") as f:
        f.write(PROGRAM)
    test.must(["gcc", "-O1", "-pthread", source, "-o", program])
    test.warm("--tool", "bbcov", test.program("count_exec"))
    served(test, "bbcov", program)
    offsets = functions(test, program)
    test.check(len(offsets) == 10, f"functions: {offsets}")
    formats(test, program, offsets)
    ends(test, program, offsets)
    appended(test, program)
    reloaded(test)
    path = test.build("marks.so", MARKS + MAIN)
    for options in ["--no-cache"], ["--no-learn"]:
        p = test.bdbi_run(path, test.program("count_exec"), options=options)
        test.check(p.stdout == b"good\n" and p.stderr == b"good\n", f"marks and counters {options}: {p.stdout!r} {p.stderr!r}")
        test.warm("--tool", path, test.program("count_exec"))


if __name__ == "__main__":
    Objects(__doc__).main(body)
