#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A changed binary never runs old code: rebuilt, replaced by rename, edited in place with size and mtime kept, edited through a
shared mapping that was dirty before warming; programs and libraries; with and without learning in between.
"""
import mmap
import os
import shutil

from common import Test, harness

# The number that the program prints sits in an instruction, so that a changed number is changed code.
MARK = 0x11223344


def source(number, library):
    return f"""
        #include <stdio.h>
        #include <stdlib.h>
        int number(void);
        __attribute__((noinline)) int {"unused" if library else "number"}(void) {{ return {number}; }}
        int main(void) {{ printf("%d\\n", number() - {MARK}); return 0; }}
    """


def build(test, path, number, extra=(), text=None):
    with open(test.path("source.c"), "w", encoding="utf-8") as f:
        f.write(text or source(number, "-lnumber" in extra))
    test.must(["gcc", "-O1", test.path("source.c"), "-o", path, *extra])


def build_library(test, path, number):
    build(test, path, number, ["-shared", "-fPIC"], f"int number(void); int number(void) {{ return {number}; }}")


def offset_of_number(path, number):
    with open(path, "rb") as f:
        data = f.read()
    code = b"\xb8" + number.to_bytes(4, "little")  # mov eax, imm32
    if data.count(code) != 1:
        raise harness.Failure(f"{data.count(code)} places of the number in {path}")
    return data.index(code) + 1


def edit_in_place(path, old, new):
    """Changes the instruction, keeps size and mtime."""
    offset = offset_of_number(path, old)
    before = os.stat(path)
    with open(path, "r+b") as f:
        f.seek(offset)
        f.write(new.to_bytes(4, "little"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = os.stat(path)
    if (before.st_size, before.st_mtime_ns, before.st_ino) != (after.st_size, after.st_mtime_ns, after.st_ino):
        raise harness.Failure("size, mtime or inode changed")


class Subject:
    """A program, or a program with a library that changes."""

    def __init__(self, test, name, library):
        self.test, self.library = test, library
        folder = test.path(name)
        os.mkdir(folder)
        self.program = os.path.join(folder, "program")
        self.file = os.path.join(folder, "libnumber.so") if library else self.program
        if library:
            build_library(test, self.file, MARK + 1)
            build(test, self.program, 0, ["-L" + folder, "-Wl,-rpath," + folder, "-lnumber"])
        else:
            build(test, self.program, MARK + 1)

    def make(self, path, n):
        (build_library if self.library else build)(self.test, path, MARK + n)

    def prints(self, number, what):
        for tool in [], ["--tool", "bbcount:out=" + self.test.path("report")]:
            p = self.test.run([self.test.bdbi, "run", *tool, "--", self.program])
            self.test.check((p.returncode, p.stdout, p.stderr) == (0, b"%d\n" % number, b""),
                            f"{'library' if self.library else 'program'} {what}, {'bbcount' if tool else 'none'}: "
                            f"{p.stdout!r} {p.stderr!r} status {p.returncode}, expected {number}")

    def warm(self):
        self.test.warm(self.program)
        self.test.warm("--tool", "bbcount", self.program)


def body(test):
    for library in False, True:
        kind = "library" if library else "program"
        subject = Subject(test, kind, library)
        subject.warm()
        subject.prints(1, "as built")
        test.learn()
        subject.prints(1, "learned")

        subject.make(subject.file, 2)
        subject.prints(2, "rebuilt")
        subject.warm()
        subject.prints(2, "rebuilt, warm")

        subject.make(subject.file + ".new", 3)
        stat = os.stat(subject.file)
        os.utime(subject.file + ".new", ns=(stat.st_atime_ns, stat.st_mtime_ns))
        os.rename(subject.file + ".new", subject.file)
        subject.prints(3, "replaced by rename with the old mtime")

        subject.warm()
        edit_in_place(subject.file, MARK + 3, MARK + 4)
        subject.prints(4, "edited in place right after warming")
        subject.warm()
        subject.prints(4, "edited in place, warm")
        for n in range(5, 9):
            edit_in_place(subject.file, MARK + n - 1, MARK + n)
            subject.prints(n, "edited in place again")
            test.learn()
            subject.prints(n, "edited in place again, learned")

        # A shared mapping, dirty before warming. A program cannot be run while it is open for writing, a library can be mapped.
        offset = offset_of_number(subject.file, MARK + 8)
        with open(subject.file, "r+b") as f:
            shared = mmap.mmap(f.fileno(), 0)
        shared[offset:offset + 4] = (MARK + 8).to_bytes(4, "little")
        subject.warm()
        shared[offset:offset + 4] = (MARK + 9).to_bytes(4, "little")
        if library:
            subject.prints(9, "edited through a dirty shared mapping")
            shared[offset:offset + 4] = (MARK + 10).to_bytes(4, "little")
            subject.prints(10, "edited through the shared mapping again")
            shared[offset:offset + 4] = (MARK + 9).to_bytes(4, "little")
        shared.close()
        subject.prints(9, "edited through a shared mapping, now closed")
        test.learn()
        subject.prints(9, "edited through a shared mapping, learned")

    # The same content under another name is served from the cache.
    shutil.copy2(test.program("static_exec"), test.path("copied"))
    test.warm(test.program("static_exec"))
    stats = test.path("stats")
    test.warm(test.path("copied"))
    test.run([test.bdbi, "run", "--no-learn", "--stats=" + stats, "--", test.path("copied")])
    test.check(harness.total(harness.parse_stats(stats), "cache_blocks") > 0, "a copy is served from the cache")


if __name__ == "__main__":
    Test(__doc__).main(body)
