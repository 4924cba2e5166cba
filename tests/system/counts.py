#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Counts that tell whether code is linked: a loop's iterations do not enter the dispatcher, and a start that the hot list knows
asks it for nothing. Counts only, no times."""
from common import Test, harness

LOOPS = {
    "gawk": lambda n: ["gawk", "BEGIN{for(i=0;i<%d;i++)x+=i; print x}" % n],
    "perl": lambda n: ["perl", "-e", "my $x=0; for (my $i=0;$i<%d;$i++){$x+=$i} print $x" % n],
    "lua": lambda n: ["lua5.4", "-e", "local x=0 for i=1,%d do x=x+i%%7 end print(x)" % n],
    "bash": lambda n: ["bash", "-c", "for ((i=0;i<%d;i++)); do :; done" % (n // 10)],
    "sqlite3": lambda n: ["sqlite3", ":memory:",
                          "with recursive c(x) as (select 1 union all select x+1 from c where x<%d) select sum(x) from c" % n],
}
STARTS = [["/bin/true"], ["ls", "-d", "/usr"], ["git", "--version"], ["openssl", "version"], ["xz", "--version"]]
FEW = 20  # misses that a longer run may add: growing a buffer calls something new


def misses(test, argv, *options):
    stats = test.path("stats-" + str(test.serial()))
    test.must([test.bdbi, "run", *options, "--stats=" + stats, "--", *argv])
    return harness.parse_stats(stats)


def body(test):
    numbers = iter(range(1000))
    test.serial = lambda: next(numbers)
    for name, loop in LOOPS.items():
        short, long = (harness.total(misses(test, loop(n), "--no-cache"), "dispatch_ibl_miss") for n in (2000, 200000))
        test.check(long - short <= FEW, f"{name}: {short} dispatcher entries for 2,000 rounds, {long} for 200,000")
    for argv in STARTS:
        test.warm(argv[0])
        for _ in range(3):
            test.must([test.bdbi, "run", "--", *argv])
            test.learn()
        run = misses(test, argv)
        entries, blocks = harness.total(run, "dispatch_ibl_miss"), harness.total(run, "jit_blocks")
        test.check(blocks == 0 and entries <= FEW, f"{argv[0]}: {blocks} blocks translated, {entries} dispatcher entries in a learned start")


if __name__ == "__main__":
    Test(__doc__).main(body)
