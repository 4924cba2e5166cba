#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""docs/limits.md: what ends with one line ends with that line and its status; what a program sees otherwise than natively is said under --verbose."""
import os
import re
import shutil
import signal
import struct

from common import Test


def lines_of(p):
    return [line for line in p.stderr.decode("utf-8", "replace").splitlines() if line.startswith("bdbi: ")]


def busy(test):
    """A file that somebody has open for writing, given to bdbi itself; what a guest executes is in sub_exec."""
    shutil.copy("/bin/true", test.path("busy"))
    with open(test.path("script"), "w") as f:
        f.write("#!/bin/sh\n")
    os.chmod(test.path("script"), 0o755)
    for name in "busy", "script":
        for options in [], ["--no-cache"]:
            with open(test.path(name), "r+b"):
                p = test.run([test.bdbi, "run", *options, "./" + name])
            said = lines_of(p)
            test.check(p.returncode == 126 and len(said) == 1 and "text file busy" in said[0], f"open for writing, {name} {options}: {p.returncode} {said}")
            p = test.run([test.bdbi, "run", *options, "./" + name])
            test.check(p.returncode == 0 and p.stderr == b"", f"closed again, {name} {options}: {p.returncode} {p.stderr!r}")


def block_signals():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP, signal.SIGHUP, signal.SIGUSR1})
    for number in signal.SIGFPE, signal.SIGBUS, signal.SIGUSR1:
        os.kill(os.getpid(), number)


def blocked(test):
    """A process that has synchronous signals blocked, and some pending, starts bdbi."""
    program = test.program("limits")
    native = test.run([program, "blocked"], preexec_fn=block_signals)
    test.check(native.returncode == 0 and b"signal 8: blocked 1, pending 1" in native.stdout, f"natively: {native.returncode} {native.stdout!r}")
    for options in [], ["--no-cache"], ["--tool", "bbcount:out=/dev/null"]:
        p = test.run([test.bdbi, "run", *options, program, "blocked"], preexec_fn=block_signals)
        test.check(p.returncode == 0 and p.stdout == native.stdout, f"signals blocked at the start {options}: {p.returncode} {p.stdout!r} {p.stderr!r}")


def flip(test, at):
    with open(os.path.join(test.cache, "v1", "data.mdb"), "r+b") as f:
        f.seek(at)
        byte = f.read(1)[0]
        f.seek(at)
        f.write(bytes([byte ^ 4]))


def damaged_code(test):
    """A bit of each image's code, of its tables: bdbi cache --check names the module."""
    test.warm("/bin/true")
    with open(os.path.join(test.cache, "v1", "data.mdb"), "rb") as f:
        data = f.read()
    images = [at for at in range(16, len(data), 4096) if data[at:at + 8] == b"BDBIIMG1"]
    p = test.run([test.bdbi, "cache", "--check"])
    test.check(p.returncode == 0 and p.stdout.startswith(b"%d images checked, 0 damaged" % len(images)), f"a whole cache: {p.returncode} {p.stdout!r} {p.stderr!r}")
    for image in images:
        code_offset, code_bytes = struct.unpack_from("<II", data, image + 72)
        for at in code_offset, code_offset + code_bytes // 2, code_offset - 4000:
            flip(test, image + at)
            p = test.run([test.bdbi, "cache", "--check"])
            lines = p.stdout.decode().splitlines()
            good = p.returncode == 125 and len(lines) == 2 and lines[0].startswith("damaged: ") and "1 damaged" in lines[1] and len(p.stderr.splitlines()) == 1
            test.check(good, f"a bit at {at} of the image at {image}: {p.returncode} {lines} {p.stderr!r}")
            flip(test, image + at)
    test.check(test.run([test.bdbi, "cache", "--check"]).returncode == 0, "all bits are back")


