#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A tool as a shared object from warming to the report: its images are its content's and its options', children run with it, the
program does not see it."""
import fcntl
import os
import re
import resource
import shutil
import subprocess
import time

from objects import COUNT, MAIN, REPORT, Objects, harness

TOTAL = """
static void add(const struct bdbi_counter *c, void *user) { *(uint64_t *)user += c->count * c->info; }
static void report(struct bdbi_run *r)
{
    char text[24];
    uint64_t n = 0;
    unsigned i = 24;
    bdbi_run_counters(r, add, &n);
    text[--i] = '\\n';
    do
        text[--i] = (char)('0' + n % 10);
    while ((n /= 10));
    bdbi_run_write(r, text + i, 24 - i);
}
"""
# Fills the vector registers, lets an execve fail after the report has run, and looks at them.
REGISTERS = """
#include <stdint.h>
#include <stdio.h>
#include <string.h>
int main(int argc, char **argv)
{
    static char huge[200000], *args[] = {"x", huge, 0}, *none[] = {0};
    uint64_t before[32], after[32], word = 0x0123456789abcdef;
    uint32_t mxcsr = 0x1fc0, mxcsr_after;
    uint16_t control = 0x027f, control_after;
    long result = 59;
    memset(huge, 'x', sizeof huge - 1);
    for (int i = 0; i < 32; i++)
        before[i] = word += 0x1111111111111111;
    __asm__ volatile("ldmxcsr %[m]; fldcw %[c]\\n"
        ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\\n movups 16*\\\\n(%[b]), %%xmm\\\\n\\n .endr\\n"
        "syscall\\n"
        ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\\n movups %%xmm\\\\n, 16*\\\\n(%[a])\\n .endr\\n"
        "stmxcsr %[ma]; fnstcw %[ca]\\n"
        : "+a"(result), [ma] "=m"(mxcsr_after), [ca] "=m"(control_after)
        : "D"("/bin/true"), "S"(args), "d"(none), [m] "m"(mxcsr), [c] "m"(control), [b] "r"(before), [a] "r"(after)
        : "rcx", "r11", "memory");
    printf("%ld %d %x %x\\n", result, memcmp(before, after, sizeof after), mxcsr_after, control_after);
    return argc == 9 && argv[0] == 0;
}
"""
CLOBBER = """
static void report(struct bdbi_run *r)
{
    unsigned mxcsr = 0x1f80;
    unsigned short control = 0x37f;
    __asm__ volatile("ldmxcsr %0; fldcw %1; fld1\\n .irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\\n pcmpeqd %%xmm\\\\n, %%xmm\\\\n\\n .endr" : : "m"(mxcsr), "m"(control));
    bdbi_run_write(r, "clobbered\\n", 10);
}
"""


def changed_object(test, program):
    """A rebuilt object never meets the images of the old one; the old one, put back, finds its own."""
    one = COUNT + TOTAL + MAIN
    path = test.build("mine.so", one)
    shutil.copy(path, test.path("one.so"))
    test.warm("--tool", path, program)
    p = test.bdbi_run(path, program, options=["--fail-on-jit"])
    first = int(p.stderr.splitlines()[-1]) if p.returncode == 0 else 0
    test.check(first > 1000, f"warm, no miss: status {p.returncode} {p.stderr[-100:]!r}")
    stamp = os.stat(path)
    test.build("mine.so", one.replace("bdbi_block_instructions(b))", "3ull * bdbi_block_instructions(b))"))
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    p, found = test.stats(path, program, options=["--no-learn"])
    test.check(found[0]["cache_blocks"] == 0 and found[0]["jit_blocks"] > 0 and int(p.stderr.splitlines()[-1]) == 3 * first,
               f"changed: {p.stderr[-100:]!r} {found[0]}")
    test.warm("--tool", path, program)
    p = test.bdbi_run(path, program, options=["--fail-on-jit"])
    test.check(p.returncode == 0 and int(p.stderr.splitlines()[-1]) == 3 * first, f"changed and warmed: {p.stderr[-100:]!r}")
    os.mkdir(test.path("else where"))
    shutil.copy(test.path("one.so"), test.path("else where", "copy.so"))
    p = test.bdbi_run(test.path("else where", "copy.so"), program, options=["--fail-on-jit"])
    test.check(p.returncode == 0 and int(p.stderr.splitlines()[-1]) == first, f"the old content under another name: {p.stderr[-100:]!r}")
    listed = test.must([test.bdbi, "cache"]).stdout.decode()
    test.check(listed.count(path) >= 2, "bdbi cache names the object")


def own_options(test, program):
    """Options that change weaving have images of their own; others share them. The counts are what the options say."""
    for every in "1", "2", "3":
        test.warm("--tool", f"{test.every}:every={every},label=warm", program)
    numbers = {}
    for every in "1", "2", "3":
        p = test.bdbi_run(f"{test.every}:label=run,every={every}", program, options=["--fail-on-jit"])
        match = re.search(rb"^run: every (\d) blocks (\d+) instructions \d+\n$", p.stderr, re.M)
        numbers[every] = int(match[2]) if match and match[1].decode() == every else -1
    test.check(0 < numbers["3"] < numbers["1"] and 0 < numbers["2"] < numbers["1"], f"blocks by option: {numbers}")
    p, found = test.stats(test.every + ":every=4", program, options=["--no-learn"])
    test.check(p.returncode == 0 and found[0]["cache_blocks"] == 0 and found[0]["jit_blocks"] > 0, f"a value that was not warmed: {found[0]}")
    # How code is cut into blocks depends on who translates; the sum of their instructions does not.
    totals = [test.bdbi_run(test.every, program, options=o).stderr.split()[-1:] for o in (["--no-cache"], [])]
    test.check(totals[0] == totals[1] and int(totals[0][0]) > 10000, f"all instructions, without and with a cache: {totals}")


def learning(test, program):
    """What a cold run missed is learned with the object; with one that has changed since, nothing is."""
    test.new_cache()
    first = test.bdbi_run(test.every + ":every=1", program).stderr
    test.learn()
    p = test.bdbi_run(test.every + ":every=1", program, options=["--fail-on-jit"])
    test.check(p.returncode == 0 and p.stderr.split()[-1] == first.split()[-1] and p.stderr.startswith(b"every 1 "),
               f"learned: status {p.returncode} {p.stderr[-200:]!r}, cold {first!r}")
    test.check("every.so:every=1" in test.must([test.bdbi, "cache"]).stdout.decode(), "bdbi cache names what was learned")
    test.new_cache()
    path = test.build("short-lived.so", COUNT + REPORT + MAIN)
    # The learner that the run starts must not be faster than the change: it waits for the lock.
    os.makedirs(os.path.join(test.cache, "v1"), mode=0o700)
    with open(os.path.join(test.cache, "v1", "learn.lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        test.bdbi_run(path, program)
        test.build("short-lived.so", COUNT + REPORT.replace("report", "other!") .replace("void other!", "void report") + MAIN)
        for _ in range(100):  # the run's learner finds the lock taken and leaves
            if not any(b"learn" in cmdline(pid) and test.cache.encode() in cmdline(pid) for pid in os.listdir("/proc") if pid.isdigit()):
                break
            time.sleep(0.05)
    p = test.must([test.bdbi, "learn", "--wait", "--verbose", "--cache", test.cache])
    test.check(b"left out" in p.stderr, f"another object now: {p.stderr[-300:]!r}")
    p, found = test.stats(path, program, options=["--no-learn"])
    test.check(found[0]["cache_blocks"] == 0, f"and no image of it: {found[0]}")


def cmdline(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            return f.read()
    except OSError:
        return b""


def children(test):
    """By a relative path, through fork and exec, after chdir, from a folder with a ':' in its name."""
    folder = test.path("a:b::c")
    os.mkdir(folder)
    shutil.copy(test.bbcount, os.path.join(folder, "t.so"))
    os.mkdir(test.path("out"))
    tool = "./t.so:out=" + test.path("out", "%p")
    p = test.bdbi_run(tool, "bash", "-c", "cd /; /bin/echo a; (cd /usr; exec /bin/echo b); exec /bin/echo c", cwd=folder)
    reports = [harness.parse_bbcount(test.path("out", name)) for name in os.listdir(test.path("out"))]
    modules = [module[0] for reports_of in reports for report in reports_of for module in report["modules"]]
    test.check(p.returncode == 0 and p.stdout == b"a\nb\nc\n" and len(reports) == 3 and sum(m == "/bin/echo" or m == "/usr/bin/echo" for m in modules) == 3,
               f"children: status {p.returncode} {p.stdout!r} {p.stderr[-300:]!r}, {len(reports)} reports: {sorted(set(modules))}")
    doubled = test.path("a::b::::c", "t.so") + ":out=" + test.path("out", "named")
    p = test.bdbi_run(doubled, "echo", "d")
    test.check(p.returncode == 0 and os.path.exists(test.path("out", "named")), f"'::' for a ':': status {p.returncode} {p.stderr[-300:]!r}")
    gone = test.path("gone.so")
    shutil.copy(test.bbcount, gone)
    p = test.bdbi_run(gone + ":out=" + test.path("out", "gone"), "bash", "-c", f"rm {gone}; (exec echo x); echo $?; /bin/echo y; echo end")
    lines = p.stderr.decode().splitlines()
    test.check(p.returncode == 0 and p.stdout == b"125\nend\n" and len(lines) == 2 and all("gone.so: no such file" in line for line in lines),
               f"an object that is removed: status {p.returncode} {p.stdout!r} {lines}")


def invisible(test):
    """The guest's maps do not show the object; from outside, no memory is writable and executable, its code is the file's."""
    path = test.build("seen.so", COUNT + REPORT + MAIN)
    inside = test.bdbi_run(path, "cat", "/proc/self/maps", options=["--no-learn"])
    test.check(inside.returncode == 0 and b"seen.so" not in inside.stdout and b"554018" not in inside.stdout, "not in the program's own maps")
    script = "import os, sys\nprint(os.getpid(), flush=True)\nsys.stdin.read()\n"
    child = subprocess.Popen([test.bdbi, "run", "--no-learn", "--tool", path, "--", "python3", "-c", script], env=test.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
    pid = int(child.stdout.readline())
    with open(f"/proc/{pid}/maps", encoding="utf-8") as f:
        lines = f.read().splitlines()
    child.communicate(b"", timeout=60)
    mine = [line.split() for line in lines if line.startswith("554018") or line.endswith("seen.so")]
    test.check(not [line for line in lines if re.search(" .wx", line)], "nothing is writable and executable")
    test.check(any(f[1] == "r-xp" and f[-1] == path for f in mine) and all(f[0].startswith("554018") for f in mine), f"mapped: {mine}")


def faults_of(test, tool):
    """Page faults of `true`, warm, the fewest of three runs."""
    test.warm("--tool", tool, "true")
    fewest = 1 << 30
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt
        test.bdbi_run(tool, "true", options=["--no-learn"])
        fewest = min(fewest, resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt - before)
    return fewest


def counters(test):
    """A report reads the counters' pages that were touched, not all those of libc; without /proc/self/pagemap it reads all, to the same
    numbers."""
    silent = test.build("silent.so", COUNT + MAIN.replace("report}", "0}"))
    less, more = faults_of(test, silent), faults_of(test, test.bbcount + ":out=/dev/null")
    test.check(0 < more - less < 60, f"{more} page faults with a report, {less} without")
    reports = []
    for limit in "100", "4":  # with 4 descriptors the report's file is the last one
        out = test.path("counters" + limit)
        command = f"ulimit -n {limit}; exec {test.bdbi} run --no-cache --tool {test.bbcount}:out={out} {test.program('count_libc')}"
        test.must(["bash", "-c", command])
        reports.append(harness.parse_bbcount(out))
    test.check(reports[0] == reports[1], f"the same without a descriptor for pagemap: {reports}")


def registers(test):
    source = test.path("registers.c")
    with open(source, "w", encoding="utf-8") as f:
        f.write(REGISTERS)
    test.must(["gcc", "-O1", source, "-o", test.path("registers")])
    native = test.must([test.path("registers")]).stdout
    path = test.build("clobber.so", COUNT + CLOBBER + MAIN)
    p = test.bdbi_run(path, test.path("registers"))
    test.check(native == b"-7 0 1fc0 27f\n" and p.stdout == native and p.stderr == b"clobbered\n" * 2,
               f"vector registers over a report: natively {native!r}, here {p.stdout!r} {p.stderr!r}")


def body(test):
    program = test.program("count_exec")
    changed_object(test, program)
    own_options(test, program)
    learning(test, program)
    children(test)
    invisible(test)
    counters(test)
    registers(test)


if __name__ == "__main__":
    Objects(__doc__).main(body)
