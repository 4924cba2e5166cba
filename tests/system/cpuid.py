#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What is remembered of cpuid: a record of another boot or another processor is not used, one of this boot is; after a boot the learner
makes the new one; a warm `true` executes next to none where cpuid is slow."""
import os

from common import Test, harness

LEAF = ["12345678", "0"]  # no processor has it
WRONG = b"12345678 0: 1 2 3 4\n"
OTHER = "00000000-1111-2222-3333-444444444444"
FEW = 4  # executed in a start of `true`: leaf 1 twice, what may be left out


def record(test, cache, *what):
    return test.must([os.path.abspath(os.path.join(test.options.bin, "cachedb_cpuid_record")), cache, *what]).stdout.strip().decode()


def counts(test, cache, argv, *options):
    """What the program says, cpuids answered and executed."""
    stats = test.path("stats")
    if os.path.exists(stats):
        os.unlink(stats)
    out = test.must([test.bdbi, "run", "--cache", cache, "--stats=" + stats, *options, "--", *argv]).stdout
    parsed = harness.parse_stats(stats)
    return out, harness.total(parsed, "cpuid_known"), harness.total(parsed, "cpuid_executed")


def with_record(test, name, *what):
    """A cache that knows the program, and has such a record; no other."""
    cache = test.path(name)
    record(test, cache, *what)
    test.must([test.warmer, "--cache", cache, test.program("cpuid")])
    return cache


def body(test):
    program = [test.program("cpuid"), *LEAF]
    native = test.must(program).stdout
    test.check(native != WRONG, "the processor does not give the wrong answer")

    cache = with_record(test, "mine", "this", "this")
    out, known, _ = counts(test, cache, program, "--no-learn")
    test.check(out == WRONG and known == 1, "a record of this boot and processor is used")
    said = test.must([test.bdbi, "run", "--cache", cache, "--no-learn", "--verbose", "--", *program]).stderr
    test.check(b"cpuid: 1 answers are those" in said, "--verbose says so")
    cache = with_record(test, "processor", "this", "other")
    out, known, executed = counts(test, cache, program, "--no-learn")
    test.check(out == native and known == 0 and executed > 0, "a record of another processor is not used")

    cache = test.path("boot")
    record(test, cache, OTHER, "this")
    test.must([test.bdbi, "run", "--cache", cache, "--", *program])
    test.must([test.bdbi, "learn", "--wait", "--cache", cache])
    test.check(record(test, cache, "this") != "none", "after a boot a run has the new one's record made")
    cache = with_record(test, "other", OTHER, "this")
    out, _, _ = counts(test, cache, program, "--no-learn")
    test.check(out == native, "a record of another boot is not used")

    test.warm("/bin/true")
    for _ in range(2):
        test.must([test.bdbi, "run", "--", "/bin/true"])
        test.learn()
    answers = record(test, test.cache, "this")
    _, known, executed = counts(test, test.cache, ["/bin/true"])
    if answers in ("none", "0"):
        test.check(known == 0 and executed > 0, f"cpuid is fast here, or differs: all {executed} of `true` are executed")
    else:
        test.check(known > 0 and executed <= FEW, f"`true`: {known} answered by {answers} that are remembered, {executed} executed, {FEW} allowed")


if __name__ == "__main__":
    Test(__doc__).main(body)
