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


def body(test):
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
    # vfork's child has its parent's memory: it ends alone, and the parent, whose tool is broken now, says so and does not hang.
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