# case of tests/programs/limits.c, its status, what it prints, patterns of the lines; those under --verbose only
CASES = [
    ("use_gs", 125, "", [r"limits\+0x[0-9a-f]+ uses the gs segment"], []),
    ("write_gs", 125, "", [r"limits\+0x[0-9a-f]+ uses the gs segment"], []),
    ("set_gs", 125, "", [r"sets its gs base \(arch_prctl\)"], []),
    ("call_32bit", 125, "", [r"limits\+0x[0-9a-f]+ makes a 32-bit system call"], []),
    ("jump_far", 125, "", [r"limits\+0x[0-9a-f]+ makes a far transfer of control"], []),
    ("branch16", 125, "", [r"limits\+0x[0-9a-f]+ makes a near branch with a 16-bit operand"], []),
    ("not_canonical", 0, "signal 11 code 128, at the target: 1\n", [], [r"a branch to 0x8000000000001234, no canonical address"]),
    ("map_over", 0, "image: ENOMEM\nthread: ENOMEM\nmoved: ENOMEM\n", [r"maps memory to 0x554000000000", r"maps memory to", r"moves memory to 0x554000000000"], []),
    ("told", 0, "not replacing: EEXIST\na hint: elsewhere\n", [], [r"asks for memory at 0x554000000000, where bdbi is"]),
    ("map_over_arena", 125, "", [r"the space for JIT code is full"], []),
    ("process_options", 0, "dispatch: EINVAL\nmdwe: EINVAL\nmseal: ENOSYS\n", [],
     [r"PR_SET_SYSCALL_USER_DISPATCH\) gives EINVAL", r"PR_SET_MDWE\) gives EINVAL", r"mseal gives ENOSYS"]),
    ("filter_long", 0, "long filter: EINVAL\nshort filter: done\n", [],
     [r"a seccomp filter of 4090 instructions gives EINVAL", r"nothing is learned", r"nothing is learned"]),
    ("filter_strict", 0, "signal 31\n", [], [r"strict mode ends the program with SIGSYS"]),
    ("nameless", 0, "open: ENOENT\n", [], [r"/proc/self/exe cannot be opened: .*nameless"]),
    ("read_smaps", 0, "open: done\nopen: done\n", [], [r"/proc/self/smaps shows bdbi's mappings", r"/proc/self/map_files shows"]),
    ("read_other_maps", 0, "open: done\n", [], [r"/proc/\d+/maps shows bdbi's mappings"]),
    ("registers", 0, "registers: done\nregisters: done\n", [], [r"process \d+ runs translated"]),
    ("write_other", 0, "write: done\nwrite: done\n", [], [r"process \d+ has code at 0x[0-9a-f]+, which was written: it sees that at its next system call"]),
    ("narrow_environment", 0, "stored\n", [], [r"the x87 unit's last instruction address is stored as one of translated code"]),
    ("held_signal", 0, "pending 1\n", [], [r"signal 11 was sent while it is blocked"]),
    ("private_code", 0, "code 7\n", [], [r"code of .*/code is mapped: if others write that file"]),
    ("rewritten_module", 0, "module mapped\n", [], [r".*/module was written while it was mapped"]),
    ("shared_code", 0, "code 7\ncode 7\n", [], [r"code in a memory file of the program's is translated"]),
    ("code_and_later_reads", 0, "io_setup: done\ncode 7\n", [], [r"an io_uring's or AIO's later read into its page gives EFAULT"]),
    ("child_ends", 0, "child 125\nparent 2000\n", [r"the kernel refused \d+ bytes of memory|no memory for JIT code"], []),
]


START = [r"addresses: the program is at 0x", r"rseq gives ENOSYS"]
TOOL_LINES = {"not_canonical": [r"a frame's arithmetic flags may be a counter's"]}
ROOT_CASES = [("change_root", 0, "chroot: done\n", [], [r"the root directory has changed"])]
TOOL_CASES = [("lock_memory", 0, "mlockall: done\n", [], [r"pages are locked when they are first used"])]


def cases(test):
    for tool in [], ["--tool", "bbcount:out=/dev/null"]:
        more = (ROOT_CASES if os.geteuid() == 0 else []) + (TOOL_CASES if tool else [])
        for name, status, out, always, verbose in CASES + more:
            for options, patterns in ([], always), (["--verbose"], START + verbose + always + (TOOL_LINES.get(name, []) if tool else [])):
                options = options + ["--no-cache"] * (name == "map_over_arena")  # it knows where code is made for what is not placed
                p = test.run([test.bdbi, "run", *tool, *options, test.program("limits"), name, *tool[1:]], timeout=20)
                said = [line for line in lines_of(p) if "cpuid: " not in line]  # where cpuid is slow: system.cpuid
                good = p.returncode == status and p.stdout == out.encode() and len(said) == len(patterns)
                good = good and all(re.search(pattern, line) for pattern, line in zip(patterns, said))
                test.check(good, f"{name} {tool + options}: {p.returncode} {p.stdout!r} {said}")


def body(test):
    damaged_code(test)
    busy(test)
    blocked(test)
    cases(test)


if __name__ == "__main__":
    Test(__doc__).main(body)
