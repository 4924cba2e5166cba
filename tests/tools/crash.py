#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A tool that crashes: one line that names it and the part that crashed, status 125; what the program wrote before stays."""
import os

from objects import COUNT, MAIN, REPORT, Objects

NULL = "volatile int *volatile null = 0; *null = 1;"
FAULTS = {
    "null": (NULL, r"signal 11 at \+0x[0-9a-f]+, address 0x0$"),
    "jump": ("((void (*volatile)(void))0)();", r"signal 11 at 0x0, address 0x0$"),
    "ud2": ("__builtin_trap();", r"signal 4 at \+0x"),
    "divide": ("volatile int zero = 0; zero = 7 / zero;", r"signal 8 at \+0x"),
    "wild": ("memcpy((void *)(bdbi_block_offset((void *)8) + 0x123456789000), \"x\", 1);", r"signal 11 at "),
}


def weave(fault):
    return "#include <string.h>\nstatic void weave(struct bdbi_block *b) { (void)b; " + fault + " }\n" + REPORT + MAIN


def report(fault):
    return COUNT + 'static void report(struct bdbi_run *r) { bdbi_run_write(r, "", 0); ' + fault + " }\n" + MAIN


# Its vfork child alone calls `child`, then it calls `parent`; neither is reached by a direct branch.
VFORK = """
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
int child(int x);
int parent(int x);
__attribute__((noinline)) int child(int x) { return x + 1; }
__attribute__((noinline)) int parent(int x) { return x + 2; }
int (*volatile in_child)(int) = child, (*volatile in_parent)(int) = parent;
int main(void)
{
    int status;
    dprintf(1, "start %d\\n", 1);
    pid_t pid = vfork();
    if (pid == 0)
        _exit(in_child(1));
    waitpid(pid, &status, 0);
    dprintf(1, "child %d\\n", WEXITSTATUS(status));
    dprintf(1, "parent %d\\n", in_parent(1));
    return 0;
}
"""
AT = """
static void weave(struct bdbi_block *b)
{
    size_t n;
    uint64_t at = 0;
    const char *text = bdbi_block_option(b, "at", &n);
    for (size_t i = 0; i < n; i++)
        at = at * 10 + (uint64_t)(text[i] - '0');
    if (bdbi_block_offset(b) == at) { FAULT }
}
"""


def vfork(test):
    """The child has its parent's memory. It ends alone; its parent does not hang, and when it needs the tool itself says why it ends."""
    source = test.path("vfork.c")
    with open(source, "w", encoding="utf-8") as f:
        f.write(VFORK)
    program = test.path("vfork")
    test.must(["gcc", "-O1", source, "-o", program])
    symbols = dict(reversed(line.split()[::2]) for line in test.must(["nm", program]).stdout.decode().splitlines() if len(line.split()) == 3)
    at = int(symbols["child"], 16)
    path = test.build("at.so", AT.replace("FAULT", NULL) + REPORT + MAIN.replace("0, 0, weave", '"at", 0, weave'))
    p = test.bdbi_run(f"{path}:at={at}", program)
    lines = p.stderr.decode().splitlines()
    test.check(p.returncode == 125 and p.stdout.startswith(b"start 1\n") and b"parent" not in p.stdout and len(lines) == 2 and "crashed in weave: signal 11" in lines[0]
               and "crashed in a child that shares this memory" in lines[1], f"in vfork's child: status {p.returncode} {p.stdout!r} {lines}")
    p = test.bdbi_run(f"{path}:at=1", program)
    test.check(p.returncode == 0 and p.stdout == b"start 1\nchild 2\nparent 3\n", f"the same tool, elsewhere: status {p.returncode} {p.stdout!r}")


def body(test):
    vfork(test)
    for name, (fault, pattern) in FAULTS.items():
        path = test.build(f"weave-{name}.so", weave(fault))
        test.one_line(f"run, weave: {name}", test.bdbi_run(path, "echo", "started"), 125, f"tool {path} crashed in weave: {pattern}")
        test.one_line(f"warm, weave: {name}", test.run([test.warmer, "--tool", path, "true"]), 125, f"tool {path} crashed in weave: {pattern}")
        if name == "wild":
            continue
        path = test.build(f"report-{name}.so", report(fault))
        test.one_line(f"report: {name}", test.bdbi_run(path, "echo", "done"), 125, f"tool {path} crashed in report: {pattern}", b"done\n")
    path = test.build("constructor.so", COUNT + REPORT + MAIN + "__attribute__((constructor)) static void first(void) { " + NULL + " }\n")
    pattern = f"tool {path} crashed in its constructors: signal 11"
    test.one_line("run, constructor", test.bdbi_run(path, "echo", "started"), 125, pattern)
    test.one_line("warm, constructor", test.run([test.warmer, "--tool", path, "true"]), 125, pattern)

    # Where else a program ends: by exec, by a signal, in a thread, in a child.
    path = test.build("report.so", report(NULL))
    crashed = f"tool {path} crashed in report: signal 11"
    test.one_line("report before an exec", test.bdbi_run(path, "bash", "-c", "echo a; exec echo b"), 125, crashed, b"a\n")
    test.one_line("report after a signal", test.bdbi_run(path, "bash", "-c", "echo a; kill -ABRT $$"), 125, crashed, b"a\n")
    faults = test.bdbi_run(path, "python3", "-c", "import ctypes; ctypes.string_at(0)")
    test.one_line("report in the handler of a fault", faults, 125, crashed)
    test.one_line("report in another thread", test.bdbi_run(path, "python3", "-c", "import os, threading; threading.Thread(target=lambda: os._exit(3)).start()"), 125, crashed)
    p = test.bdbi_run(path + ":out=" + test.path("%p.out"), "bash", "-c", "(echo a); echo status $?; exit 3")
    lines = p.stderr.decode().splitlines()
    test.check(p.returncode == 125 and p.stdout == b"a\nstatus 125\n" and len(lines) == 2 and all(crashed in line for line in lines),
               f"a forked child's: status {p.returncode} {p.stdout!r} {lines}")
    # Only after a while, in whatever child or thread it is.
    path = test.build("weave.so", "static int calls;\nstatic void weave(struct bdbi_block *b) { (void)b; if (++calls > 40000) { " + NULL + " } }\n" + REPORT + MAIN)
    p = test.bdbi_run(path, "python3", "-c", "import subprocess\nfor i in range(200): subprocess.run(['true'])\nprint('end')", options=["--no-cache"])
    lines = p.stderr.decode().splitlines()
    test.check(p.returncode == 125 and any("weave.so crashed in" in line for line in lines) and len(lines) <= 3, f"late in python: status {p.returncode} {p.stdout!r} {lines}")
    # A fault of the program's own is not the tool's.
    good = test.build("good.so", COUNT + REPORT + MAIN)
    p = test.bdbi_run(good, "python3", "-c", "import ctypes; ctypes.string_at(0)")
    test.check(p.returncode == -11 and b"tool" not in p.stderr, f"the program's own fault: status {p.returncode} {p.stderr[:200]!r}")
    handled = "import signal, faulthandler, os\nsignal.signal(signal.SIGSEGV, lambda *a: os._exit(7))\nos.kill(os.getpid(), signal.SIGSEGV)\nsignal.pause()"
    p = test.bdbi_run(good, "python3", "-c", handled)
    test.check(p.returncode == 7 and p.stderr == b"report\n", f"a signal that the program handles: status {p.returncode} {p.stderr[:200]!r}")
    test.check(os.path.exists(good), "objects stay")


if __name__ == "__main__":
    Objects(__doc__).main(body)
