#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What a warm start costs: `bdbi run /bin/true` makes at most 24 system calls more than native, not counting at most 12 reads of
the store, which cost a tenth of the page faults that they replace; and at most 46 more of (page faults + populated pages / 16). With
bbcount, learned, it makes at most 32 system calls and 24 page faults more than without.

With the word `table` it prints the line-by-line table for docs/startup.md as well.
"""
import collections
import os
import re

from common import Test, harness

SYSCALLS = 24
READS = 12
FAULTS = 46
TOOL_SYSCALLS = 32
TOOL_FAULTS = 24


def strip(line, bdbi):
    line = re.sub(r'"[^"]*/bin/bdbi?"(\.\.\.)?', '"bdbi"', line.replace(bdbi, "/bin/bdbi"))
    line = re.sub(r'\["[^"]*"(\.\.\.)?, "run"', '["bdbi", "run"', line)
    line = re.sub(r"^\d+\s+", "", line.strip())
    line = re.sub(r"0x[0-9a-f]+", "ADDRESS", line)
    line = re.sub(r'(read(?:64)?\(\d+, )"(?:[^"\\]|\\.)*"(?:\.\.\.)?', r"\1...", line)
    return re.sub(r"/[^\"]*/bdbi-test\.[^/\"]*", "SCRATCH", line)


def trace(test, argv):
    path = test.path("trace")
    test.must(["strace", "-f", "-qq", "-e", "signal=none", "-o", path, *argv])
    with open(path, encoding="utf-8", errors="replace") as f:
        lines = [line for line in f if not re.search(r"<unfinished|\+\+\+|---", line)]
    return lines


def populated_pages(lines):
    """Pages that calls fill in advance: MAP_POPULATE and madvise(MADV_POPULATE_*)."""
    pages = 0
    for line in lines:
        m = re.search(r"mmap\([^,]+, (\d+), .*MAP_POPULATE", line) or re.search(r"madvise\([^,]+, (\d+), MADV_POPULATE", line)
        if m:
            pages += (int(m[1]) + 4095) // 4096
    return pages


def faults(test, argv):
    """Page faults of one run, exec included: the smallest of ten."""
    best = None
    for _ in range(10):
        pid = os.posix_spawn(argv[0], argv, test.env)
        _, status, usage = os.wait4(pid, 0)
        if status != 0:
            raise harness.Failure(f"status {status}: {argv}")
        n = usage.ru_minflt + usage.ru_majflt
        best = n if best is None else min(best, n)
    return best


def other_ways(test):
    """Code of the cache where mremap cannot make a second mapping (Linux before 5.13), where the store can be mapped but not read, or
    no more, and where files must not be executed.
    """
    trace = test.path("trace")
    test.must(["strace", "-o", trace, "-e", "inject=mremap:error=EINVAL", test.bdbi, "run", "--fail-on-jit", "--", "/bin/true"])
    with open(trace, encoding="utf-8", errors="replace") as f:
        injected = f.read().count("(INJECTED)")
    test.check(injected >= 3, f"{injected} calls of mremap failed: code was mapped from the file again")
    for when in ("1", "3..5"):
        test.must(["strace", "-o", trace, "-e", f"inject=pread64:error=EIO:when={when}", test.bdbi, "run", "--fail-on-jit", "--", "/bin/true"])
    test.check(True, "a store that cannot be read serves all code from its mapping")
    folder = test.path("noexec")
    os.mkdir(folder)
    if test.run(["mount", "-t", "tmpfs", "-o", "noexec", "tmpfs", folder]).returncode != 0:
        print("no mount here: a cache on a noexec mount is not tried")
        return
    try:
        test.must(["cp", "-r", os.path.join(test.cache, "v1"), folder])
        test.must([test.bdbi, "run", "--cache", folder, "--fail-on-jit", "--", "/bin/true"])
        test.check(True, "a cache on a noexec mount serves all code")
    finally:
        test.must(["umount", folder])


def with_tool(test, lines, before):
    run = [test.bdbi, "run", "--tool", "bbcount:out=/dev/null", "--", "/bin/true"]
    test.warm("--tool", "bbcount", "/bin/true")
    for _ in range(4):
        test.must(run)
        test.learn()
    calls = min(len(trace(test, run)) for _ in range(5)) - len(lines)
    after = faults(test, run)
    test.check(calls <= TOOL_SYSCALLS, f"bbcount: {calls} system calls more, {TOOL_SYSCALLS} allowed")
    test.check(after - before <= TOOL_FAULTS, f"bbcount: {after - before} page faults more, {TOOL_FAULTS} allowed")


def body(test):
    native = ["/bin/true"]
    bdbi = [test.bdbi, "run", "--", "/bin/true"]
    test.warm("/bin/true")
    for _ in range(3):
        test.must(bdbi)
        test.learn()
    stats = test.path("stats")
    test.must([test.bdbi, "run", "--stats=" + stats, "--", "/bin/true"])
    test.check(harness.total(harness.parse_stats(stats), "jit_blocks") == 0, "the run is warm")
    # The wrapper's execve is one of the program's as well: both counts begin with the first execve.
    # The shortest of five: where the kernel has put the vdso at the top of the address space, it must be moved.
    native_lines = trace(test, native)
    bdbi_lines = min((trace(test, bdbi) for _ in range(5)), key=len)
    if "table" in test.options.rest:
        rest = collections.Counter(strip(line, test.bdbi) for line in native_lines)
        print("| whose | system call |\n|---|---|")
        for line in bdbi_lines:
            text = strip(line, test.bdbi)
            own = rest[text] == 0
            rest[text] -= not own
            print(f"| {'bdbi' if own else 'program'} | `{text.replace('|', chr(92) + '|')}` |")
    reads = sum("pread64(" in line for line in bdbi_lines) - sum("pread64(" in line for line in native_lines)
    extra = len(bdbi_lines) - len(native_lines) - reads
    test.check(extra <= SYSCALLS, f"{len(native_lines)} system calls natively, {len(bdbi_lines)} under bdbi: {extra} more, {SYSCALLS} allowed, "
               f"and {reads} reads of the store, {READS} allowed")
    test.check(reads <= READS, f"{reads} reads of the store")
    before = faults(test, native) + populated_pages(native_lines) / 16
    after = faults(test, bdbi) + populated_pages(bdbi_lines) / 16
    test.check(after - before <= FAULTS, f"page faults + populated pages / 16: {before:.0f} natively, {after:.0f} under bdbi: "
               f"{after - before:.0f} more, {FAULTS} allowed")
    with_tool(test, bdbi_lines, faults(test, bdbi))
    other_ways(test)


if __name__ == "__main__":
    Test(__doc__).main(body)
