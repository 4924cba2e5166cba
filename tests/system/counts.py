#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Counts that tell whether code is linked: a loop's iterations do not enter the dispatcher, and a start that the hot list knows
asks it for nothing: also in several command lines of a program, in processes that fork and exec, and in one that calls 45,000
functions. Counts only, no times."""
import os

from common import Test, harness

LOOPS = {
    "gawk": lambda n: ["gawk", "BEGIN{for(i=0;i<%d;i++)x+=i; print x}" % n],
    "perl": lambda n: ["perl", "-e", "my $x=0; for (my $i=0;$i<%d;$i++){$x+=$i} print $x" % n],
    "lua": lambda n: ["lua5.4", "-e", "local x=0 for i=1,%d do x=x+i%%7 end print(x)" % n],
    "bash": lambda n: ["bash", "-c", "for ((i=0;i<%d;i++)); do :; done" % (n // 10)],
    "sqlite3": lambda n: ["sqlite3", ":memory:",
                          "with recursive c(x) as (select 1 union all select x+1 from c where x<%d) select sum(x) from c" % n],
}
STARTS = [["/bin/true"], ["ls", "-d", "/usr"], ["git", "--version"], ["openssl", "version"], ["xz", "--version"],
          ["gawk", "BEGIN{x=1}"], ["perl", "-e", "1"], ["lua5.4", "-e", "x=1"], ["bash", "-c", ":"], ["sqlite3", ":memory:", "select 1"]]
# Command lines of one program in turn; programs that fork and exec.
TURNS = {
    "python3": [["python3", "-S", "-c", "pass"], ["python3", "-S", "-c", "import json; json.dumps([1, {'a': None}])"]],
    "make": [["make", "-s", "-f", "MAKEFILE"]],
}
MAKEFILE = "all: t0 t1 t2 t3\nt%:\n\t@echo $@ | sed s/t/made/ | tr a-z A-Z >/dev/null\n"
# As many targets as a program with 500 libraries has.
MANY = 45000
MANY_C = r"""
__asm__(".text\n.globl many\nmany:\n.rept %d\n.balign 16\nlea 1(%%rdi), %%rax\nret\n.endr");
extern char many[];
int main(void)
{
    long n = 0;
    for (long i = 0; i < %d; i++)
        n = ((long (*)(long))(many + 16 * i))(n);
    return n != %d;
}
"""
ENOUGH = 80  # misses that are not worth a longer list (launcher/hot.c)
FEW = 20  # misses that a longer run may add: growing a buffer calls something new


def asked(stats):
    """How often the dispatcher was asked for code: indirect branches and direct exits."""
    return harness.total(stats, "dispatch_ibl_miss") + harness.total(stats, "dispatch_direct_miss")


def misses(test, argv, *options):
    stats = test.path("stats-" + str(test.serial()))
    test.must([test.bdbi, "run", *options, "--stats=" + stats, "--", *argv])
    return harness.parse_stats(stats)


def check_turns(test, name, lines):
    test.warm(lines[0][0])
    for _ in range(4):
        for argv in lines:
            test.must([test.bdbi, "run", "--", *argv])
            test.learn()
    for argv in lines:
        processes = misses(test, argv)
        n, entries = len(processes), harness.total(processes, "dispatch_ibl_miss")
        test.check(entries <= 3 * n + ENOUGH, f"{name} {argv[-1][:20]}: {entries} dispatcher entries in {n} processes after four rounds of {len(lines)}")
    log = os.path.join(test.cache, "v1", "misses.log")
    test.check(not os.path.exists(log) or os.path.getsize(log) == 0, f"{name}: a learned run leaves nothing to learn")


def check_many(test):
    source, program = test.path("many.c"), test.path("many")
    with open(source, "w", encoding="ascii") as f:
        f.write(MANY_C % (MANY, MANY, MANY))
    test.must(["gcc", "-O1", source, "-o", program])
    test.warm(program)
    for _ in range(2):
        test.must([test.bdbi, "run", "--", program])
        test.learn()
    run = misses(test, [program])
    entries, blocks = asked(run), harness.total(run, "jit_blocks")
    test.check(blocks == 0 and entries <= MANY // 100, f"{MANY} functions: {blocks} blocks translated, {entries} dispatcher entries in a learned run")


def check_links(test):
    """Jumps of the procedure linkage table are linked in a run that takes a while, and lead to no code that has gone."""
    links = test.program("links")
    test.warm(links)
    for _ in range(2):
        test.must([test.bdbi, "run", "--", links])
        test.learn()
    run = misses(test, [links])
    made, faults = harness.total(run, "links"), harness.total(run, "dispatch_fault")
    test.check(made > 100, f"{made} links made in a run of 80 ms that makes them several times")
    test.check(faults < 100, f"{faults} faults: links lead to code that has gone")
    start = misses(test, ["/bin/true"])
    test.check(harness.total(start, "links") == 0, "a short run makes no links")


def body(test):
    numbers = iter(range(1000))
    test.serial = lambda: next(numbers)
    for name, loop in LOOPS.items():
        short, long = (asked(misses(test, loop(n), "--no-cache")) for n in (2000, 200000))
        test.check(long - short <= FEW, f"{name}: {short} dispatcher entries for 2,000 rounds, {long} for 200,000")
    landings = test.program("landings")
    test.warm(landings)
    for mode in [["--no-cache"], []]:
        looked_up = harness.total(misses(test, [landings, "100000"], *mode), "ibl_hits")
        test.check(looked_up < 10000, f"{looked_up} lookups for 300,000 indirect calls and returns {mode}: the target cache does not hold them")
    tables = test.program("tables")
    test.warm(tables)
    looked_up = harness.total(misses(test, [tables, "100000"]), "ibl_hits")
    test.check(looked_up < 10000, f"{looked_up} lookups for 100,000 jumps through a table, to targets that share a slot of the target cache")
    check_links(test)
    for argv in STARTS:
        test.warm(argv[0])
        for _ in range(3):
            test.must([test.bdbi, "run", "--", *argv])
            test.learn()
        run = misses(test, argv)
        entries, blocks = asked(run), harness.total(run, "jit_blocks")
        test.check(blocks == 0 and entries <= FEW, f"{argv[0]}: {blocks} blocks translated, {entries} dispatcher entries in a learned start")
    check_many(test)
    with open(test.path("MAKEFILE"), "w", encoding="ascii") as f:
        f.write(MAKEFILE)
    for name, lines in TURNS.items():
        check_turns(test, name, [[test.path(w) if w == "MAKEFILE" else w for w in argv] for argv in lines])


if __name__ == "__main__":
    Test(__doc__).main(body)
