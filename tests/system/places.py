#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Places: what the cache has is loaded below 2 GB, at the same address in each run; what happens when somebody else is there."""
import re

from common import Test, harness

MODULES_END = 0x30000000  # BDBI_MODULES_BYTES
MB = 1 << 20

PROGRAM = r"""
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

/* LIBRARY [ADDRESS]: takes a page at ADDRESS, then calls LIBRARY; where its code is goes to stderr */
int main(int argc, char **argv)
{
    if (argc > 2) {
        void *at = (void *)strtoul(argv[2], NULL, 16);
        if (mmap(at, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != at)
            return 2;
        *(volatile int *)at = 1;
    }
    void *library = dlopen(argv[1], RTLD_NOW);
    int (*answer)(int) = library ? (int (*)(int))dlsym(library, "answer") : NULL;
    if (!answer)
        return 3;
    printf("%d\n", answer(20));
    fprintf(stderr, "at %p\n", (void *)answer);
    return 0;
}
"""

LOADER = r"""
#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* LIBRARY OFFSET: maps it without ld.so's flag, readable first, then executable at once, its text over that; calls what is at OFFSET */
int main(int argc, char **argv)
{
    for (int way = 0; argc > 2 && way < 2; way++) {
        int fd = open(argv[1], O_RDONLY);
        char *base = mmap(NULL, 0x10000, PROT_READ | (way ? PROT_EXEC : 0), MAP_PRIVATE, fd, 0);
        const Elf64_Phdr *text = (const void *)(base + ((const Elf64_Ehdr *)base)->e_phoff);
        while (text->p_type != PT_LOAD || !(text->p_flags & PF_X))
            text++;
        mmap(base + text->p_vaddr, text->p_filesz, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, fd, (off_t)text->p_offset);
        int (*twice)(int) = (int (*)(int))(base + strtoul(argv[2], NULL, 16));
        printf("%d\n", twice(21));
        fprintf(stderr, "at %p\n", (void *)twice);
        munmap(base, 0x10000);
    }
    return 0;
}
"""

LIBRARY = r"""
char room[%d];
int answer(int n)
{
    room[n] = 1;
    return n < 2 ? n : answer(n - 1) + answer(n - 2);
}
"""


def build(test, name, source, *options):
    with open(test.path(name + ".c"), "w", encoding="ascii") as f:
        f.write(source)
    test.must(["cc", "-O1", "-o", test.path(name), test.path(name + ".c"), *options])
    return test.path(name)


def library(test, name, mb):
    return build(test, name + ".so", LIBRARY % (mb * MB), "-shared", "-fPIC")


def run(test, *arguments, options=()):
    """(address of the library's code, what --stats says of the library: cache or jit)."""
    p = test.run([test.bdbi, "run", "--stats", *options, *arguments])
    err = p.stderr.decode()
    at, module = re.search(r"^at 0x([0-9a-f]+)$", err, re.M), re.search(rf"^module {re.escape(arguments[1])} (\S+)", err, re.M)
    if p.returncode != 0 or p.stdout != b"6765\n" or not at or not module:
        raise harness.Failure(f"{arguments}: status {p.returncode} {p.stdout!r} {err[-500:]!r}")
    return int(at[1], 16), module[1]


def body(test):
    program, small, large = build(test, "program", PROGRAM), library(test, "small", 1), library(test, "large", 400)
    test.warm("--also", small, "--also", large, program)
    first, again = run(test, program, small), run(test, program, small)
    test.learn()
    test.check(first[0] < MODULES_END and again == first == (first[0], "cache"), f"a library has a place: {first}, {again}")
    low = run(test, program, small, options=["--tool", "bbcount:out=/dev/null"])
    test.check(low[0] > MODULES_END and low[1] == "jit", f"not where nothing is cached: {low}")
    test.learn()
    low = run(test, program, small, options=["--tool", "bbcount:out=/dev/null"])
    test.check(low[0] < MODULES_END and low[1] == "cache", f"each tool's code has places of its own: {low}")
    far = run(test, program, large)
    test.check(far[0] > 1 << 32 and far[1] == "cache", f"what is too large has none: {far}")

    page = first[0] & ~0xfff
    taken = run(test, program, small, f"{page:x}")
    test.check(taken[0] != first[0] and taken[1] == "jit", f"the program's own memory is there: {taken}")
    test.learn()
    again = run(test, program, small)
    test.check(again == first, f"that changes nothing for other runs: {again}")

    loader = build(test, "loader", LOADER)
    pure = build(test, "pure.so", f"char room[{0xc000}]; int twice(int n) {{ return 2 * n; }}\n", "-shared", "-fPIC", "-nostdlib")
    symbols = test.must(["nm", pure]).stdout.decode()
    offset = re.search(r"^([0-9a-f]+) T twice$", symbols, re.M)[1]
    test.warm("--also", pure, loader)
    p = test.run([test.bdbi, "run", "--stats", loader, pure, offset])
    at = [int(x, 16) for x in re.findall(r"^at 0x([0-9a-f]+)$", p.stderr.decode(), re.M)]
    ways = re.findall(rf"^module {re.escape(pure)} (\S+)", p.stderr.decode(), re.M)
    test.check(p.stdout == b"42\n42\n" and len(at) == 2 and at[0] == at[1] < MODULES_END and set(ways) == {"cache"},
               f"another loader's library: {p.stdout!r} {[hex(x) for x in at]} {ways}")

    others = [library(test, f"other{i}", 250) for i in range(2)]
    for other in others:
        test.warm("--also", other, program)
    wide = library(test, "wide", 150)  # its place is at the top again, where libc has its
    test.warm("--also", wide, program)
    overlaps = run(test, program, wide)
    test.check(overlaps[1] == "jit", f"another module is there: {overlaps}")
    test.learn()
    moved = run(test, program, wide)
    test.check(moved[0] < MODULES_END and moved[1] == "cache", f"it gets another place: {moved}")
    test.learn()
    test.check(run(test, program, wide) == moved and run(test, program, small) == first, "and keeps that")


Test(__doc__).main(body)
